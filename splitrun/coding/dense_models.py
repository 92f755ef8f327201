"""Coding dense planes: every symbol under a table that its neighbours and other channels pick.

On the stack lie the passes (see ``neighbours``), of each its channels one after another, and of
each, row after row of the tables, its symbols in raster order: whole, or less their means.

All that decides about a table is integer arithmetic on symbols, so that both sides agree on every
machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError
from .ans import Stack
from .dense_tables import GROUP, LIMIT, DenseTables, rounded
from .gaussian import ConditionalModels
from .neighbours import Pass, passes

MAX_SYMBOLS = 1 << 21
"""That are coded at once: what is known of each takes memory."""


@dataclass(frozen=True)
class Step:
    """A channel of a pass over N images.

    Attributes:
        number: Of the pass.
        channel: That is coded.
        at: The pass.
        known: (2, f, N, n) int32: symbols, and how far they were off, from which it is predicted.
        columns: (f,) which of a prediction's weights these have.
    """

    number: int
    channel: int
    at: Pass
    known: NDArray[np.int32]
    columns: NDArray[np.intp]

    def predict(self, weights: NDArray[np.int32], part: int) -> NDArray[np.int32]:
        """Sum symbols (part 0) or distances (1) under weights (zones, features): (N, n) int32."""
        of_place = weights[:, self.columns][self.at.zones]
        total = np.einsum("fin,nf->in", self.known[part], of_place)
        total += weights[:, 0][self.at.zones]
        return total


class Planes:
    """What is known of N images' symbols while they are coded, or tables are fitted to them.

    Args:
        shape: (N, C, h, w).
        levels: Of the pyramid.
        border: Rows and columns on each side that are zones of their own.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, border: int) -> None:
        images, self._channels, height, width = shape
        self._passes = passes(height, width, levels, border)
        # Symbols and distances; the last place is outside.
        self._values = np.zeros((2, self._channels, images, height * width + 1), np.int32)

    def steps(self) -> Iterator[Step]:
        """Give what is to be coded, in order; :meth:`put` has to follow each."""
        size = min(self._channels, GROUP)
        for number, at in enumerate(self._passes):
            for first in range(0, self._channels if at.places.size else 0, size):
                group = self._values[:, first : first + size]
                # (2, t, g, N, n): all channels at a tap, then at the next.
                taps = np.moveaxis(group[..., at.taps], -2, 1)
                taps = taps.reshape(2, -1, *taps.shape[3:])
                of_taps = np.arange(at.taps.shape[0])[:, None] * size + np.arange(group.shape[1])
                for before in range(group.shape[1]):
                    here = group[:, :before][..., at.places]
                    columns = np.concatenate((np.arange(before), size + of_taps.ravel()))
                    known = np.concatenate((here, taps), 1)
                    yield Step(number, first + before, at, known, 1 + columns)

    def put(self, step: Step, symbols: NDArray[np.int32], means: NDArray[np.int32]) -> None:
        """Keep the symbols (N, n) of a step, and how far they were off their rounded means."""
        target = self._values[:, step.channel]
        target[0][:, step.at.places] = symbols.clip(-LIMIT, LIMIT)
        target[1][:, step.at.places] = distances(symbols, means)


def distances(symbols: NDArray[np.int32], means: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return how far symbols (…) int32 are off their rounded means, up to :data:`LIMIT`."""
    return np.abs((symbols - means).clip(-LIMIT, LIMIT))


class DenseModels:
    """Codes the symbols of an image under dense tables.

    Args:
        tables: With the weights and rows.
    """

    def __init__(self, tables: DenseTables) -> None:
        self.tables = tables
        self._rows = ConditionalModels(tables.rows)

    def push(self, stack: Stack, symbols: NDArray[np.int32]) -> None:
        """Code symbols (C, h, w) int32, any values.

        Raises:
            BitstreamError: They are more than :data:`MAX_SYMBOLS`.
        """
        for coded, rows in reversed(self._steps(symbols)):
            self._rows.push(stack, coded, rows)

    def pop(self, stack: Stack, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote.

        Args:
            stack: Where they are.
            shape: Of the symbols, (C, h, w).

        Raises:
            BitstreamError: A symbol is beyond 32 bits, or they are more than :data:`MAX_SYMBOLS`.
        """
        symbols = np.empty((shape[0], shape[1] * shape[2]), np.int32)
        planes = self._planes(shape)
        for step in planes.steps():
            means, taken, rows = self._predict(step)
            flat = self._rows.pop(stack, rows) + taken
            symbols[step.channel, step.at.places] = flat[0]
            planes.put(step, flat, means)
        return symbols.reshape(shape)

    def ideal_bits(self, symbols: NDArray[np.int32]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        return sum(self._rows.ideal_bits(*step) for step in self._steps(symbols))

    def _steps(
        self, symbols: NDArray[np.int32]
    ) -> list[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
        """Return what each step codes, and under which rows."""
        planes, coded = self._planes(symbols.shape), []
        for step in planes.steps():
            flat = symbols[step.channel].reshape(1, -1)[:, step.at.places]
            means, taken, rows = self._predict(step)
            # Beyond 32 bits it wraps around, and back when it is added again.
            coded.append((flat - taken, rows))
            planes.put(step, flat, means)
        return coded

    def _planes(self, shape: tuple[int, ...]) -> Planes:
        if np.prod(shape, dtype=np.int64) > MAX_SYMBOLS:
            raise BitstreamError(
                f"{'×'.join(map(str, shape))} values are more than the {MAX_SYMBOLS} that context "
                "coding takes.",
                next_step="Send smaller images, or the values as they are: without calibration.",
            )
        return Planes((1, *shape), self.tables.levels, self.tables.border)

    def _predict(
        self, step: Step
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
        """Return rounded means, what of them is taken off, and rows, each (1, n)."""
        mean, spread = (
            step.predict(self.tables.weights[step.number, :, part, step.channel], part)
            for part in (0, 1)
        )
        taken, rows = self.tables.pick(mean, spread)
        return rounded(mean), taken, rows
