"""Entropy coding of symbols under one table per channel: asymmetric numeral systems.

The payload is one stack (see ``ans``): read from its top it holds the symbols, channel after
channel in raster order.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .ans import RowModels, Stack
from .coder import Array, Hyper, Setting
from .tables import FactorizedTables


class FactorizedCoder:
    """Codes symbol arrays under given tables; keeps the tables in the coder's own form.

    Args:
        tables: One row per channel.
    """

    kind: ClassVar[str] = "factorized"
    lossless: ClassVar[bool] = True
    takes: ClassVar[int] = 1
    gives: ClassVar[int] = 1
    needs_hyper: ClassVar[bool] = False

    def __init__(self, tables: FactorizedTables) -> None:
        self.tables = tables
        self._models = RowModels(tables)

    @property
    def channels(self) -> int:
        """Channels of the symbols."""
        return self.tables.channels

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of the symbols."""
        (symbols,) = tensors
        height, width = symbols.shape[-2:]
        return height, width

    def digest(self) -> bytes:
        """Return the SHA-256 of the tables."""
        return self.tables.digest()

    def settings(self) -> dict[str, Setting]:
        """Return nothing: the tables say all."""
        return {}

    def arrays(self) -> dict[str, Array]:
        """Return the tables by name."""
        return self.tables.arrays()

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of the tables' arrays."""
        return FactorizedTables.names()

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> "FactorizedCoder":
        """Make a coder from tables, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        return cls(FactorizedTables.of(arrays))

    def encode(self, *tensors: Array) -> bytes:
        """Code the symbols of one image, losslessly.

        Args:
            tensors: Symbols (C, H, W) int32, any values; those outside their table are
                escape-coded.

        Returns:
            The payload.
        """
        (symbols,) = tensors
        stack = Stack()
        self._models.push(stack, symbols.reshape(-1), self._counts(symbols.size // self.channels))
        return stack.payload()

    def decode(
        self, payload: bytes, height: int, width: int, hyper: Hyper | None = None
    ) -> tuple[Array, ...]:
        """Read back what :meth:`encode` wrote.

        Time and memory are bounded by ``C * height * width``, whatever the payload holds.

        Returns:
            One tensor: symbols (C, height, width) int32.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        stack = Stack(payload)
        symbols = self._models.pop(stack, self._counts(height * width))
        stack.close()
        return (symbols.reshape(-1, height, width),)

    def _counts(self, of_each: int) -> NDArray[np.int64]:
        """Return how many symbols each channel has."""
        return np.full(self.channels, of_each)

    def ideal_bits(self, symbols: NDArray[np.int32]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        slots, _ = self._models.slots(
            symbols.reshape(-1), self._counts(symbols.size // self.channels)
        )
        frequency = np.diff(self.tables.cdf.astype(np.int64), axis=1)
        counts = np.take_along_axis(frequency, slots.reshape(self.channels, -1), axis=1)
        return float(self.tables.precision * counts.size - np.log2(counts).sum())
