"""Links, addresses, and the pace of a link."""

import math

import pytest

from splitrun.errors import SpecError
from splitrun.sending.carriers import read_address
from splitrun.sending.links import LINKS, Pace, read_link


def test_links_are_as_their_sources_say() -> None:
    # 13 bytes of LoRaWAN's own a frame of 222, and a CRC: 640 bytes are 3 frames of 5,470 bit/s,
    # each after a preamble and header of 20.736 ms.
    lora = LINKS.get("lora")
    assert lora.seconds_on_air(640) == pytest.approx(8 * (640 + 45) / 5470 + 3 * 0.020736)
    # By Semtech's formula for the time on the air (AN1200.13), SF7, 125 kHz, 4/5, explicit header
    # and CRC: 8 + ⌈(8 · 235 - 28 + 28 + 16) / 28⌉ · 5 symbols of 1.024 ms.
    symbols = 8 + math.ceil((8 * 235 - 4 * 7 + 28 + 16) / (4 * 7)) * 5
    assert lora.seconds_on_air(222) == pytest.approx((12.25 + symbols) * 1.024e-3, rel=0.005)
    # Zigbee: a frame of 133 bytes at 250 kbit/s is 4.256 ms, then 0.544 ms.
    assert LINKS.get("zigbee").seconds_on_air(82) == pytest.approx(4.8e-3)
    # The paper's rate is LoRa's at SF6, 500 kHz, 4/5.
    assert LINKS.get("lora-paper").bits_per_second == 6 * 500e3 / 2**6 * 4 / 5
    assert all(link.source and link.duty_cycle <= 1 for link in map(LINKS.get, LINKS.names()))
    assert read_link("37.5kbps").seconds_on_air(750) == pytest.approx(0.16)
    assert [read_link(text).bits_per_second for text in ("9600", "2Mbit/s")] == [9600, 2e6]
    for text in ("fast", "0", "-1kbps", "1e9"):
        with pytest.raises(SpecError, match="neither a link nor a rate"):
            read_link(text)


def test_a_pace_is_kept() -> None:
    now = [0.0]
    pace = Pace(read_link("8kbps"), lambda: now[0], lambda wait: now.__setitem__(0, now[0] + wait))
    for piece in pace.pieces(bytes(1000)):
        pace.keep(len(piece))
    assert now[0] == pytest.approx(1.0)
    now[0] = 5.0  # what was not used is not saved up
    pace.keep(500)
    assert now[0] == pytest.approx(5.5)
    lora = Pace(LINKS.get("lora"), lambda: now[0], lambda wait: now.__setitem__(0, now[0] + wait))
    lora.keep(0, frames=2)
    assert now[0] == pytest.approx(5.5 + 2 * 20.25 * 1.024e-3)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:80", "ftp://host", "udp://host", "http://", "http://h:x"]
)
def test_addresses_that_are_none(text) -> None:
    with pytest.raises(SpecError, match="no address"):
        read_address(text)
