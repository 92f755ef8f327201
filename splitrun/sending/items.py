"""What waits to be sent: one stream, with the id under which its answer comes."""

import json
import os
import re
import time
from dataclasses import dataclass

from ..errors import BitstreamError
from ..protocol import KEY
from ..text import is_plain

MOST_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Item:
    """A stream to be sent.

    Attributes:
        id: 24 hexadecimal digits; the same for the same image, however often it is sent. Ids sort
            by the time of their images.
        image: Name of the image: its file, or its number in what was read.
        stream: Stream of the image.
        taken: Time when it was read, seconds since 1970.
        key: Name of the sending, by which the other side knows repeats: device and id, of letters,
            digits and ``. _ : / + = -``.
        image_size: Width and height of the image, pixels, where they are known.
    """

    id: str
    image: str
    stream: bytes
    taken: float
    key: str
    image_size: tuple[int, int] | None = None

    def to_bytes(self) -> bytes:
        """Write it as a line of JSON and the stream."""
        head = {"image": self.image, "taken": self.taken, "image_size": self.image_size}
        head |= {"key": self.key}
        return json.dumps(head).encode() + b"\n" + self.stream

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> "Item":
        """Read what :meth:`to_bytes` wrote.

        Raises:
            BitstreamError: It is damaged.
        """
        head, newline, stream = content.partition(b"\n")
        try:
            if not newline or len(head) > MOST_HEAD_BYTES:
                raise ValueError
            said = json.loads(head)
            size = said["image_size"]
            image, key = str(said["image"]), str(said["key"])
            if not (is_plain(image) and KEY.fullmatch(key)):
                raise ValueError
            return cls(
                id=name,
                image=image,
                stream=stream,
                taken=float(said["taken"]),
                image_size=(int(size[0]), int(size[1])) if size else None,
                key=key,
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise BitstreamError(f"The stream that was kept as {name} is damaged.") from error


def key_of(device: str, name: str) -> str:
    """Return the name of a sending; what it may not hold becomes a minus sign."""
    return re.sub(r"[^A-Za-z0-9._:/+=-]", "-", f"{device}/{name}")[-200:]


def new_id(taken_ns: int, mark: bytes | None = None) -> str:
    """Return the id of an image.

    Args:
        taken_ns: Time of the image, nanoseconds since 1970.
        mark: 4 bytes that tell images of the same time apart; by default random ones.
    """
    return f"{taken_ns & (1 << 64) - 1:016x}{(mark or os.urandom(4)).hex()}"


class Ids:
    """Ids of images as they are read: each later than the one before, whatever the clock does."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> str:
        """Return the id of an image that was read now."""
        self._last = max(time.time_ns(), self._last + 1)
        return new_id(self._last)
