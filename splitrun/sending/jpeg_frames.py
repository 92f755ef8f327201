"""JPEG files one after another in a pipe, as cameras and ffmpeg write them (MJPEG)."""

from collections.abc import Iterator
from typing import IO

from ..errors import ImageError

MOST_FRAME_BYTES = 1 << 26
_BLOCK = 1 << 16
_START = b"\xff\xd8"
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length


class JpegFrames:
    """Cuts a pipe into JPEG files; what lies between them, as in multipart streams, is skipped.

    Markers are followed by their lengths, so that a thumbnail within a file does not end it.

    Args:
        file: Pipe to read, without a buffer: what is there is taken.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._held = bytearray()
        self._number = 1

    def __iter__(self) -> Iterator[bytes]:
        """Give the content of one file after another.

        Raises:
            ImageError: The pipe ends within a file, or holds none, or one that is too large.
        """
        skipped = 0
        while True:
            start = self._held.find(_START)
            if start < 0:
                # A start may be cut in two.
                keep = self._held[-1:] if self._held[-1:] == b"\xff" else b""
                skipped += len(self._held) - len(keep)
                self._held[:] = keep
                if self._more():
                    self._check(skipped)
                    continue
                if self._number == 1 and skipped:
                    self._check(MOST_FRAME_BYTES + 1)
                return
            del self._held[:start]
            end = self._end()
            yield bytes(self._held[:end])
            del self._held[:end]
            self._number, skipped = self._number + 1, 0

    def _end(self) -> int:
        """Return where the file ends at whose start the held bytes begin.

        A damaged one ends where the damage is seen: it is given all the same, and cannot be read.
        """
        at = 2
        while True:
            marker = self._byte(at + 1)
            if self._byte(at) != 0xFF:
                return at
            if marker == 0xFF:  # filling
                at += 1
            elif marker == 0xD9:
                return at + 2
            elif marker in _BARE:
                at += 2
            else:
                length = self._byte(at + 2) << 8 | self._byte(at + 3)
                at += 2 + length
                if marker == 0xDA:
                    at = self._after_scan(at)

    def _after_scan(self, at: int) -> int:
        """Return where the marker after entropy-coded data is."""
        while True:
            self._byte(at + 1)
            found = self._held.find(b"\xff", at, len(self._held) - 1)
            if found < 0:
                at = len(self._held) - 1
                self._byte(at + 1)
            elif self._held[found + 1] == 0 or self._held[found + 1] in _BARE:
                at = found + 2
            else:
                return found

    def _byte(self, at: int) -> int:
        while len(self._held) <= at:
            if len(self._held) > MOST_FRAME_BYTES:
                raise self._damaged(f"it has over {MOST_FRAME_BYTES:,} bytes")
            if not self._more():
                raise self._damaged("standard input ends within it")
        return self._held[at]

    def _more(self) -> bool:
        block = self._file.read(_BLOCK)
        self._held += block
        return bool(block)

    def _check(self, skipped: int) -> None:
        if skipped > MOST_FRAME_BYTES:
            raise ImageError(
                "from standard input",
                "it holds no JPEG files",
                next_step="For raw frames, give their size: --size 640x480",
            )

    def _damaged(self, why: str) -> ImageError:
        return ImageError(f"frame {self._number}", why)
