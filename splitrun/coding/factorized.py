"""Entropy coding of an array of symbols: asymmetric numeral systems.

The payload is one stack (see ``ans``). Under one table per channel it holds, read from its top, the
symbols, channel after channel in raster order; under context tables, see ``context_models``.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from ..errors import TablesError
from .ans import ChannelModels, Stack
from .coder import Array, Coder, Hyper, Setting
from .context_models import ContextModels
from .context_tables import ContextTables
from .dense_models import DenseModels
from .dense_tables import DenseTables
from .tables import FactorizedTables

Tables = TypeVar("Tables", FactorizedTables, ContextTables, DenseTables)
AnyCoder = TypeVar("AnyCoder", bound=Coder)
"""Of boards, whose Python 3.10 has no ``Self``."""


class SymbolCoder(Coder, Generic[Tables]):
    """What coders of one array of symbols share.

    Args:
        tables: Of the symbols.

    Attributes:
        tables_type: Class of the tables.
        models_type: Class of what holds them in the entropy coder's own form.
    """

    kind: ClassVar[str]
    tables_type: ClassVar[Any]
    models_type: ClassVar[Any]
    lossless: ClassVar[bool] = True
    takes: ClassVar[int] = 1
    gives: ClassVar[int] = 1
    needs_hyper: ClassVar[bool] = False

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._models: ChannelModels | ContextModels | DenseModels = self.models_type(tables)

    @property
    def channels(self) -> int:
        """Channels of the symbols."""
        return self.tables.channels

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of the symbols, the first tensor."""
        height, width = tensors[0].shape[-2:]
        return height, width

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        return hashlib.sha256(self.kind.encode() + self.tables.digest()).digest()

    def settings(self) -> dict[str, Setting]:
        """Return nothing: the tables say all."""
        return {}

    def arrays(self) -> dict[str, Array]:
        """Return the tables by name."""
        return self.tables.arrays()

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of the tables' arrays."""
        return cls.tables_type.names()

    @classmethod
    def from_parts(
        cls: type[AnyCoder], settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> AnyCoder:
        """Make a coder from tables, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        return cls(cls.tables_type.of(arrays))  # pyright: ignore

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


class FactorizedCoder(SymbolCoder[FactorizedTables]):
    """Codes symbols independently of each other.

    Args:
        tables: One row per channel.
    """

    kind: ClassVar[str] = "factorized"
    tables_type: ClassVar[Any] = FactorizedTables
    models_type: ClassVar[Any] = ChannelModels

    def digest(self) -> bytes:
        """Return the SHA-256 of the tables."""
        return self.tables.digest()


class ContextCoder(SymbolCoder[ContextTables]):
    """Codes symbols under tables that the symbols coded before them pick.

    Args:
        tables: Fitted to such symbols, without side indexes.

    Raises:
        TablesError: They are for symbols that come with indexes.
    """

    kind: ClassVar[str] = "context"
    tables_type: ClassVar[Any] = ContextTables
    models_type: ClassVar[Any] = ContextModels

    def __init__(self, tables: ContextTables) -> None:
        tables.check_side(expected=False)
        super().__init__(tables)
