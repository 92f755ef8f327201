"""Coding symbols under tables that the symbols coded before them pick.

On the stack lie the passes over the symbols (see ``pyramid``), and of each pass, row after row of
the tables, its symbols less what was predicted of them, channel after channel in raster order.

All that decides about a table is integer arithmetic on symbols, so that both sides agree on every
machine.
"""

import numpy as np
from numpy.typing import NDArray

from .ans import Stack
from .context_tables import ONE, ContextTables
from .gaussian import ConditionalModels
from .pyramid import Kinds, Sites, walk


def combine(weights: NDArray[np.int32], kinds: Kinds, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Sum what is known of a pass's places under its weights.

    Args:
        weights: (4, …) int32: a constant, then one for each kind of neighbours.
        kinds: 3 at most, each of ``shape``.
        shape: Of the result; the weights' is broadcast to it.
    """
    constant, *others = weights
    total = np.empty(shape, np.int32)
    total[...] = constant
    for weight, kind in zip(others, kinds, strict=False):
        total += weight * kind
    return total


def weigh_side(weights: NDArray[np.int32], values: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return what indexes from elsewhere add to the spread."""
    return (weights * values) >> (ONE.bit_length() - 1)


def plane_of(
    symbols: NDArray[np.int32], residuals: NDArray[np.int32], limit: int
) -> NDArray[np.int32]:
    """Return what later passes know of symbols (…): these and their distances, (2, …), limited."""
    plane = np.stack((symbols, residuals))
    np.clip(plane, -limit, limit, out=plane)
    np.abs(plane[1], out=plane[1])
    return plane


class Predictor:
    """Says of the symbols of a pass what mean is taken off them, and which row codes them.

    Args:
        tables: With the weights.
    """

    def __init__(self, tables: ContextTables) -> None:
        self.tables = tables
        # (pass, kind, 2, C, 1), to go with sums of shape (2, C, n).
        self._weights = tables.weights[..., None]
        self._side_weights = tables.side_weights[..., None]
        fractions = tables.fractions.size + 1
        top = int(tables.spreads[-1]) + 1 if tables.spreads.size else 1
        of_spread = np.searchsorted(tables.spreads, np.arange(top), side="right") * fractions
        self._of_spread = of_spread.astype(np.uint8)
        self._of_fraction = np.searchsorted(tables.fractions, np.arange(ONE), side="right").astype(
            np.uint8
        )

    def predict(
        self, number: int, kinds: Kinds, side: NDArray[np.uint8] | None, places: int
    ) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """Predict a pass.

        Args:
            number: Of the pass.
            kinds: Sums over its neighbours, each (2, C, n).
            side: Indexes (C, n) that come from elsewhere, where the tables know some.
            places: n.

        Returns:
            Rounded means and rows, both (C, n).
        """
        shape = 2, self.tables.channels, places
        mean, spread = combine(self._weights[number], kinds, shape)
        if side is not None:
            spread += weigh_side(self._side_weights[number], self.tables.side[side])
        mean += ONE // 2
        # What lies beyond the last threshold, or below 0, is in the outer class.
        rows = self._of_spread.take(spread, mode="clip")
        rows += self._of_fraction[mean & (ONE - 1)]
        mean >>= ONE.bit_length() - 1
        return mean, rows


class ContextModels:
    """Codes the symbols of an image under context tables.

    Args:
        tables: With the weights and rows.
    """

    def __init__(self, tables: ContextTables) -> None:
        self.tables = tables
        self._predictor = Predictor(tables)
        self._rows = ConditionalModels(tables.rows)

    def push(
        self, stack: Stack, symbols: NDArray[np.int32], side: NDArray[np.uint8] | None = None
    ) -> None:
        """Code symbols.

        Args:
            stack: Where they go.
            symbols: (C, h, w) int32, any values.
            side: Indexes of the same shape, below ``len(tables.side)``, where that is not 0.
        """
        steps = self._steps(symbols, side)
        for residuals, rows in reversed(steps):
            self._rows.push(stack, residuals, rows)

    def _steps(
        self, symbols: NDArray[np.int32], side: NDArray[np.uint8] | None
    ) -> list[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        """Return what each pass codes, and under which rows: both (C, n)."""
        steps = []

        def code(number: int, kinds: Kinds, sites: Sites) -> NDArray[np.int32]:
            known = symbols[:, sites[0], sites[1]]
            flat = known.reshape(len(known), -1)
            mean, rows = self._predict(number, kinds, side, sites, flat.shape[1])
            # Beyond 32 bits it wraps around, and back when it is added again.
            residuals = flat - mean
            steps.append((residuals, rows))
            return self._plane(flat, residuals, known.shape)

        _, height, width = symbols.shape
        walk(height, width, self.tables.levels, code)
        return steps

    def pop(
        self, stack: Stack, shape: tuple[int, ...], side: NDArray[np.uint8] | None = None
    ) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote.

        Args:
            stack: Where they are.
            shape: Of the symbols, (C, h, w).
            side: As they were pushed with.

        Returns:
            Symbols (C, h, w) int32.

        Raises:
            BitstreamError: A symbol is beyond 32 bits.
        """
        symbols = np.empty(shape, np.int32)

        def code(number: int, kinds: Kinds, sites: Sites) -> NDArray[np.int32]:
            target = symbols[:, sites[0], sites[1]]
            places = target.shape[1] * target.shape[2]
            mean, rows = self._predict(number, kinds, side, sites, places)
            residuals = self._rows.pop(stack, rows)
            mean += residuals
            target[...] = mean.reshape(target.shape)
            return self._plane(mean, residuals, target.shape)

        _, height, width = shape
        walk(height, width, self.tables.levels, code)
        return symbols

    def ideal_bits(
        self, symbols: NDArray[np.int32], side: NDArray[np.uint8] | None = None
    ) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        return sum(self._rows.ideal_bits(*step) for step in self._steps(symbols, side))

    def _predict(
        self,
        number: int,
        kinds: Kinds,
        side: NDArray[np.uint8] | None,
        sites: Sites,
        places: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        if side is not None:
            side = side[:, sites[0], sites[1]].reshape(len(side), -1)
        return self._predictor.predict(number, kinds, side, places)

    def _plane(
        self, symbols: NDArray[np.int32], residuals: NDArray[np.int32], shape: tuple[int, ...]
    ) -> NDArray[np.int32]:
        return plane_of(symbols, residuals, self.tables.limit).reshape(2, *shape)


class SideModels:
    """Codes symbols that come with indexes, such as a hyperprior's scales.

    Args:
        tables: That know these.

    Attributes:
        channels: Of the symbols.
        indexes: How many there are.

    Raises:
        TablesError: The tables know none.
    """

    def __init__(self, tables: ContextTables) -> None:
        tables.check_side(expected=True)
        self.channels = tables.channels
        self.indexes = tables.side.size
        self._models = ContextModels(tables)

    def push(self, stack: Stack, symbols: NDArray[np.int32], indexes: NDArray[np.uint8]) -> None:
        """Code symbols (C, h, w) with indexes of the same shape."""
        self._models.push(stack, symbols, indexes)

    def pop(self, stack: Stack, indexes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote with these indexes.

        Raises:
            BitstreamError: A symbol is beyond 32 bits.
        """
        return self._models.pop(stack, indexes.shape, indexes)

    def ideal_bits(self, symbols: NDArray[np.int32], indexes: NDArray[np.uint8]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        return self._models.ideal_bits(symbols, indexes)
