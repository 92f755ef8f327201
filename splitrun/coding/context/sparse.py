"""Context coding of latents: sparse symbols, each predicted from sums over its own neighbours."""

import math
import threading
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


@dataclass(frozen=True)
class SparseStep(Step):
    """A pass; ``known`` holds sums (2, N, C, …) int32, of symbols and of distances, by group.

    Between the sums of the places lie others, without a meaning: what is computed of all at once
    is computed faster. The next step has its sums in the same memory.

    Attributes:
        neighbours: Slices whose sums ``known`` holds, by group; flat, as ``sums``.
        sums: The same arrays as ``known``, flat.
        present: (2, N, C, rows, columns) of the places, in their plane.
        arranged: Rows and columns that the last dimension of the sums is made of.
    """

    neighbours: Sequence[Sequence[NDArray[np.int32]]]
    sums: Sequence[NDArray[np.int32]]
    present: NDArray[np.int32]
    arranged: tuple[int, int]

    def add(self) -> None:
        """Sum over the neighbours; those outside the image count as 0."""
        for total, (first, second, *others) in zip(self.sums, self.neighbours, strict=True):
            np.add(first, second, out=total)
            for other in others:
                total += other

    def placed(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return of values arranged as the sums, (…, m), those of the places, (…, n)."""
        *lead, _ = values.shape
        *_, rows, columns = self.present.shape
        places = values.reshape(*lead, *self.arranged)[..., :rows, :columns]
        return places.reshape(*lead, self.places)


class _Level:
    """Planes of the places of a level, parted by the parity of their rows and columns.

    They are four flat arrays of the same arrangement. Before each row and each plane lie zeros,
    which are the border behind those before too: a neighbour of all places is a slice, a fixed
    distance away. Only places are ever written.

    Args:
        lead: What the planes are of, (2, N, C).
        height: Rows of the level that are even.
        width: Columns that are even.
    """

    def __init__(self, lead: tuple[int, ...], height: int, width: int) -> None:
        self.arranged = height + 1, width + 1
        self._lead, self.size = lead, math.prod((*lead, *self.arranged))
        self._first = width + 2
        self._flat = np.zeros((2, 2, self.size + 2 * self._first), np.int32)

    def places(self, parity: tuple[int, int], rows: int, columns: int) -> NDArray[np.int32]:
        """Return a view (2, N, C, rows, columns) of the places of a parity."""
        flat = self._flat[parity][self._first : self._first + self.size]
        return flat.reshape(*self._lead, *self.arranged)[..., :rows, :columns]

    def neighbour(self, row: int, column: int) -> NDArray[np.int32]:
        """Return a flat view of what lies at this row and column for the first place."""
        first = self._first + row // 2 * self.arranged[1] + column // 2
        return self._flat[row % 2, column % 2, first : first + self.size]


class SparsePlanes(Planes[SparseStep]):
    """What is known of N images' symbols, and distances, level by level.

    After the last step, they serve the next N images.

    Args:
        shape: Shape of the symbols, (N, C, h, w).
        levels: Number of levels.
        limit: Largest magnitude that symbols and distances count as.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, limit: int) -> None:
        images, channels, height, width = shape
        lead, self._limits = (2, images, channels), np.array((-limit, limit), np.int32)
        self._steps: list[tuple[SparseStep, list[tuple[NDArray[np.int32], ...]]]] = []
        merged: list[tuple[NDArray[np.int32], ...]] = []
        planes: dict[tuple[int, int], NDArray[np.int32]] = {}
        # The last level is the largest.
        most = math.prod((*lead, height // 2 + 2, width // 2 + 2))
        level, shared = None, np.empty((MAX_GROUPS, most), np.int32)
        for at in passes(levels):
            if level is None or len(planes) == 4:
                rows, columns = (-(-size // at.step) for size in (height, width))
                level = _Level(lead, rows, columns)
                if planes:
                    whole = level.places((0, 0), rows, columns)
                    merged += [
                        (whole[..., row::2, column::2], plane)
                        for (row, column), plane in planes.items()
                    ]
                    planes = {(0, 0): whole}
            rows, columns = (len(places) for places in at.grid(height, width))
            present = planes[at.parity] = level.places(at.parity, rows, columns)
            if rows and columns:
                groups = _GROUPS[at.parity]
                neighbours = [
                    [
                        level.neighbour(at.parity[0] + down, at.parity[1] + right)
                        for down, right in group
                    ]
                    for group in groups
                ]
                sums = [one[: level.size] for one in shared[: len(groups)]]
                known = [one.reshape(*lead, -1) for one in sums]
                index = (..., *at.slices)
                step = SparseStep(
                    *(at.number, index, rows * columns, known),
                    *(neighbours, sums, present, level.arranged),
                )
                self._steps.append((step, merged))
                merged = []

    def steps(self) -> Iterator[SparseStep]:
        """Yield the passes that have places."""
        for step, merged in self._steps:
            for target, source in merged:
                target[...] = source
            step.add()
            yield step

    def put(self, step: SparseStep, symbols: NDArray[np.int32], off: NDArray[np.int32]) -> None:
        """Keep the symbols (N, C, n) of a step, and how far they were off their rounded means."""
        if step is self._steps[-1][0]:
            return  # nothing is predicted from the last
        # Limited while they lie together, which is faster than within the border.
        known = np.empty((2, *symbols.shape), np.int32)
        low, high = self._limits
        np.minimum(symbols, high, out=known[0])
        np.minimum(off, high, out=known[1])
        np.maximum(known, low, out=known)
        np.abs(known[1], out=known[1])
        step.present[...] = known.reshape(step.present.shape)


_KEPT_SYMBOLS = 1 << 18
"""Most symbols whose planes a thread keeps: some 5 MB."""
_kept = threading.local()


def kept_planes(shape: tuple[int, ...], levels: int, limit: int) -> SparsePlanes:
    """Return planes as :class:`SparsePlanes` makes them: this thread's last ones, where they fit.

    Whoever has them is done with them before the thread asks again.
    """
    wanted = shape, levels, limit
    if getattr(_kept, "wanted", None) == wanted:
        return _kept.planes
    planes = SparsePlanes(*wanted)
    if math.prod(shape) <= _KEPT_SYMBOLS:
        _kept.wanted, _kept.planes = wanted, planes
    return planes


def weighted_sum(
    weights: Sequence[NDArray[np.int32]], sums: Sequence[NDArray[np.int32]], shape: tuple[int, ...]
) -> NDArray[np.int32]:
    """Sum a constant and what is known, under its weights.

    Args:
        weights: A constant, then a weight for each group of neighbours, int32.
        sums: Sums over up to 3 groups, each of ``shape``; they are changed.
        shape: Shape of the result; the weights' is broadcast to it.
    """
    constant, *others = weights
    if not sums:
        return np.broadcast_to(constant, shape).copy()
    total = sums[0]
    for weight, values in zip(others, sums, strict=False):
        values *= weight
        if values is not total:
            total += values
    total += constant
    return total


def weighted_side(weights: NDArray[np.int32], values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return what scale indexes add to the spread."""
    return (weights * values) >> (ONE.bit_length() - 1)


class SparseModels(ContextModels[SparseTables, SparseStep]):
    """Codes the symbols of one image under sparse tables, all channels of a pass at once.

    Args:
        tables: Tables with weights and rows.
    """

    def __init__(self, tables: SparseTables) -> None:
        super().__init__(tables)
        # Of each pass and group (2, 1, C, 1), to go with sums of shape (2, 1, C, m).
        self._weights = [list(of_pass[:, :, None, :, None]) for of_pass in tables.weights]
        self._side_weights = tables.side_weights[..., None]
        fractions = tables.fractions.size + 1
        top = int(tables.spreads[-1]) + 1 if tables.spreads.size else 1
        of_spread = np.searchsorted(tables.spreads, np.arange(top), side="right") * fractions
        self._of_spread = of_spread.astype(np.uint8)
        of_fraction = np.searchsorted(tables.fractions, np.arange(ONE), side="right")
        self._of_fraction = of_fraction.astype(np.uint8)

    def _planes(self, shape: tuple[int, ...]) -> SparsePlanes:
        return kept_planes(shape, self.tables.levels, self.tables.limit)

    def _predict(
        self, step: SparseStep, side: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
        shape = 2, 1, self.tables.channels, math.prod(step.arranged)
        mean, spread = step.placed(weighted_sum(self._weights[step.number], step.known, shape))
        if side is not None:
            values = self.tables.side[step.of(side[None])]
            spread += weighted_side(self._side_weights[step.number], values)
        mean += ONE // 2
        # What lies beyond the last threshold, or below 0, is in the outer class.
        rows = self._of_spread.take(spread, mode="clip")
        rows += self._of_fraction.take(mean & (ONE - 1), mode="clip")
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
