"""What a context coder predicts with: integer weights, and the table that each prediction picks."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import TablesError
from .coder import Array
from .pyramid import MAX_KINDS
from .tables import FactorizedTables, integers_digest, keep_integers, taken

ONE = 256
"""Weights and what is predicted with them are in 1/256 of a symbol."""

# What is summed stays below 2**31: a constant, 8 neighbours of 255 at most, and an index's part,
# each under its largest weight: 2**28 + 8 · 255 · 2**16 + (2**16 · 2**13 >> 8).
MAX_LIMIT = 255
MAX_LEVELS = 6
MAX_WEIGHT = 1 << 16
MAX_SIDE_WEIGHT = 1 << 13
_MAX_BIAS = 1 << 28
_MAX_SPREAD = 1 << 18
_MAX_SIDE = 1 << 16
_MAX_SIDES = 256
_MAX_CHANNELS = 1 << 16
_MAX_ROWS = 256
_PREFIX = "row_"
_ARRAYS = {
    "weights": (4, np.iinfo(np.int32).max),
    "side": (1, _MAX_SIDE),
    "side_weights": (2, MAX_SIDE_WEIGHT),
    "spreads": (1, _MAX_SPREAD),
    "fractions": (1, ONE),
    "limit": (0, MAX_LIMIT),
}
"""Rank, and the largest magnitude."""


@dataclass(frozen=True, eq=False)
class ContextTables:
    """How symbols (C, h, w) are predicted from those coded before, and under which table coded.

    Of each symbol, its passes' weights give two integers: the mean and, from how far the
    neighbours were off theirs, the spread. The symbol is coded less the mean, rounded, under the
    row ``s · (len(fractions) + 1) + f``: ``s`` of the ``spreads`` are not above the spread, and
    ``f`` of the ``fractions`` not above what rounding the mean left over.

    Attributes:
        weights: (1 + 3 · levels, 4, 2, C) int32, in 1/256: of each pass; a constant, then those of
            each kind of neighbours; for the mean, then for the spread.
        side: (S,) int32, what each index that comes from elsewhere (a hyperprior's scale) says of
            the spread, in 1/256; empty where there is none.
        side_weights: (1 + 3 · levels, C) int32, of these.
        spreads: (s,) int32, rising, above 0.
        fractions: (f,) int32, rising, from 1 to 255: 128 is no remainder.
        limit: Symbols and distances count as so much at most; up to 255.
        rows: Tables, (s + 1) · (f + 1).

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

    def __post_init__(self) -> None:
        keep_integers(self, _ARRAYS, "Context tables")
        object.__setattr__(self, "limit", int(self.limit))
        self._check()

    def _check(self) -> None:
        passes, kinds, two, channels = self.weights.shape
        levels, rest = divmod(passes - 1, 3)
        if rest or not 0 <= levels <= MAX_LEVELS or (kinds, two) != (1 + MAX_KINDS, 2):
            raise TablesError(f"Context tables: weights of shape {self.weights.shape}.")
        if not 1 <= channels <= _MAX_CHANNELS or self.side_weights.shape != (passes, channels):
            raise TablesError(
                f"Context tables: {channels} channels, and side weights of shape "
                f"{self.side_weights.shape}."
            )
        if np.abs(self.weights[:, 1:]).max() > MAX_WEIGHT:
            raise TablesError(f"Context tables: a weight is beyond {MAX_WEIGHT}.")
        if np.abs(self.weights[:, 0]).max() > _MAX_BIAS:
            raise TablesError(f"Context tables: a constant is beyond {_MAX_BIAS}.")
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
        if rows > _MAX_ROWS or self.rows.channels != rows:
            raise TablesError(
                f"Context tables: {self.rows.channels} rows for {rows} classes; up to {_MAX_ROWS}."
            )

    @property
    def channels(self) -> int:
        """Of the symbols, C."""
        return self.weights.shape[-1]

    @property
    def levels(self) -> int:
        """Of the pyramid."""
        return (len(self.weights) - 1) // 3

    def check_side(self, *, expected: bool) -> None:
        """Refuse tables that know indexes from elsewhere, or that do not.

        Raises:
            TablesError: It is not as expected.
        """
        if bool(self.side.size) != expected:
            known = "know no" if expected else "are for symbols that come with"
            raise TablesError(f"Context tables: these {known} scale indexes.")

    def digest(self) -> bytes:
        """Return the SHA-256 of what the coder uses."""
        return integers_digest(b"context-1" + self.rows.digest(), self, _ARRAYS)

    def arrays(self, prefix: str = "") -> dict[str, Array]:
        """Return the arrays by name, int32."""
        own = {f"{prefix}{name}": np.asarray(getattr(self, name), np.int32) for name in _ARRAYS}
        return own | self.rows.arrays(prefix + _PREFIX)

    @classmethod
    def names(cls, prefix: str = "") -> tuple[str, ...]:
        """Return the names that :meth:`arrays` gives."""
        return *(f"{prefix}{name}" for name in _ARRAYS), *FactorizedTables.names(prefix + _PREFIX)

    @classmethod
    def of(cls, arrays: Mapping[str, Array], prefix: str = "") -> "ContextTables":
        """Make tables from what :meth:`arrays` gave, which may be hostile.

        Raises:
            TablesError: An array is missing or not valid.
        """
        rows = FactorizedTables.of(arrays, prefix + _PREFIX)
        return cls(**taken(arrays, _ARRAYS, prefix), rows=rows)  # pyright: ignore[reportArgumentType]  # checked above
