"""A stream in frames, for links whose frames are smaller than a stream: LoRa, serial lines, UDP.

::

    offset  bytes
    0       1      kind: 1 part, 2 part that asks for an answer, 3 which parts are here, 4 all are
    1       4      tag of the stream
    5       n      1, 2: index of the part, index of the last one, the part
                   3:    index of the last one, a bit for each part that is here
                   4:    BLAKE2b of the stream, 8 bytes
    5+n     2      CRC-16 (CCITT) of everything before it

A stream has at most 256 parts, all of one size but for the last. The tag is made of the device's
name and the image's id: a stream that is sent again, after a crash too, has the same, and so its
parts add up. The receiver answers a part of kind 2, and every part of a stream that is whole.
"""

import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..coding.stream import read_stream
from ..errors import BitstreamError, LinkError

PART, ASKING, HERE, WHOLE = 1, 2, 3, 4
TAG_BYTES, DIGEST_BYTES = 4, 8
MOST_PARTS = 256
OVERHEAD_BYTES = 1 + TAG_BYTES + 2 + 2
"""Bytes of a frame beside its part of the stream."""

_NUMBERS = {PART: 2, ASKING: 2, HERE: 1, WHOLE: 0}
LEAST_FRAME_BYTES = 1 + TAG_BYTES + 1 + MOST_PARTS // 8 + 2
"""Size of the largest answer."""


class Frame(NamedTuple):
    """A frame taken apart; ``part`` and ``last`` are 0 where its kind has none."""

    kind: int
    tag: bytes
    part: int
    last: int
    content: bytes

    def to_bytes(self) -> bytes:
        """Write the frame."""
        numbers = [self.part, self.last] if self.kind in (PART, ASKING) else [self.last]
        body = bytes([self.kind]) + self.tag + bytes(numbers[: _NUMBERS[self.kind]]) + self.content
        return body + _crc(body)


def read_frame(frame: bytes) -> Frame | None:
    """Take a frame apart; None where it is damaged or none."""
    body = frame[:-2]
    if len(body) < 1 + TAG_BYTES + 1 or _crc(body) != frame[-2:]:
        return None
    kind, tag, rest = body[0], body[1 : 1 + TAG_BYTES], body[1 + TAG_BYTES :]
    if kind in (PART, ASKING) and len(rest) > 2 and rest[0] <= rest[1]:
        return Frame(kind, tag, rest[0], rest[1], rest[2:])
    if kind == HERE and len(rest) == 1 + _bitmap_bytes(rest[0]):
        return Frame(kind, tag, 0, rest[0], rest[1:])
    if kind == WHOLE and len(rest) == DIGEST_BYTES:
        return Frame(kind, tag, 0, 0, rest)
    return None


def tag_of(name: str, attempt: int = 0) -> bytes:
    """Return the tag under which a stream is sent: another for each attempt, if one is taken."""
    return hashlib.blake2b(f"{name} {attempt}".encode(), digest_size=TAG_BYTES).digest()


def digest_of(stream: bytes) -> bytes:
    """Return what the receiver says of a stream that it has."""
    return hashlib.blake2b(stream, digest_size=DIGEST_BYTES).digest()


def cut(stream: bytes, frame_bytes: int) -> list[bytes]:
    """Cut a stream into parts that fit into frames.

    Raises:
        LinkError: It has too many.
    """
    size = frame_bytes - OVERHEAD_BYTES
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    if len(parts) > MOST_PARTS:
        raise LinkError(
            f"The stream has {len(stream):,} bytes; {MOST_PARTS} frames of {frame_bytes} bytes "
            f"carry {MOST_PARTS * size:,}.",
            next_step="Use larger frames (--frame), or a model with a higher β.",
        )
    return parts


@dataclass
class _Parts:
    """The parts of a stream that are here."""

    last: int
    changed_at: float
    parts: dict[int, bytes] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.parts.values()))


class Assembler:
    """Puts streams together from frames of many senders, in bounded memory.

    Args:
        take: Function that keeps a whole stream; it is acknowledged when this returns True, and
            sent again later otherwise. Takes the sender, the tag and the stream.
        most_bytes: Most bytes of streams that are not whole; the oldest are forgotten.
        forget_after_s: Time after which a stream of which nothing more comes is forgotten.
        remembered: Number of streams whose repeats are acknowledged and not taken again.
    """

    def __init__(
        self,
        take: Callable[[Hashable, bytes, bytes], bool],
        *,
        most_bytes: int = 1 << 24,
        forget_after_s: float = 3600.0,
        remembered: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._take, self._clock = take, clock
        self._most_bytes, self._forget_after_s = most_bytes, forget_after_s
        self._remembered = remembered
        self._open: OrderedDict[tuple[Hashable, bytes], _Parts] = OrderedDict()
        self._open_bytes = 0
        self._whole: OrderedDict[tuple[Hashable, bytes], bytes] = OrderedDict()

    def receive(self, sender: Hashable, content: bytes) -> bytes | None:
        """Take a frame, and return the frame to answer with, if there is one to send."""
        frame = read_frame(content)
        if frame is None or frame.kind not in (PART, ASKING):
            return None
        key = sender, frame.tag
        if key in self._whole:
            return Frame(WHOLE, frame.tag, 0, 0, self._whole[key]).to_bytes()
        held = self._open.get(key)
        if held is None or held.last != frame.last:
            # Cut anew, such as for smaller frames.
            self._forget(key)
            held = self._open[key] = _Parts(frame.last, 0.0)
        if frame.part not in held.parts:
            held.parts[frame.part] = frame.content
            self._open_bytes += len(frame.content)
        held.changed_at = self._clock()
        self._open.move_to_end(key)
        if len(held.parts) == held.last + 1:
            answer = self._finish(key, held)
            if answer or key in self._open:  # no room: silence, so that it is sent again later
                return answer
        self._make_room()
        if frame.kind == PART:
            return None
        there = held.parts if key in self._open else {}
        return Frame(HERE, frame.tag, 0, frame.last, _bitmap(there, frame.last)).to_bytes()

    def _finish(self, key: tuple[Hashable, bytes], held: _Parts) -> bytes | None:
        sender, tag = key
        stream = b"".join(held.parts[index] for index in range(held.last + 1))
        try:
            read_stream(stream)
        except BitstreamError:
            self._forget(key)  # a damaged part had the right CRC: all of them once more
            return None
        if not self._take(sender, tag, stream):
            return None
        self._forget(key)
        self._whole[key] = digest_of(stream)
        if len(self._whole) > self._remembered:
            self._whole.popitem(last=False)
        return Frame(WHOLE, tag, 0, 0, self._whole[key]).to_bytes()

    def _forget(self, key: tuple[Hashable, bytes]) -> None:
        held = self._open.pop(key, None)
        self._open_bytes -= held.size_bytes if held else 0

    def _make_room(self) -> None:
        while self._open:
            key, oldest = next(iter(self._open.items()))
            is_old = self._clock() - oldest.changed_at > self._forget_after_s
            # An entry costs more than the bytes that it holds.
            if not is_old and self._open_bytes + 1024 * len(self._open) <= self._most_bytes:
                return
            self._forget(key)


def _bitmap_bytes(last: int) -> int:
    return last // 8 + 1


def _bitmap(indexes: dict[int, bytes], last: int) -> bytes:
    bits = bytearray(_bitmap_bytes(last))
    for index in indexes:
        bits[index // 8] |= 1 << index % 8
    return bytes(bits)


def missing(frame: Frame) -> list[int]:
    """Return the indexes of the parts that an answer does not name."""
    return [i for i in range(frame.last + 1) if not frame.content[i // 8] >> i % 8 & 1]


def _crc(body: bytes) -> bytes:
    return binascii.crc_hqx(body, 0xFFFF).to_bytes(2, "big")
