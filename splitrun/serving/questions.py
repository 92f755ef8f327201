"""What a request asks of streams."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import RequestError
from ..protocol import MOST_TOP

_SIZE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """What is to be said of a stream.

    Attributes:
        top: Most classes or objects.
        image_size: Width and height of its image, where they are known.
        mask: ``"png"``, ``"rle"``, or ``""`` for none.
        as_image: Whether the mask alone is the answer.
        outputs: Whether the outputs of the edge graph are wanted too.
    """

    top: int = 5
    image_size: tuple[int, int] | None = None
    mask: str = ""
    as_image: bool = False
    outputs: bool = False


def read_top(text: str) -> int:
    """Read the number of classes or objects.

    Raises:
        RequestError: It is none.
    """
    if not (text.isdecimal() and text.isascii() and 1 <= int(text[:5]) <= MOST_TOP):
        raise RequestError(f"top is {text[:40]!r}, not a whole number from 1 to {MOST_TOP}.")
    return int(text)


def read_sizes(text: str | None, streams: Sequence[object]) -> list[tuple[int, int] | None]:
    """Read images' sizes, one for all streams or one for each.

    Raises:
        RequestError: It is none, or their number is another.
    """
    if text is None:
        return [None] * len(streams)
    matches = [_SIZE.fullmatch(size) for size in text.split(",")]
    sizes: list[tuple[int, int] | None] = [
        (int(match[1]), int(match[2])) for match in matches if match
    ]
    if len(sizes) < len(matches):
        raise RequestError(f"image_size is {text[:40]!r}, not of the form 640x480.")
    return sizes * len(streams) if len(sizes) == 1 else one_each(sizes, streams, "image sizes")


def one_each(values: list[T], streams: Sequence[object], what: str) -> list[T]:
    """Return values, one for each stream; raise ``RequestError`` where their number is another."""
    if len(values) != len(streams):
        raise RequestError(f"{len(values)} {what} for {len(streams)} streams.")
    return values
