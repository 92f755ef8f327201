"""Links as data: how fast, how large a frame, and what each frame adds; and a pace to keep."""

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import SpecError
from ..registry import Registry

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:bps|bit/s|b/s)?", re.IGNORECASE)


@dataclass(frozen=True)
class Link:
    """A link from the device to the edge.

    Attributes:
        name: Name, or the rate as it was written.
        bits_per_second: Rate of what is sent, frames included.
        frame_bytes: Most bytes that a frame carries; 0 where streams are not cut.
        overhead_bytes: Bytes that each frame adds.
        source: What the numbers are taken from; empty for a rate that was given.
        frame_seconds: Time that each frame takes beside its bytes, such as a preamble's.
        duty_cycle: Largest share of the time in which a device may send.
        transmit_watts: What the radio takes while it sends; None where no figure is public.
        transmit_source: What that is taken from.
    """

    name: str
    bits_per_second: float
    frame_bytes: int = 0
    overhead_bytes: int = 0
    source: str = ""
    frame_seconds: float = 0.0
    duty_cycle: float = 1.0
    transmit_watts: float | None = None
    transmit_source: str = ""

    def frames(self, size_bytes: float) -> int:
        """Return in how many frames the link carries so many bytes of content."""
        return max(math.ceil(size_bytes / self.frame_bytes), 1) if self.frame_bytes else 1

    def bytes_on_air(self, size_bytes: float) -> float:
        """Return how many bytes the link carries for so many bytes of content."""
        return size_bytes + self.frames(size_bytes) * self.overhead_bytes

    def seconds_on_air(self, size_bytes: float) -> float:
        """Return how long the link is busy with so many bytes of content."""
        bits = 8 * self.bytes_on_air(size_bytes)
        return bits / self.bits_per_second + self.frames(size_bytes) * self.frame_seconds

    def joules(self, size_bytes: float) -> float | None:
        """Return what sending so many bytes takes of the battery; None where it is not known."""
        watts = self.transmit_watts
        return None if watts is None else watts * self.seconds_on_air(size_bytes)


LINKS: Registry[Link] = Registry("link")
for _link in (
    Link(
        "lora",
        5470,
        frame_bytes=222,
        overhead_bytes=15,
        source="LoRaWAN Regional Parameters RP002, EU868, data rate 5 (SF7, 125 kHz): 5,470 bit/s, "
        "222 bytes of application payload; 13 bytes of LoRaWAN 1.0.4 header, port and MIC, 2 "
        "of CRC; preamble and header of 20.25 symbols of 1.024 ms (Semtech AN1200.13). Sub-band of "
        "1% duty cycle (ETSI EN 300 220-2).",
        frame_seconds=20.25 * 1.024e-3,
        duty_cycle=0.01,
        transmit_watts=3.3 * 0.029,
        transmit_source="Semtech SX1276 datasheet, table 6: 29 mA at +13 dBm, from 3.3 V",
    ),
    Link(
        "lora-paper",
        37_500,
        source="The SC2 paper's link: 37.5 kbit/s, the most that LoRa modulation reaches (SF7, "
        "500 kHz, coding rate 4/5 give 21.9; SF6 37.5). No frames, no duty cycle.",
    ),
    Link(
        "nb-iot",
        62_500,
        frame_bytes=1330,
        overhead_bytes=28,
        source="3GPP Release 13, Cat-NB1, uplink on 12 tones: 62.5 kbit/s at most; packets of "
        "1,358 bytes (3GPP TS 23.060 annex C), 28 of them IPv4 and UDP. Neither repetitions nor "
        "waking the modem are counted.",
    ),
    Link(
        "zigbee",
        250_000,
        frame_bytes=82,
        overhead_bytes=51,
        source="IEEE 802.15.4, 2.4 GHz: 250 kbit/s; of a frame of 127 bytes 82 are the "
        "application's under Zigbee 3.0 with network security, and 6 bytes begin it; 192 µs of "
        "turnaround and 352 µs of acknowledgement a frame. Contention is not counted.",
        frame_seconds=544e-6,
    ),
    Link(
        "ble",
        790_900,
        frame_bytes=244,
        overhead_bytes=0,
        source="Bluetooth Core 5.4, vol. 6 part B: LE 1M with data length extension, 244 bytes of "
        "attribute every 2,468 µs (packet of 251 bytes 2,088 µs, twice 150 µs between frames, "
        "empty answer 80 µs): 790.9 kbit/s of content.",
        transmit_watts=3.0 * 0.0048,
        transmit_source="Nordic nRF52840 product specification: 4.8 mA at 0 dBm, DC/DC, from 3 V; "
        "taken for all of the time on the air, of which 85% is sending",
    ),
    Link(
        "lte-m",
        375_000,
        frame_bytes=1330,
        overhead_bytes=28,
        source="3GPP Release 13, Cat-M1 in half duplex: 375 kbit/s at most, uplink; packets of "
        "1,358 bytes (3GPP TS 23.060 annex C), 28 of them IPv4 and UDP.",
        transmit_watts=3.7 * 0.105,
        transmit_source="Nordic nRF9160 product specification: 105 mA on average in an uplink of "
        "180 kbit/s at 23 dBm in band 20, from 3.7 V",
    ),
    Link(
        "wifi",
        65_000_000,
        frame_bytes=1472,
        overhead_bytes=28,
        source="IEEE 802.11n, one stream, 20 MHz, MCS 7: 65 Mbit/s; packets of 1,500 bytes, 28 of "
        "them IPv4 and UDP. Neither contention nor acknowledgements are counted.",
    ),
):
    LINKS.register(_link.name, _link)

LINK_NAMES = f"{', '.join(LINKS.names())}, or a rate: 37.5kbps"
"""What names a link, for help."""


def read_link(text: str) -> Link:
    """Return the link of a name, or of a rate such as ``37.5kbps``, ``2Mbps`` or ``9600``.

    Raises:
        SpecError: It is neither.
    """
    if text in LINKS:
        return LINKS.get(text)
    match = _RATE.fullmatch(text.strip())
    rate = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not 1 <= rate <= 1e12:
        raise SpecError(
            f"{text!r} is neither a link nor a rate of at least 1 bit per second.",
            next_step=f"Name one of {LINK_NAMES}.",
        )
    return Link(text, rate)


class Pace:
    """Keeps what is sent to the rate of a link, as if the link were busy meanwhile.

    Args:
        link: Link to keep to; None for no limit.
    """

    def __init__(
        self,
        link: Link | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.link = link
        self._clock, self._sleep = clock, sleep
        self._free_at = clock()
        self._lock = threading.Lock()

    def keep(self, size_bytes: float, frames: int = 0) -> None:
        """Return when the link has carried so many more bytes, and begun so many frames."""
        if self.link is None:
            return
        busy = 8 * size_bytes / self.link.bits_per_second + frames * self.link.frame_seconds
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + busy
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)

    def pieces(self, content: bytes) -> list[bytes]:
        """Cut content into what the link carries in a twentieth of a second."""
        if self.link is None:
            return [content]
        size = max(int(self.link.bits_per_second / 8 / 20), 1)
        return [content[start : start + size] for start in range(0, len(content), size)]
