"""Entropy coding of an array of symbols: asymmetric numeral systems.

The payload is one stack (see ``ans``). Under one table per channel it holds, read from its top, the
symbols, channel after channel in raster order; under context tables, see ``context_models``.
"""

from collections.abc import Mapping
from typing import ClassVar

from ...errors import TablesError
from .ans import ChannelModels, Stack
from .coder import Array, Hyper, Setting
from .context_models import ContextModels
from .context_tables import ContextTables
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
        self.tables: FactorizedTables | ContextTables = tables
        self._models: ChannelModels | ContextModels = ChannelModels(tables)

    @property
    def channels(self) -> int:
        """Channels of the symbols."""
        return self.tables.channels

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of the symbols, the first tensor."""
        height, width = tensors[0].shape[-2:]
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

        Raises:
            TablesError: They have another number of channels than the tables.
        """
        (symbols,) = tensors
        if symbols.ndim != 3 or len(symbols) != self.channels:
            raise TablesError(
                f"The symbols have shape {symbols.shape}; tables are for {self.channels} channels."
            )
        stack = Stack()
        self._models.push(stack, symbols)
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
        symbols = self._models.pop(stack, (self.channels, height, width))
        stack.close()
        return (symbols,)

    def ideal_bits(self, *tensors: Array) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        (symbols,) = tensors
        return self._models.ideal_bits(symbols)


class ContextCoder(FactorizedCoder):
    """Codes symbol arrays under tables that the symbols coded before them pick.

    Args:
        tables: Fitted to such symbols, without side indexes.

    Raises:
        TablesError: They are for symbols that come with indexes.
    """

    kind: ClassVar[str] = "context"

    def __init__(self, tables: ContextTables) -> None:
        tables.refuse_side(expected=False)
        self.tables = tables
        self._models = ContextModels(tables)

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of the tables' arrays."""
        return ContextTables.names()

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> "ContextCoder":
        """Make a coder from tables, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        return cls(ContextTables.of(arrays))
