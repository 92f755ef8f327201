"""Entropy coding of a latent y and its hyperprior z: Ballé et al. 2018.

::

    device: symbols of y, symbols of z, scale indexes ─► payload
    edge:   payload ─► symbols of z ─► hyper-decoder ─► scale indexes ─► symbols of y

The payload is a check of the scale indexes, 2 bytes, and one stack (see ``ans``): on its top z,
channel after channel in raster order, below it y, scale after scale in raster order
(https://arxiv.org/abs/1802.01436; with means, https://arxiv.org/abs/1809.02736). Under context
tables, see ``context_models`` for the order of both.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, SplitzooError, TablesError
from .ans import ChannelModels, Stack
from .coder import Array, Coder, Hyper, Setting
from .context_models import ContextModels, SideModels
from .context_tables import ContextTables
from .factorized import AnyCoder
from .gaussian import (
    CHECK_BYTES,
    ConditionalModels,
    check_indexes,
    index_check,
    valid_indexes,
)
from .tables import FactorizedTables

Tables = TypeVar("Tables", FactorizedTables, ContextTables)

HYPER = "hyper_"
"""Of the names of z's tables."""


class HierarchicalCoder(Coder, Generic[Tables]):
    """What coders with a hyperprior share.

    Args:
        hyper_tables: Of z.
        tables: Of y.

    Attributes:
        tables_type: Class of both.
        hyper_models_type: Class of what holds those of z in the entropy coder's own form.
        models_type: The same for y.
    """

    kind: ClassVar[str]
    tables_type: ClassVar[Any] = FactorizedTables
    hyper_models_type: ClassVar[Any] = ChannelModels
    models_type: ClassVar[Any] = ConditionalModels
    lossless: ClassVar[bool] = True
    takes: ClassVar[int] = 3
    gives: ClassVar[int] = 1
    needs_hyper: ClassVar[bool] = True

    def __init__(self, hyper_tables: Tables, tables: Tables) -> None:
        self.hyper_tables = hyper_tables
        self.tables = tables
        self._hyper_models: ChannelModels | ContextModels = self.hyper_models_type(hyper_tables)
        self._models: ConditionalModels | SideModels = self.models_type(tables)

    @property
    def channels(self) -> int:
        """Channels of z, which is decoded first."""
        return self.hyper_tables.channels

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of z, the second tensor."""
        _, height, width = tensors[1].shape
        return height, width

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        content = f"{self.kind}-1".encode() + self.hyper_tables.digest() + self.tables.digest()
        return hashlib.sha256(content).digest()

    def settings(self) -> dict[str, Setting]:
        """Return nothing: the arrays say all."""
        return {}

    def arrays(self) -> dict[str, Array]:
        """Return the tables of z and y by name."""
        return self.hyper_tables.arrays(HYPER) | self.tables.arrays()

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        return cls.tables_type.names(HYPER) + cls.tables_type.names()

    @classmethod
    def from_parts(
        cls: type[AnyCoder], settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> AnyCoder:
        """Make a coder from tables, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        return cls(*cls._tables_of(arrays))  # pyright: ignore

    @classmethod
    def _tables_of(cls, arrays: Mapping[str, Array]) -> tuple[Tables, Tables]:
        return cls.tables_type.of(arrays, HYPER), cls.tables_type.of(arrays)

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
        self, payload: bytes, height: int, width: int, hyper: Hyper | None
    ) -> tuple[bytes, Stack, tuple[Array, ...]]:
        """Return the check, what lies below z, and what the hyper-decoder makes of z."""
        if hyper is None:
            raise TypeError(f"a coder of kind {self.kind} decodes with a hyper-decoder only")
        if len(payload) < CHECK_BYTES:
            raise BitstreamError("The payload ends within the check of its scale indexes.")
        stack = Stack(payload[CHECK_BYTES:])
        symbols = self._hyper_models.pop(stack, (self.channels, height, width))
        return payload[:CHECK_BYTES], stack, hyper(symbols)

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
        self, payload: bytes, height: int, width: int, hyper: Hyper | None = None
    ) -> tuple[Array, ...]:
        """Read back what :meth:`encode` wrote.

        Time and memory are bounded by the sizes of z and of what the hyper-decoder returns.

        Args:
            payload: From :meth:`encode`.
            height: Of z.
            width: Of z.
            hyper: Symbols of z (N, height, width) int32 to scale indexes (C, h, w) int32, and more.

        Returns:
            Symbols of y (C, h, w) int32, and what ``hyper`` gave beside the indexes.

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
        of_z = self._hyper_models.ideal_bits(hyper_symbols)
        return of_z + self._models.ideal_bits(symbols, self._valid(indexes, TablesError))

    def _valid(self, indexes: Array, error: type[SplitzooError]) -> NDArray[np.uint8]:
        known = self._models.channels
        if known is not None and len(indexes) != known:
            raise error(f"There are scale indexes of {len(indexes)} channels, tables for {known}.")
        return valid_indexes(indexes, self._models.indexes, error)


class HyperpriorCoder(HierarchicalCoder[FactorizedTables]):
    """Codes y under the Gaussians whose scales the hyper-decoder computes from z.

    Args:
        hyper_tables: Of z, one row per channel.
        tables: Of y, one row per scale.

    Raises:
        TablesError: There are more than 256 scales.
    """

    kind: ClassVar[str] = "hyperprior"


class ContextHyperpriorCoder(HierarchicalCoder[ContextTables]):
    """Codes y under what its neighbours and the hyperprior's scales say; z by its neighbours.

    Args:
        hyper_tables: Of z.
        tables: Of y; the scale indexes are its side indexes.

    Raises:
        TablesError: The tables of z are for symbols that come with indexes, or those of y are not.
    """

    kind: ClassVar[str] = "hyperprior-context"
    tables_type: ClassVar[Any] = ContextTables
    hyper_models_type: ClassVar[Any] = ContextModels
    models_type: ClassVar[Any] = SideModels

    def __init__(self, hyper_tables: ContextTables, tables: ContextTables) -> None:
        hyper_tables.check_side(expected=False)
        super().__init__(hyper_tables, tables)
