"""Context coding of latents: sparse symbols, each predicted from sums over its own neighbours."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import TablesError
from ..ans import Stack
from ..tables import MAX_CHANNELS, FactorizedTables
from .skeleton import (
    MAX_LEVELS,
    MAX_ROWS,
    MAX_SPREAD,
    ONE,
    ContextModels,
    ContextTables,
    Planes,
    Step,
    passes,
)

# What is summed stays below 2**31: a constant, 8 neighbours of 255 at most, and an index's part,
# each under its largest weight: 2**28 + 8 · 255 · 2**16 + (2**16 · 2**13 >> 8).
MAX_LIMIT = 255
MAX_WEIGHT = 1 << 16
MAX_SIDE_WEIGHT = 1 << 13
_MAX_CONSTANT = 1 << 28
_MAX_SIDES = 256

_ROWS, _COLUMNS = ((0, -1), (0, 1)), ((-1, 0), (1, 0))
_CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
_GROUPS = {
    (0, 0): (),
    (1, 1): (_CORNERS,),
    (0, 1): (_ROWS, _COLUMNS),
    (1, 0): (_COLUMNS, _ROWS, _CORNERS),
}
"""Groups of neighbours, down and right, that a pass sums over, by its parity."""

MAX_GROUPS = 3


@dataclass(frozen=True, eq=False)
class SparseTables(ContextTables):
    """How symbols (C, h, w) are predicted from those coded before, and the table that codes each.

    The weights of its pass give two integers for each symbol: the mean and, from how far the
    neighbours were off theirs, the spread. The symbol is coded less the mean, rounded, under the
    row ``s · (len(fractions) + 1) + f``: ``s`` of the ``spreads`` are not above the spread, and
    ``f`` of the ``fractions`` not above what rounding the mean left over.

    Attributes:
        weights: (1 + 3 · levels, 4, 2, C) int32, in 1/256, by pass: a constant, then a weight for
            each group of neighbours; for the mean, then for the spread.
        side: (S,) int32, what each scale index of a hyperprior says of the spread, in 1/256; empty
            where there is none.
        side_weights: (1 + 3 · levels, C) int32, weights of these.
        spreads: (s,) int32, rising, above 0.
        fractions: (f,) int32, rising, from 1 to 255: 128 is no remainder.
        limit: Largest magnitude that symbols and distances count as in predictions, 1 to 255.
        rows: Tables, (s + 1) · (f + 1) rows.

    Raises:
        TablesError: They do not fit together, or sums could overflow.
    """

    weights: NDArray[np.int32]
    side: NDArray[np.int32]
    side_weights: NDArray[np.int32]
    spreads: NDArray[np.int32]
    fractions: NDArray[np.int32]
    limit: int
    rows: FactorizedTables

    title: ClassVar[str] = "Context tables"
    name: ClassVar[str] = "context-1"
    specs: ClassVar[Mapping[str, tuple[int, int]]] = {
        "weights": (4, 1 << 31),
        "side": (1, 1 << 16),
        "side_weights": (2, MAX_SIDE_WEIGHT),
        "spreads": (1, MAX_SPREAD),
        "fractions": (1, ONE),
        "limit": (0, MAX_LIMIT),
    }

    def _check(self) -> None:
        number, sums, two, channels = self.weights.shape
        levels, rest = divmod(number - 1, 3)
        if rest or not 0 <= levels <= MAX_LEVELS or (sums, two) != (1 + MAX_GROUPS, 2):
            raise TablesError(f"Context tables: weights of shape {self.weights.shape}.")
        if not 1 <= channels <= MAX_CHANNELS or self.side_weights.shape != (number, channels):
            raise TablesError(
                f"Context tables: {channels} channels, and side weights of shape "
                f"{self.side_weights.shape}."
            )
        if np.abs(self.weights[:, 1:]).max() > MAX_WEIGHT:
            raise TablesError(f"Context tables: a weight is beyond {MAX_WEIGHT}.")
        if np.abs(self.weights[:, 0]).max() > _MAX_CONSTANT:
            raise TablesError(f"Context tables: a constant is beyond {_MAX_CONSTANT}.")
        if self.side.size > _MAX_SIDES:
            raise TablesError(f"Context tables: {self.side.size} indexes; {_MAX_SIDES} at most.")
        if self.limit < 1:
            raise TablesError(f"Context tables: a limit of {self.limit}.")
        for name in ("spreads", "fractions"):
            values = getattr(self, name)
            if np.any(values < 1) or np.any(values[1:] <= values[:-1]):
                raise TablesError(f"Context tables: {name} do not rise from 1 on.")
        if self.fractions.size and self.fractions[-1] >= ONE:
            raise TablesError(f"Context tables: fractions reach {ONE}.")
        rows = (self.spreads.size + 1) * (self.fractions.size + 1)
        if rows > MAX_ROWS or self.rows.channels != rows:
            raise TablesError(
                f"Context tables: {self.rows.channels} rows for {rows} classes; up to {MAX_ROWS}."
            )

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return self.weights.shape[-1]

    @property
    def levels(self) -> int:
        """Number of levels."""
        return (len(self.weights) - 1) // 3

    def part(self, channels: slice) -> "SparseTables":
        """Return the tables of some of the channels; rows and classes are common to all."""
        weights, side_weights = self.weights[..., channels], self.side_weights[:, channels]
        return replace(self, weights=weights, side_weights=side_weights)

    def check_side(self, *, expected: bool) -> None:
        """Check whether tables are for symbols that come with scale indexes.

        Raises:
            TablesError: It is not as expected.
        """
        if bool(self.side.size) != expected:
            known = "know no" if expected else "are for symbols that come with"
            raise TablesError(f"Context tables: these {known} scale indexes.")


class SparsePlanes(Planes[Step]):
    """What is known of N images' symbols; ``known`` of a step holds a sum for each group.

    Args:
        shape: Shape of the symbols, (N, C, h, w).
        levels: Number of levels.
        limit: Largest magnitude that symbols and distances count as.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, limit: int) -> None:
        self._shape, self._levels, self._limit = shape, levels, limit
        # Symbols and distances (2, N, C, …) of the present level by the parity of rows and columns,
        # each in a border of zeros: what is summed then lies together, which is faster.
        self._planes: dict[tuple[int, int], NDArray[np.int32]] = {}

    def steps(self) -> Iterator[Step]:
        """Yield the passes that have places; ``known`` holds sums (2, N, C, n)."""
        *lead, height, width = self._shape
        for at in passes(self._levels):
            if len(self._planes) == 4:
                self._planes = {(0, 0): _merged(self._planes)}
            rows, columns = (len(places) for places in at.grid(height, width))
            plane = np.zeros((2, *lead, rows + 2, columns + 2), np.int32)
            self._planes[at.parity], self._present = plane, _inside(plane)
            if self._present.size:
                known = [self._sum(group, at.parity) for group in _GROUPS[at.parity]]
                yield Step(at.number, (..., *at.slices), rows * columns, known)

    def put(self, step: Step, symbols: NDArray[np.int32], off: NDArray[np.int32]) -> None:
        """Keep the symbols (N, C, n) of a step, and how far they were off their rounded means."""
        # Limited while they lie together, which is faster than within the border.
        known = np.stack((symbols, off))
        np.clip(known, -self._limit, self._limit, out=known)
        np.abs(known[1], out=known[1])
        self._present[...] = known.reshape(self._present.shape)

    def _sum(self, group: Sequence[tuple[int, int]], parity: tuple[int, int]) -> NDArray[np.int32]:
        """Sum over neighbours of the present places; those outside the image count as 0."""
        height, width = self._present.shape[-2:]
        neighbours = []
        for down, right in group:
            row, column = parity[0] + down, parity[1] + right
            top, left = 1 + row // 2, 1 + column // 2
            plane = self._planes[row % 2, column % 2]
            neighbours.append(plane[..., top : top + height, left : left + width])
        total = neighbours[0] + neighbours[1]
        for neighbour in neighbours[2:]:
            total += neighbour
        return total.reshape(*total.shape[:-2], -1)


def _inside(plane: NDArray[np.int32]) -> NDArray[np.int32]:
    return plane[..., 1:-1, 1:-1]


def _merged(planes: dict[tuple[int, int], NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return the plane that planes of its even and odd rows and columns make up, all bordered."""
    height, width = (sum(planes[odd, odd].shape[axis] - 2 for odd in (0, 1)) for axis in (-2, -1))
    merged = np.zeros((*planes[0, 0].shape[:-2], height + 2, width + 2), np.int32)
    for (row, column), plane in planes.items():
        _inside(merged)[..., row::2, column::2] = _inside(plane)
    return merged


def weighted_sum(
    weights: NDArray[np.int32], sums: list[NDArray[np.int32]], shape: tuple[int, ...]
) -> NDArray[np.int32]:
    """Sum a constant and what is known, under its weights.

    Args:
        weights: (4, …) int32: a constant, then a weight for each group of neighbours.
        sums: Sums over up to 3 groups, each of ``shape``.
        shape: Shape of the result; the weights' is broadcast to it.
    """
    constant, *others = weights
    total = np.empty(shape, np.int32)
    total[...] = constant
    for weight, values in zip(others, sums, strict=False):
        total += weight * values
    return total


def weighted_side(weights: NDArray[np.int32], values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return what scale indexes add to the spread."""
    return (weights * values) >> (ONE.bit_length() - 1)


class SparseModels(ContextModels[SparseTables, Step]):
    """Codes the symbols of one image under sparse tables, all channels of a pass at once.

    Args:
        tables: Tables with weights and rows.
    """

    def __init__(self, tables: SparseTables) -> None:
        super().__init__(tables)
        # (pass, group, 2, 1, C, 1), to go with sums of shape (2, 1, C, n).
        self._weights = tables.weights[:, :, :, None, :, None]
        self._side_weights = tables.side_weights[..., None]
        fractions = tables.fractions.size + 1
        top = int(tables.spreads[-1]) + 1 if tables.spreads.size else 1
        of_spread = np.searchsorted(tables.spreads, np.arange(top), side="right") * fractions
        self._of_spread = of_spread.astype(np.uint8)
        of_fraction = np.searchsorted(tables.fractions, np.arange(ONE), side="right")
        self._of_fraction = of_fraction.astype(np.uint8)

    def _planes(self, shape: tuple[int, ...]) -> SparsePlanes:
        return SparsePlanes(shape, self.tables.levels, self.tables.limit)

    def _predict(
        self, step: Step, side: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
        shape = 2, 1, self.tables.channels, step.places
        mean, spread = weighted_sum(self._weights[step.number], step.known, shape)
        if side is not None:
            values = self.tables.side[step.of(side[None])]
            spread += weighted_side(self._side_weights[step.number], values)
        mean += ONE // 2
        # What lies beyond the last threshold, or below 0, is in the outer class.
        rows = self._of_spread.take(spread, mode="clip")
        rows += self._of_fraction[mean & (ONE - 1)]
        mean >>= ONE.bit_length() - 1
        return mean, mean, rows


class SideModels:
    """Codes symbols (C, h, w) that come with a hyperprior's scale indexes of the same shape.

    Args:
        tables: Tables for such symbols.

    Attributes:
        channels: Number of channels that the symbols must have.
        indexes: Number of indexes.

    Raises:
        TablesError: The tables are for symbols without indexes.
    """

    def __init__(self, tables: SparseTables) -> None:
        tables.check_side(expected=True)
        self.channels = tables.channels
        self.indexes = tables.side.size
        self._models = SparseModels(tables)
        self.push, self.ideal_bits = self._models.push, self._models.ideal_bits

    def pop(self, stack: Stack, indexes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Read back what was pushed with these indexes.

        Raises:
            BitstreamError: A symbol is beyond 32 bits.
        """
        return self._models.pop(stack, indexes.shape, indexes)
