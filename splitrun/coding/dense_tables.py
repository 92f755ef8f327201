"""What a coder of dense planes predicts with, such as a quantiser's: integer weights and tables."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import TablesError
from .coder import Array
from .context_tables import MAX_LEVELS, ONE
from .neighbours import TAPS
from .tables import FactorizedTables, integers_digest, keep_integers, taken

LIMIT = 255
"""Symbols and distances count as so much at most in what is predicted from them."""

GROUP = 8
"""Channels that are predicted from one another: 0 to 7, 8 to 15, …"""

# What is summed stays below 2**31: 2**28 + 17 · 8 · 255 · 2**13.
MAX_WEIGHT = 1 << 13
MAX_CONSTANT = 1 << 28
_MAX_BORDER = 16
MAX_CHANNELS = 256
"""More would not fit into a file of tables."""

_MAX_ROWS = 256
_INT32 = np.iinfo(np.int32).max
_PREFIX = "row_"
_ARRAYS = {"weights": (5, _INT32), "spreads": (1, 1 << 18), "lows": (2, _INT32)}
"""Rank, and the largest magnitude."""


def features(channels: int) -> int:
    """Return from how many numbers a symbol is predicted.

    A constant; what channels of its group are at its place, as far as they come before; and what
    the whole group is at each of the taps.
    """
    return 1 + (1 + TAPS) * min(channels, GROUP)


def rounded(means: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return means in 1/256 as symbols."""
    return (means + ONE // 2) >> (ONE.bit_length() - 1)


def low_classes(
    lows: NDArray[np.int32], classes: NDArray[np.intp], mean: NDArray[np.int32]
) -> NDArray[np.intp]:
    """Return how many thresholds of their class of spreads are not above means in 1/256."""
    # One search for all classes: each has a range of its own, wider than 32 bits.
    first = np.arange(len(lows), dtype=np.int64) << 33
    found = np.searchsorted((lows + first[:, None]).ravel(), mean + first[classes], side="right")
    return found - classes * lows.shape[1]


@dataclass(frozen=True, eq=False)
class DenseTables:
    """How symbols (C, h, w) from 0 on are predicted, where 0 stands for all that is below.

    The weights of its pass and zone (see ``neighbours``) give of each symbol two integers: from
    symbols its mean; from how far these were off their own means, its spread. Near the floor the
    distribution depends on how near it is: a symbol whose mean is low is coded whole, under a row
    of its class of means; any other less its rounded mean.

    Attributes:
        weights: (1 + 3 · levels, 1 + 4 · border, 2, C, :func:`features`) int32, in 1/256; for the
            mean, then for the spread.
        spreads: (s,) int32, rising, above 0, in 1/256: thresholds between classes of spreads.
        lows: (s + 1, l) int32, of each class of spreads thresholds of the mean, in 1/256, not
            falling: a mean below the last is low, and of the class of those not above it.
        rows: Tables, (s + 1) · (l + 1): of each class of spreads, those of low means and one more.

    Raises:
        TablesError: They do not fit together, or sums could overflow.
    """

    weights: NDArray[np.int32]
    spreads: NDArray[np.int32]
    lows: NDArray[np.int32]
    rows: FactorizedTables

    def __post_init__(self) -> None:
        keep_integers(self, _ARRAYS, "Dense tables")
        self._check()

    def _check(self) -> None:
        passes, zones, two, channels, width = self.weights.shape
        fit = (passes % 3, zones % 4, two) == (1, 1, 2) and 1 <= channels <= MAX_CHANNELS
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
        if rows > _MAX_ROWS or self.rows.channels != rows:
            raise TablesError(
                f"Dense tables: {self.rows.channels} rows for {rows} classes; up to {_MAX_ROWS}."
            )

    @property
    def channels(self) -> int:
        """Of the symbols, C."""
        return self.weights.shape[3]

    @property
    def levels(self) -> int:
        """Of the pyramid."""
        return (self.weights.shape[0] - 1) // 3

    @property
    def border(self) -> int:
        """Rows and columns on each side that have weights of their own."""
        return (self.weights.shape[1] - 1) // 4

    def pick(
        self, mean: NDArray[np.int32], spread: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Return what is taken off symbols of these means and spreads, and the rows that code them.

        Args:
            mean: In 1/256.
            spread: Of the same shape, likewise.
        """
        classes = np.searchsorted(self.spreads, spread, side="right")
        low = low_classes(self.lows, classes, mean)
        number = self.lows.shape[1]
        taken = np.where(low < number, 0, rounded(mean)).astype(np.int32)
        return taken, (classes * (number + 1) + low).astype(np.uint8)

    def digest(self) -> bytes:
        """Return the SHA-256 of what the coder uses."""
        return integers_digest(b"dense-1" + self.rows.digest(), self, _ARRAYS)

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name, int32."""
        return {name: getattr(self, name) for name in _ARRAYS} | self.rows.arrays(_PREFIX)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names that :meth:`arrays` gives."""
        return *_ARRAYS, *FactorizedTables.names(_PREFIX)

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> "DenseTables":
        """Make tables from what :meth:`arrays` gave, which may be hostile.

        Raises:
            TablesError: An array is missing or not valid.
        """
        rows = FactorizedTables.of(arrays, _PREFIX)
        return cls(**taken(arrays, _ARRAYS, ""), rows=rows)
