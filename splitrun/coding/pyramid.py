"""The order in which a context coder goes over an image's symbols, and what it knows at each place.

::

    levels = 1        A a A a      A, every 2 ** levels-th place in both directions, comes first;
                      b D b D      then D from its 4 diagonal neighbours; a from those beside,
                      A a A a      above and below it; b from the same and the diagonal ones.

With more levels, A is itself a plane of which every second place comes first, and so on: 1 + 3 ·
``levels`` passes, each of which codes its places in all channels at once.

A plane holds, of every place coded so far, two things: the symbol and how far it was off what had
been predicted. What a pass knows is the sums of both over each kind of neighbours. Places outside
the image count as 0.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.int32]
"""(2, …, C, h + 2, w + 2): symbols and distances, within a border of zeros."""

Sites = tuple[slice, slice]
"""Rows and columns of the image that a pass codes."""

Kinds = list[NDArray[np.int32]]
"""Of each kind of neighbours, the sums: (2, …, C, h · w)."""

Code = Callable[[int, Kinds, Sites], NDArray[np.int32]]
"""Codes a pass, given its number, what is known, and where; returns (2, …, C, h, w)."""

MAX_KINDS = 3
"""Of neighbours, in any pass."""

_HERE, _RIGHT, _BELOW, _DIAGONAL, _LEFT, _ABOVE = (0, 0), (0, 1), (1, 0), (1, 1), (0, -1), (-1, 0)


def passes_of(levels: int) -> int:
    """Return the number of passes."""
    return 1 + 3 * levels


def walk(height: int, width: int, levels: int, code: Code) -> None:
    """Go over all places of an image.

    Args:
        height: Of the image, in symbols.
        width: Likewise.
        levels: From 0, which is one pass without neighbours.
        code: Called for each pass that has places.
    """
    step = 1 << levels
    even = _bordered(code(0, [], (slice(0, None, step), slice(0, None, step))))
    for level in range(levels):
        half, number = step >> 1, 3 * level
        rows, columns = (-(-side // step) for side in (height, width))
        below, beside = (max(0, -(-(side - half) // step)) for side in (height, width))

        def run(
            number: int, size: tuple[int, int], corner: tuple[int, int], kinds: Kinds, step: int
        ) -> Plane:
            if not kinds[0].size:
                return np.zeros((*kinds[0].shape[:-1], size[0] + 2, size[1] + 2), np.int32)
            sites = slice(corner[0], None, step), slice(corner[1], None, step)
            return _bordered(code(number, kinds, sites))

        size = below, beside
        corners = _sum(even, (_HERE, _RIGHT, _BELOW, _DIAGONAL), size)
        diagonal = run(number + 1, size, (half, half), [corners], step)
        size = rows, beside
        known = [_sum(even, (_HERE, _RIGHT), size), _sum(diagonal, (_ABOVE, _HERE), size)]
        right = run(number + 2, size, (0, half), known, step)
        size = below, columns
        known = [
            _sum(even, (_HERE, _BELOW), size),
            _sum(diagonal, (_LEFT, _HERE), size),
            _sum(right, (_LEFT, _HERE, (1, -1), _BELOW), size),
        ]
        under = run(number + 3, size, (half, 0), known, step)
        if half > 1:
            even = _interleave(even, right, under, diagonal)
        step = half


def _bordered(values: NDArray[np.int32]) -> Plane:
    *others, height, width = values.shape
    plane = np.zeros((*others, height + 2, width + 2), np.int32)
    plane[..., 1:-1, 1:-1] = values
    return plane


def _sum(
    plane: Plane, neighbours: Sequence[tuple[int, int]], size: tuple[int, int]
) -> NDArray[np.int32]:
    """Sum a plane over neighbours, given by their distance, of the places (h, w) in between."""
    height, width = size
    total = np.zeros((*plane.shape[:-2], height, width), np.int32)
    for down, right in neighbours:
        total += plane[..., 1 + down : 1 + down + height, 1 + right : 1 + right + width]
    return total.reshape(*plane.shape[:-2], height * width)


def _interleave(even: Plane, right: Plane, under: Plane, diagonal: Plane) -> Plane:
    height = even.shape[-2] + under.shape[-2] - 4
    width = even.shape[-1] + right.shape[-1] - 4
    plane = np.zeros((*even.shape[:-2], height + 2, width + 2), np.int32)
    for part, row, column in ((even, 1, 1), (right, 1, 2), (under, 2, 1), (diagonal, 2, 2)):
        plane[..., row : height + 1 : 2, column : width + 1 : 2] = part[..., 1:-1, 1:-1]
    return plane
