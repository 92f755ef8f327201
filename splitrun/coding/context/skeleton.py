"""The skeleton of both context coders: order of the places, tables with rows, loops of coding.

::

    levels = 1        A a A a      A, every 2 ** levels-th place in both directions, comes first;
                      b D b D      then D from its 4 diagonal neighbours; a from those beside,
                      A a A a      above and below it; b from the same and the diagonal ones.

With more levels, A is itself a plane of which every second place comes first, and so on: 1 + 3 ·
``levels`` passes. What is known of every place coded so far are two numbers: its symbol, and how
far that was off the mean that had been predicted.

On the stack lie the steps of all passes, and of each step, row after row of the tables, its symbols
less what was predicted of them. All that picks a row is integer arithmetic on symbols, so that both
sides agree on every machine.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..ans import ConditionalModels, Stack
from ..coder import Array
from ..tables import FactorizedTables, IntegerTables

ONE = 256
"""Weights and what is predicted with them are in 1/256 of a symbol."""

MAX_LEVELS = 6
MAX_SPREAD = 1 << 18
MAX_ROWS = 256
_ROW = "row_"


@dataclass(frozen=True)
class Pass:
    """Places of a plane that are coded together, every ``step``-th row and column.

    Attributes:
        number: Number of the pass, from 0.
        step: Distance between places of the pass, in both directions.
        parity: Whether its first row and column are ``step / 2`` or 0.
    """

    number: int
    step: int
    parity: tuple[int, int]

    @property
    def distance(self) -> int:
        """Distance to the nearest known neighbours."""
        return self.step >> 1

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of the places."""
        row, column = (slice(odd * self.distance, None, self.step) for odd in self.parity)
        return row, column

    def grid(self, height: int, width: int) -> tuple[range, range]:
        """Return rows and columns of the places in a plane."""
        row, column = self.slices
        return range(height)[row], range(width)[column]


def passes(levels: int) -> Iterator[Pass]:
    """Yield the passes in their order; 0 levels are one pass without neighbours."""
    yield Pass(0, 1 << levels, (0, 0))
    for number in range(1, number_of_passes(levels)):
        level, place = divmod(number - 1, 3)
        yield Pass(number, 1 << (levels - level), ((1, 1), (0, 1), (1, 0))[place])


def number_of_passes(levels: int) -> int:
    """Return the number of passes."""
    return 1 + 3 * levels


def rounded(means: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return means in 1/256 as whole symbols."""
    return (means + ONE // 2) >> (ONE.bit_length() - 1)


def magnitudes(values: NDArray[np.int32], limit: int) -> NDArray[np.int32]:
    """Return magnitudes of integers, up to a limit."""
    # The smallest int32 has no magnitude in 32 bits.
    return np.abs(values.clip(-limit, limit))


class ContextTables(IntegerTables):
    """Base of what a context coder predicts with: integer weights, thresholds, and rows.

    Attributes:
        name: Begins the digest.
        rows: Tables that predictions pick from.
    """

    name: ClassVar[str]
    rows: FactorizedTables

    def digest(self) -> bytes:
        """Return the SHA-256 of what the coder uses."""
        content = hashlib.sha256(self.name.encode() + self.rows.digest())
        for name in self.specs:
            value = np.asarray(getattr(self, name), "<i4")
            content.update(np.array([value.ndim, *value.shape], "<i4").tobytes() + value.tobytes())
        return content.digest()

    def arrays(self, prefix: str = "") -> dict[str, Array]:
        """Return the arrays by name, int32."""
        return super().arrays(prefix) | self.rows.arrays(prefix + _ROW)

    @classmethod
    def names(cls, prefix: str = "") -> tuple[str, ...]:
        """Return the names that :meth:`arrays` gives."""
        return *super().names(prefix), *FactorizedTables.names(prefix + _ROW)

    @classmethod
    def _taken(cls, arrays: Mapping[str, Array], prefix: str) -> dict[str, Any]:
        rows = FactorizedTables.of(arrays, prefix + _ROW)
        return super()._taken(arrays, prefix) | {"rows": rows}


@dataclass(frozen=True)
class Step:
    """Symbols that are coded together: of a pass, or of one channel in it.

    Attributes:
        number: Number of the pass.
        at: Index of their places in an array (…, N, C, h, w).
        places: Number of places, n.
        known: Symbols coded before, and how far these were off, from which they are predicted.
    """

    number: int
    at: tuple[Any, ...]
    places: int
    known: Any

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return what an array (N, C, h, w) holds at their places, (N, …, n)."""
        found = array[self.at]
        return found.reshape(*found.shape[:-2], -1)


AnyStep = TypeVar("AnyStep", bound=Step)
AnyTables = TypeVar("AnyTables", bound=ContextTables)


class Planes(ABC, Generic[AnyStep]):
    """What is known of N images' symbols while they are coded, or tables are fitted to them."""

    @abstractmethod
    def steps(self) -> Iterator[AnyStep]:
        """Yield the steps in their order; :meth:`put` has to follow each."""

    @abstractmethod
    def put(self, step: AnyStep, symbols: NDArray[np.int32], off: NDArray[np.int32]) -> None:
        """Keep the symbols (N, …, n) of a step, and how far they were off their rounded means."""


class ContextModels(ABC, Generic[AnyTables, AnyStep]):
    """Codes the symbols of one image under context tables.

    Args:
        tables: Tables with weights and rows.
    """

    def __init__(self, tables: AnyTables) -> None:
        self.tables = tables
        self._rows = ConditionalModels(tables.rows)

    @abstractmethod
    def _planes(self, shape: tuple[int, ...]) -> Planes[AnyStep]:
        """Return planes for symbols of this shape (N, C, h, w)."""

    @abstractmethod
    def _predict(
        self, step: AnyStep, side: NDArray[np.uint8] | None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
        """Return rounded means, what is subtracted from the symbols, and rows, each (1, …, n)."""

    def push(
        self, stack: Stack, symbols: NDArray[np.int32], side: NDArray[np.uint8] | None = None
    ) -> None:
        """Code symbols.

        Args:
            stack: Stack that takes them.
            symbols: (C, h, w) int32, any values.
            side: Scale indexes of the same shape, where the tables are for some.
        """
        for residuals, rows in reversed(self._coded(symbols, side)):
            self._rows.push(stack, residuals, rows)

    def pop(
        self, stack: Stack, shape: tuple[int, ...], side: NDArray[np.uint8] | None = None
    ) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote.

        Args:
            stack: Stack that holds them.
            shape: Shape of the symbols, (C, h, w).
            side: Scale indexes that they were pushed with.

        Returns:
            Symbols (C, h, w) int32.

        Raises:
            BitstreamError: A symbol is beyond 32 bits.
        """
        planes = self._planes((1, *shape))
        symbols = np.empty((1, *shape), np.int32)
        for step in planes.steps():
            means, subtracted, rows = self._predict(step, side)
            residuals = self._rows.pop(stack, rows)
            flat = residuals + subtracted
            target = symbols[step.at]
            target[...] = flat.reshape(target.shape)
            planes.put(step, flat, residuals if subtracted is means else flat - means)
        return symbols[0]

    def ideal_bits(
        self, symbols: NDArray[np.int32], side: NDArray[np.uint8] | None = None
    ) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        return sum(self._rows.ideal_bits(*coded) for coded in self._coded(symbols, side))

    def _coded(
        self, symbols: NDArray[np.int32], side: NDArray[np.uint8] | None
    ) -> list[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        """Return what each step codes, and under which rows."""
        planes, coded = self._planes((1, *symbols.shape)), []
        for step in planes.steps():
            flat = step.of(symbols[None])
            means, subtracted, rows = self._predict(step, side)
            # Beyond 32 bits it wraps around, and back when it is added again.
            residuals = flat - subtracted
            coded.append((residuals, rows))
            planes.put(step, flat, residuals if subtracted is means else flat - means)
        return coded
