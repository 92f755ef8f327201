"""Context coding of a quantiser's planes: dense values, each predicted from single neighbours.

Each neighbour has a weight of its own, and so have the other channels of its group. Convolutions
that pad leave rows and columns at the border that are unlike the others: these are zones with
weights of their own.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import BitstreamError, TablesError
from ..tables import FactorizedTables
from .skeleton import (
    MAX_LEVELS,
    MAX_ROWS,
    MAX_SPREAD,
    ContextModels,
    ContextTables,
    Pass,
    Planes,
    Step,
    magnitudes,
    passes,
    rounded,
)

LIMIT = 255
"""Largest magnitude that symbols and distances count as in predictions."""

GROUP = 8
"""Number of channels that are predicted from one another: 0 to 7, 8 to 15, …"""

MAX_CONTEXT_VALUES = 1 << 21
"""Largest number of symbols that are coded at once: what is known of each takes memory."""

# What is summed stays below 2**31: 2**28 + 17 · 8 · 255 · 2**13.
MAX_WEIGHT = 1 << 13
MAX_CONSTANT = 1 << 28
_MAX_BORDER = 16
MAX_CHANNELS = 256
"""Largest number of channels; more would not fit into a file of tables."""

Offsets = tuple[tuple[int, int], ...]


def _all_signs(*offsets: tuple[int, int]) -> Offsets:
    """Return places at these distances, down and right, to all sides."""
    signs = (1, -1)
    return tuple(dict.fromkeys((y * a, x * b) for y, x in offsets for a in signs for b in signs))


_BESIDE = _all_signs((0, 1), (1, 0))
_CORNERS = _all_signs((1, 1))
_KNIGHTS = _all_signs((1, 2), (2, 1))
_OFFSETS = {
    (0, 0): (),
    (1, 1): _CORNERS + _all_signs((1, 3), (3, 1)),
    (0, 1): _BESIDE + _KNIGHTS,
    (1, 0): _BESIDE + _CORNERS + _KNIGHTS,
}
"""Nearest known neighbours of a pass's places by its parity, the nearest first."""

_TAPS = max(map(len, _OFFSETS.values()))
_KEPT_PLACES = 1 << 16


def features(channels: int) -> int:
    """Return from how many numbers a symbol is predicted.

    These are a constant, the channels of its group that come before at its place, and the whole
    group at each of its neighbours.
    """
    return 1 + (1 + _TAPS) * min(channels, GROUP)


def low_classes(
    lows: NDArray[np.int32], classes: NDArray[np.intp], mean: NDArray[np.int32]
) -> NDArray[np.intp]:
    """Return how many thresholds of their class of spreads are not above means in 1/256."""
    # One search for all classes: each has a range of its own, wider than 32 bits.
    first = np.arange(len(lows), dtype=np.int64) << 33
    found = np.searchsorted((lows + first[:, None]).ravel(), mean + first[classes], side="right")
    return found - classes * lows.shape[1]


@dataclass(frozen=True, eq=False)
class DenseTables(ContextTables):
    """How symbols (C, h, w) from 0 on are predicted, where 0 stands for all that is below.

    The weights of its pass and zone give two integers for each symbol: from symbols its mean; from
    how far these were off their own means, its spread. Near the floor the distribution depends on
    how near it is: a symbol whose mean is low is coded whole, under a row of its class of means;
    any other less its rounded mean.

    Attributes:
        weights: (1 + 3 · levels, 1 + 4 · border, 2, C, :func:`features`) int32, in 1/256; for the
            mean, then for the spread.
        spreads: (s,) int32, rising, above 0, in 1/256: thresholds between classes of spreads.
        lows: (s + 1, l) int32, for each class of spreads thresholds of the mean, in 1/256, not
            falling: a mean below the last is low; its class is the number of those not above it.
        rows: Tables, (s + 1) · (l + 1) rows: for each class of spreads, l of low means and one
            more.

    Raises:
        TablesError: They do not fit together, or sums could overflow.
    """

    weights: NDArray[np.int32]
    spreads: NDArray[np.int32]
    lows: NDArray[np.int32]
    rows: FactorizedTables

    title: ClassVar[str] = "Dense tables"
    name: ClassVar[str] = "dense-1"
    specs: ClassVar[Mapping[str, tuple[int, int]]] = {
        "weights": (5, 1 << 31),
        "spreads": (1, MAX_SPREAD),
        "lows": (2, np.iinfo(np.int32).max),
    }

    def _check(self) -> None:
        number, zones, two, channels, width = self.weights.shape
        fit = (number % 3, zones % 4, two) == (1, 1, 2) and 1 <= channels <= MAX_CHANNELS
        possible = 0 <= self.levels <= MAX_LEVELS and 0 <= self.border <= _MAX_BORDER
        if not fit or not possible or width != features(channels):
            raise TablesError(f"Dense tables: weights of shape {self.weights.shape}.")
        if np.abs(self.weights[..., 1:]).max() > MAX_WEIGHT:
            raise TablesError(f"Dense tables: a weight is beyond {MAX_WEIGHT}.")
        if np.abs(self.weights[..., 0]).max() > MAX_CONSTANT:
            raise TablesError(f"Dense tables: a constant is beyond {MAX_CONSTANT}.")
        if np.any(self.spreads < 1) or np.any(self.spreads[1:] <= self.spreads[:-1]):
            raise TablesError("Dense tables: spreads do not rise from 1 on.")
        classes, lows = self.lows.shape
        if classes != self.spreads.size + 1 or np.any(self.lows[:, 1:] < self.lows[:, :-1]):
            raise TablesError(
                f"Dense tables: lows of shape {self.lows.shape} that fall, or that are not for "
                f"{self.spreads.size} spreads."
            )
        rows = classes * (lows + 1)
        if rows > MAX_ROWS or self.rows.channels != rows:
            raise TablesError(
                f"Dense tables: {self.rows.channels} rows for {rows} classes; up to {MAX_ROWS}."
            )

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return self.weights.shape[3]

    @property
    def levels(self) -> int:
        """Number of levels."""
        return (self.weights.shape[0] - 1) // 3

    @property
    def border(self) -> int:
        """Number of rows and columns on each side that have weights of their own."""
        return (self.weights.shape[1] - 1) // 4


@dataclass(frozen=True)
class PlacedPass:
    """A pass over a plane (h, w), whose places have numbers in raster order.

    Attributes:
        at: The pass.
        places: (n,) intp, numbers of its places.
        taps: (t, n) intp, numbers of the known neighbours of each; ``h · w`` is none.
        zones: (n,) intp, zone of each: 0 inside; near the border, which side it is at and how far
            off.
    """

    at: Pass
    places: NDArray[np.intp]
    taps: NDArray[np.intp]
    zones: NDArray[np.intp]


def placed_passes(height: int, width: int, levels: int, border: int) -> Iterable[PlacedPass]:
    """Return the passes over a plane in their order.

    Args:
        height: Height of the plane.
        width: Width of the plane.
        levels: Number of levels; 0 is one pass without neighbours.
        border: Number of rows and columns on each side that are zones of their own, ``4 · border``.
    """
    # Those of a large plane take much memory: they are not kept.
    make = _kept if height * width <= _KEPT_PLACES else _placed
    return make(height, width, levels, border)


@functools.lru_cache(maxsize=2)
def _kept(*plane: int) -> tuple[PlacedPass, ...]:
    return tuple(_placed(*plane))


def _placed(height: int, width: int, levels: int, border: int) -> Iterator[PlacedPass]:
    zones = _zones(height, width, border).ravel()
    for at in passes(levels):
        rows, columns = (np.array(places, np.intp) for places in at.grid(height, width))
        places = (rows[:, None] * width + columns).ravel()
        offsets = _OFFSETS[at.parity]
        taps = np.empty((len(offsets), places.size), np.intp)
        for target, (down, right) in zip(taps, offsets, strict=True):
            there = _inside(rows + down * at.distance, height, at.step)[:, None]
            beside = _inside(columns + right * at.distance, width, at.step)
            found = np.where((there >= 0) & (beside >= 0), there * width + beside, height * width)
            target[:] = found.ravel()
        yield PlacedPass(at, places, taps, zones[places])


def _inside(index: NDArray[np.intp], size: int, step: int) -> NDArray[np.intp]:
    """Return what stands for places outside: the nearest inside, as known as they; -1 if none."""
    index = np.where(index < 0, index % step, index)
    beyond = np.maximum(index - size + step, 0) // step
    return np.maximum(index - beyond * step, -1)


def _zones(height: int, width: int, border: int) -> NDArray[np.intp]:
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    above, left = (np.minimum(places, border) for places in (rows, columns))
    below, right = (np.minimum(places[::-1, ::-1], border) for places in (rows, columns))
    sides = np.stack(np.broadcast_arrays(above, below, left, right))
    # The nearest side; of two, the first.
    side, distance = sides.argmin(0), sides.min(0)
    return np.where(distance < border, 1 + side * border + distance, 0)


@dataclass(frozen=True)
class DenseStep(Step):
    """A channel of a pass; ``known`` is (2, f, N, n) int32: symbols, then distances.

    Attributes:
        channel: Channel that is coded.
        placed: The pass.
        columns: (f,) positions of what is known among a prediction's weights.
    """

    channel: int
    placed: PlacedPass
    columns: NDArray[np.intp]

    def predict(self, weights: NDArray[np.int32], part: int) -> NDArray[np.int32]:
        """Sum symbols (part 0) or distances (1) under weights (zones, features): (N, n) int32."""
        of_place = weights[:, self.columns][self.placed.zones]
        total = np.einsum("fin,nf->in", self.known[part], of_place)
        total += weights[:, 0][self.placed.zones]
        return total


class DensePlanes(Planes[DenseStep]):
    """What is known of N images' symbols.

    Args:
        shape: Shape of the symbols, (N, C, h, w).
        levels: Number of levels.
        border: Number of rows and columns on each side that are zones of their own.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, border: int) -> None:
        images, self._channels, height, width = shape
        self._passes = placed_passes(height, width, levels, border)
        # Symbols and distances; the last place is outside.
        self._values = np.zeros((2, self._channels, images, height * width + 1), np.int32)

    def steps(self) -> Iterator[DenseStep]:
        """Yield the passes that have places, channel after channel."""
        size = min(self._channels, GROUP)
        for placed in self._passes:
            at, places = placed.at, placed.places.size
            for first in range(0, self._channels if places else 0, size):
                group = self._values[:, first : first + size]
                # (2, t, g, N, n): all channels at a tap, then at the next.
                taps = np.moveaxis(group[..., placed.taps], -2, 1)
                taps = taps.reshape(2, -1, *taps.shape[3:])
                of_taps = np.arange(len(placed.taps))[:, None] * size + np.arange(group.shape[1])
                for before in range(group.shape[1]):
                    channel = first + before
                    here = group[:, :before][..., placed.places]
                    columns = np.concatenate((np.arange(before), size + of_taps.ravel()))
                    known = np.concatenate((here, taps), 1)
                    index = ..., channel, *at.slices
                    yield DenseStep(at.number, index, places, known, channel, placed, 1 + columns)

    def put(self, step: DenseStep, symbols: NDArray[np.int32], off: NDArray[np.int32]) -> None:
        """Keep the symbols (N, n) of a step, and how far they were off their rounded means."""
        target = self._values[:, step.channel]
        target[0][:, step.placed.places] = symbols.clip(-LIMIT, LIMIT)
        target[1][:, step.placed.places] = magnitudes(off, LIMIT)


class DenseModels(ContextModels[DenseTables, DenseStep]):
    """Codes the symbols of one image under dense tables; more than 2**21 are refused.

    Args:
        tables: Tables with weights and rows.
    """

    def _planes(self, shape: tuple[int, ...]) -> DensePlanes:
        if np.prod(shape, dtype=np.int64) > MAX_CONTEXT_VALUES:
            raise BitstreamError(
                f"{'×'.join(map(str, shape[1:]))} values are more than the {MAX_CONTEXT_VALUES} "
                "that context coding takes.",
                next_step="Send smaller images, or the values as they are: without calibration.",
            )
        return DensePlanes(shape, self.tables.levels, self.tables.border)

    def _predict(
        self, step: DenseStep, side: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
        tables = self.tables
        weights = tables.weights[step.number, :, :, step.channel]
        mean, spread = (step.predict(weights[:, part], part) for part in (0, 1))
        classes = np.searchsorted(tables.spreads, spread, side="right")
        low = low_classes(tables.lows, classes, mean)
        number = tables.lows.shape[1]
        means = rounded(mean)
        subtracted = np.where(low < number, 0, means).astype(np.int32)
        return means, subtracted, (classes * (number + 1) + low).astype(np.uint8)
