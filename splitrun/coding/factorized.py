"""Coders of one array of symbols, such as those of a factorized prior.

The payload is one stack (see ``ans``). Under one table per channel it holds, read from its top, the
symbols, channel after channel in raster order; for context coding, see ``context``.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

from ..errors import TablesError
from .ans import ChannelModels, Stack
from .coder import AnyCoder, Array, Coder, HyperDecoder, Setting
from .context.dense import DenseModels, DenseTables
from .context.sparse import SparseModels, SparseTables
from .tables import FactorizedTables

Tables = TypeVar("Tables", FactorizedTables, SparseTables, DenseTables)


class SymbolCoder(Coder, Generic[Tables]):
    """Base of coders of one array of symbols.

    Args:
        tables: Tables of the symbols.

    Attributes:
        tables: Tables of the symbols.
        tables_type: Class of the tables.
        models_type: Class that codes under them.
    """

    tables_type: ClassVar[Any]
    models_type: ClassVar[Any]
    lossless: ClassVar[bool] = True

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._models: ChannelModels | SparseModels | DenseModels = self.models_type(tables)

    @property
    def channels(self) -> int:
        """Channels of the symbols."""
        return self.tables.channels

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        return hashlib.sha256(self.kind.encode() + self.tables.digest()).digest()

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
        """Make a coder from its tables, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        return cls(cls.tables_type.of(arrays))  # pyright: ignore

    def encode(self, *tensors: Array) -> bytes:
        """Code the symbols of one image, losslessly.

        Args:
            tensors: Symbols (C, h, w) int32, any values; those outside their table are
                escape-coded.

        Returns:
            The payload.

        Raises:
            TablesError: Symbols and tables differ in their number of channels.
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
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Return the symbols (C, height, width) int32 that :meth:`encode` wrote.

        Time and memory are bounded by ``C * height * width``, whatever the payload holds.

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
        tables: Tables of one row per channel.
    """

    kind: ClassVar[str] = "factorized"
    tables_type: ClassVar[Any] = FactorizedTables
    models_type: ClassVar[Any] = ChannelModels

    def digest(self) -> bytes:
        """Return the SHA-256 of the tables."""
        return self.tables.digest()


class ContextCoder(SymbolCoder[SparseTables]):
    """Codes symbols under tables that the symbols coded before them pick.

    Args:
        tables: Tables for symbols without scale indexes.

    Raises:
        TablesError: The tables are for symbols that come with indexes.
    """

    kind: ClassVar[str] = "context"
    is_context: ClassVar[bool] = True
    tables_type: ClassVar[Any] = SparseTables
    models_type: ClassVar[Any] = SparseModels

    def __init__(self, tables: SparseTables) -> None:
        tables.check_side(expected=False)
        super().__init__(tables)
