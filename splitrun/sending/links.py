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
    """

    name: str
    bits_per_second: float
    frame_bytes: int = 0
    overhead_bytes: int = 0
    source: str = ""

    def bytes_on_air(self, size_bytes: int) -> int:
        """Return how many bytes the link carries for so many bytes of content."""
        frames = max(math.ceil(size_bytes / self.frame_bytes), 1) if self.frame_bytes else 1
        return size_bytes + frames * self.overhead_bytes

    def seconds_on_air(self, size_bytes: int) -> float:
        """Return how long the link is busy with so many bytes of content."""
        return 8 * self.bytes_on_air(size_bytes) / self.bits_per_second


LINKS: Registry[Link] = Registry("link")
for _link in (
    Link(
        "lora",
        5470,
        frame_bytes=222,
        overhead_bytes=13,
        source="LoRaWAN Regional Parameters RP002, EU868, data rate 5 (SF7, 125 kHz): 5,470 bit/s, "
        "222 bytes of application payload; 13 bytes of LoRaWAN 1.0.4 header, port and MIC. "
        "Neither the preamble (12.5 ms a frame) nor the duty cycle (1%) is counted.",
    ),
    Link(
        "ble",
        790_900,
        frame_bytes=244,
        overhead_bytes=0,
        source="Bluetooth Core 5.4, vol. 6 part B: LE 1M with data length extension, 244 bytes of "
        "attribute every 2,468 µs (packet of 251 bytes 2,088 µs, twice 150 µs between frames, "
        "empty answer 80 µs): 790.9 kbit/s of content.",
    ),
    Link(
        "lte-m",
        375_000,
        frame_bytes=1330,
        overhead_bytes=28,
        source="3GPP Release 13, Cat-M1 in half duplex: 375 kbit/s at most, uplink; packets of "
        "1,358 bytes (3GPP TS 23.060 annex C), 28 of them IPv4 and UDP.",
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
            next_step=f"Name one of {', '.join(LINKS.names())}, or a rate such as 37.5kbps.",
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

    def keep(self, size_bytes: int) -> None:
        """Return when the link has carried so many more bytes, its frames' own not counted."""
        if self.link is None:
            return
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + 8 * size_bytes / self.link.bits_per_second
            wait = self._free_at - now
        if wait > 0:
            self._sleep(wait)

    def pieces(self, content: bytes) -> list[bytes]:
        """Cut content into what the link carries in a twentieth of a second."""
        if self.link is None:
            return [content]
        size = max(int(self.link.bits_per_second / 8 / 20), 1)
        return [content[start : start + size] for start in range(0, len(content), size)]
