"""Where the places of a plane are, pass by pass, and which neighbours each knows.

The passes are those of ``pyramid``. Here each neighbour is known by itself, and so is the border:
convolutions that pad leave rows and columns there that are unlike the others.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .pyramid import passes_of

Offsets = tuple[tuple[int, int], ...]


def _all_signs(*offsets: tuple[int, int]) -> Offsets:
    """Return places in these distances, down and right, to all sides."""
    signs = (1, -1)
    return tuple(dict.fromkeys((y * a, x * b) for y, x in offsets for a in signs for b in signs))


_BESIDE = _all_signs((0, 1), (1, 0))
_CORNERS = _all_signs((1, 1))
_KNIGHTS = _all_signs((1, 2), (2, 1))
_OFFSETS = (
    _CORNERS + _all_signs((1, 3), (3, 1)),
    _BESIDE + _KNIGHTS,
    _BESIDE + _CORNERS + _KNIGHTS,
)
"""Of diagonal places, those to the right of the known ones, and those below: the nearest that are
known, the nearest first."""

TAPS = max(map(len, _OFFSETS))
_KEPT_PLACES = 1 << 16


@dataclass(frozen=True)
class Pass:
    """A pass over a plane (h, w), whose places have numbers in raster order.

    Attributes:
        places: (n,) intp, that it codes.
        taps: (t, n) intp, the known neighbours of each, t up to :data:`TAPS`; ``h · w`` is none.
        zones: (n,) intp, of each: 0 inside; near the border, which side it is at and how far off.
    """

    places: NDArray[np.intp]
    taps: NDArray[np.intp]
    zones: NDArray[np.intp]


def passes(height: int, width: int, levels: int, border: int) -> Iterable[Pass]:
    """Give the passes in their order.

    Args:
        height: Of the plane.
        width: Likewise.
        levels: From 0, which is one pass without neighbours.
        border: Rows and columns on each side that are zones of their own, ``4 · border``.
    """
    # Those of a large plane take much memory: they are not kept.
    make = _kept if height * width <= _KEPT_PLACES else _passes
    return make(height, width, levels, border)


@functools.lru_cache(maxsize=2)
def _kept(*plane: int) -> tuple[Pass, ...]:
    return tuple(_passes(*plane))


def _passes(height: int, width: int, levels: int, border: int) -> Iterator[Pass]:
    zones = _zones(height, width, border).ravel()
    yield _pass((height, width), (0, 0), 1 << levels, (), zones)
    for number in range(passes_of(levels) - 1):
        level, kind = divmod(number, 3)
        step = 1 << (levels - level)
        corner = ((step >> 1, step >> 1), (0, step >> 1), (step >> 1, 0))[kind]
        yield _pass((height, width), corner, step, _OFFSETS[kind], zones)


def _pass(
    size: tuple[int, int],
    corner: tuple[int, int],
    step: int,
    offsets: Offsets,
    zones: NDArray[np.intp],
) -> Pass:
    height, width = size
    rows, columns = (np.arange(first, one, step) for first, one in zip(corner, size, strict=True))
    places = (rows[:, None] * width + columns).ravel()
    taps = np.empty((len(offsets), places.size), np.intp)
    for target, (down, right) in zip(taps, offsets, strict=True):
        there = _inside(rows + down * (step >> 1), height, step)[:, None]
        beside = _inside(columns + right * (step >> 1), width, step)
        found = np.where((there >= 0) & (beside >= 0), there * width + beside, height * width)
        target[:] = found.ravel()
    return Pass(places, taps, zones[places])


def _inside(index: NDArray[np.intp], size: int, step: int) -> NDArray[np.intp]:
    """Return what stands for places outside: the nearest inside, as known as they; -1 if none."""
    index = np.where(index < 0, index % step, index)
    beyond = np.maximum(index - size + step, 0) // step
    return np.maximum(index - beyond * step, -1)


def _zones(height: int, width: int, border: int) -> NDArray[np.intp]:
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    above, left = (np.minimum(one, border) for one in (rows, columns))
    below, right = (np.minimum(one[::-1, ::-1], border) for one in (rows, columns))
    sides = np.stack(np.broadcast_arrays(above, below, left, right))
    # The nearest side; of two, the first.
    side, distance = sides.argmin(0), sides.min(0)
    return np.where(distance < border, 1 + side * border + distance, 0)
