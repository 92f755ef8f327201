"""Coders of a latent y and its hyper-latent z: Ballé et al. 2018.

::

    device: symbols of y, symbols of z, scale indexes ─► payload
    edge:   payload ─► symbols of z ─► hyper-decoder ─► scale indexes ─► symbols of y

The payload is a check of the scale indexes, 2 bytes, and one stack (see ``ans``): on its top z,
channel after channel in raster order, below it y, scale after scale in raster order
(https://arxiv.org/abs/1802.01436; with means, https://arxiv.org/abs/1809.02736). For context
coding, see ``context`` for the order of both.
"""

import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, DesyncError, SplitzooError, TablesError
from .ans import ChannelModels, ConditionalModels, Stack
from .coder import AnyCoder, Array, Coder, HyperDecoder, Setting
from .context.sparse import SideModels, SparseModels, SparseTables
from .stream import MAX_SYMBOLS
from .tables import FactorizedTables

Tables = TypeVar("Tables", FactorizedTables, SparseTables)

SAME_ENGINE = "Run the hyper-decoder with the same engine, precision and version on both."
_HYPER = "hyper_"
"""Prefix of the names of z's tables."""

_CHECK_BYTES = 2


class HierarchicalCoder(Coder, Generic[Tables]):
    """Base of coders with a hyperprior.

    Args:
        hyper_tables: Tables of z.
        tables: Tables of y.

    Attributes:
        hyper_tables: Tables of z.
        tables: Tables of y.
        tables_type: Class of both tables.
        hyper_models_type: Class that codes z.
        models_type: Class that codes y.
    """

    tables_type: ClassVar[Any] = FactorizedTables
    hyper_models_type: ClassVar[Any] = ChannelModels
    models_type: ClassVar[Any] = ConditionalModels
    lossless: ClassVar[bool] = True
    num_inputs: ClassVar[int] = 3
    needs_hyper: ClassVar[bool] = True

    def __init__(self, hyper_tables: Tables, tables: Tables) -> None:
        self.hyper_tables = hyper_tables
        self.tables = tables
        self._hyper_models: ChannelModels | SparseModels = self.hyper_models_type(hyper_tables)
        self._models: ConditionalModels | SideModels = self.models_type(tables)

    @property
    def channels(self) -> int:
        """Channels of z, which is decoded first."""
        return self.hyper_tables.channels

    @property
    def rows(self) -> int:
        """Number of scales that indexes name."""
        return self._models.indexes

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of z, the second tensor."""
        _, height, width = tensors[1].shape
        return height, width

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        content = f"{self.kind}-1".encode() + self.hyper_tables.digest() + self.tables.digest()
        return hashlib.sha256(content).digest()

    def arrays(self) -> dict[str, Array]:
        """Return the tables of z and y by name."""
        return self.hyper_tables.arrays(_HYPER) | self.tables.arrays()

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        return cls.tables_type.names(_HYPER) + cls.tables_type.names()

    @classmethod
    def from_parts(
        cls: type[AnyCoder], settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> AnyCoder:
        """Make a coder from its tables, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        return cls(*cls._tables_of(arrays))  # pyright: ignore

    @classmethod
    def _tables_of(cls, arrays: Mapping[str, Array]) -> tuple[Tables, Tables]:
        return cls.tables_type.of(arrays, _HYPER), cls.tables_type.of(arrays)

    def _finish(
        self, stack: Stack, hyper_symbols: NDArray[np.int32], indexes: NDArray[np.uint8]
    ) -> bytes:
        """Code z on top of y and return the payload."""
        if hyper_symbols.ndim != 3 or len(hyper_symbols) != self.channels:
            raise TablesError(
                f"The hyperprior has shape {hyper_symbols.shape}; tables are for {self.channels} "
                "channels."
            )
        self._hyper_models.push(stack, hyper_symbols)
        return index_check(indexes) + stack.payload()

    def _begin(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None
    ) -> tuple[bytes, Stack, tuple[Array, ...]]:
        """Return the check, what lies below z, and what the hyper-decoder makes of z."""
        if hyper is None:
            raise TypeError(f"a coder of kind {self.kind} decodes with a hyper-decoder only")
        if len(payload) < _CHECK_BYTES:
            raise BitstreamError("The payload ends within the check of its scale indexes.")
        stack = Stack(payload[_CHECK_BYTES:])
        symbols = self._hyper_models.pop(stack, (self.channels, height, width))
        return payload[:_CHECK_BYTES], stack, hyper(symbols)

    def encode(self, *tensors: Array) -> bytes:
        """Code one image, losslessly.

        Args:
            tensors: Symbols of y (C, h, w) int32 and of z (N, hz, wz) int32, any values; those
                outside their table are escape-coded. Scale indexes of y (C, h, w) int32.

        Returns:
            The payload.

        Raises:
            TablesError: The scale indexes do not fit the tables, or shapes do not fit.
        """
        symbols, hyper_symbols, indexes = tensors
        if symbols.shape != indexes.shape:
            raise TablesError(
                f"Symbols of shape {symbols.shape} have scale indexes of shape {indexes.shape}."
            )
        indexes = self._valid(indexes, TablesError)
        stack = Stack()
        self._models.push(stack, symbols, indexes)
        return self._finish(stack, hyper_symbols, indexes)

    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Read back what :meth:`encode` wrote.

        Args:
            payload: Result of :meth:`encode`.
            height: Height of z.
            width: Width of z.
            hyper: Function of z's symbols (N, height, width) int32 that returns the scale indexes
                of y (C, h, w) int32, and whatever else the edge takes.

        Returns:
            Symbols of y (C, h, w) int32, and what ``hyper`` returned after the indexes.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
            DesyncError: The hyper-decoder gives other scale indexes than the device's.
        """
        check, stack, (indexes, *rest) = self._begin(payload, height, width, hyper)
        indexes = self._valid(indexes, BitstreamError)
        check_indexes(indexes, check)
        symbols = self._models.pop(stack, indexes)
        stack.close()
        return symbols, *rest

    def ideal_bits(self, *tensors: Array) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        symbols, hyper_symbols, indexes = tensors
        bits = self._hyper_models.ideal_bits(hyper_symbols)
        return bits + self._models.ideal_bits(symbols, self._valid(indexes, TablesError))

    def _valid(self, indexes: Array, error: type[SplitzooError]) -> NDArray[np.uint8]:
        known = self._models.channels
        if known is not None and len(indexes) != known:
            raise error(f"There are scale indexes of {len(indexes)} channels, tables for {known}.")
        return valid_indexes(indexes, self._models.indexes, error)


class HyperpriorCoder(HierarchicalCoder[FactorizedTables]):
    """Codes y under the Gaussians whose scales the hyper-decoder computes from z.

    Args:
        hyper_tables: Tables of z, one row per channel.
        tables: Tables of y, one row per scale.

    Raises:
        TablesError: There are more than 256 scales.
    """

    kind: ClassVar[str] = "hyperprior"


class ContextHyperpriorCoder(HierarchicalCoder[SparseTables]):
    """Codes y under tables that its neighbours and the scale indexes pick; z by its neighbours.

    Args:
        hyper_tables: Tables of z.
        tables: Tables of y, for symbols that come with scale indexes.

    Raises:
        TablesError: The tables of z are for symbols that come with indexes, or those of y are not.
    """

    kind: ClassVar[str] = "hyperprior-context"
    is_context: ClassVar[bool] = True
    tables_type: ClassVar[Any] = SparseTables
    hyper_models_type: ClassVar[Any] = SparseModels
    models_type: ClassVar[Any] = SideModels

    def __init__(self, hyper_tables: SparseTables, tables: SparseTables) -> None:
        hyper_tables.check_side(expected=False)
        super().__init__(hyper_tables, tables)


def valid_indexes(indexes: Array, rows: int, error: type[SplitzooError]) -> NDArray[np.uint8]:
    """Return scale indexes as uint8.

    Args:
        indexes: (C, h, w) integers.
        rows: Number of rows that they may name, 256 at most.
        error: Class of the error where they do not fit.

    Raises:
        SplitzooError: They are not integers of that form, too many, or beyond the tables.
    """
    fit = indexes.ndim == 3 and indexes.dtype.kind in "iu" and 0 < indexes.size <= MAX_SYMBOLS
    if not fit or indexes.min() < 0 or indexes.max() >= rows:
        found = f" from {indexes.min()} to {indexes.max()}" if fit else ""
        raise error(
            f"The scale indexes are {indexes.dtype} {indexes.shape}{found}; expected are "
            f"integers (C, h, w) from 0 to {rows - 1}, {MAX_SYMBOLS} at most."
        )
    return indexes.astype(np.uint8)


def index_check(indexes: NDArray[np.uint8]) -> bytes:
    """Return the CRC-16 of scale indexes, which goes into the payload.

    It differs for certain where one index or two neighbours do, and otherwise in all but one of
    65,536 cases. Symbols read under wrong rows would then hardly end where the payload does, and
    that is checked too: 2 bytes suffice.
    """
    return binascii.crc_hqx(indexes.tobytes(), 0xFFFF).to_bytes(_CHECK_BYTES, "little")


def check_indexes(indexes: NDArray[np.uint8], check: bytes) -> None:
    """Check that the edge's scale indexes are the device's.

    Args:
        indexes: Scale indexes computed on the edge.
        check: Result of :func:`index_check` on the device.

    Raises:
        DesyncError: They differ.
    """
    if index_check(indexes) != check:
        raise DesyncError(
            "The scale indexes computed here are not those that the device computed from the same "
            "hyperprior: its arithmetic differs.",
            next_step=SAME_ENGINE,
        )
