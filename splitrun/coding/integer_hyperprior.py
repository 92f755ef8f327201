"""Coders of a latent y and its hyper-latent z that compute z's part by themselves, in integers.

::

    device: y, symbols of z ─► h_s in integers ─► scale indexes, means ─► payload
    edge:   payload ─► symbols of z ─► h_s in integers ─► scale indexes, means ─► y_hat

The payload is that of the coders in ``hyperprior`` and ``autoregressive``, which do the coding.
Both sides run this module, whatever engines run their graphs: the device's may round y and z as it
likes, since what it sends is all that the edge starts from.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, DesyncError, TablesError
from .autoregressive import AutoregressiveCoder
from .coder import AnyCoder, Array, Coder, HyperDecoder, Setting
from .context_network import FixedPointContextNetwork, finite_float32
from .hyperprior import ContextHyperpriorCoder, HierarchicalCoder, HyperpriorCoder
from .integer_network import UNIT, HyperSynthesis

Inner = TypeVar("Inner", bound=HierarchicalCoder)

_SCALE_UNITS = 1 << 18
"""Scales, in units of 2^−10, are told apart up to 256, where the table of scales ends."""


class IntegerCoder(Coder, Generic[Inner]):
    """Base of coders with a hyperprior in integers.

    Args:
        inner: Coder of the symbols.
        synthesis: h_s in integers.

    Attributes:
        inner_type: Class of ``inner``.
        inner: Coder of the symbols.
        synthesis: h_s in integers.

    Raises:
        TablesError: The integers are not for the tables.
    """

    inner_type: ClassVar[Any]
    lossless: ClassVar[bool] = True
    num_inputs: ClassVar[int] = 2

    def __init__(self, inner: Inner, synthesis: HyperSynthesis) -> None:
        if synthesis.channels[0] != inner.channels:
            raise TablesError(
                f"The integer network takes {synthesis.channels[0]} channels of z; the entropy "
                f"tables are for {inner.channels}."
            )
        self.inner = inner
        self.synthesis = synthesis

    @property
    def channels(self) -> int:
        """Channels of z, which is decoded first."""
        return self.inner.channels

    @property
    def tables(self) -> Any:
        """Tables of y."""
        return self.inner.tables

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of z, the second tensor."""
        return self.inner.shape(*tensors)

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        content = f"{self.kind}-1".encode() + self.inner.digest() + self.synthesis.digest()
        return hashlib.sha256(content).digest()

    def arrays(self) -> dict[str, Array]:
        """Return tables and integers by name."""
        return self.inner.arrays() | self.synthesis.arrays

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        return cls.inner_type.array_names() + HyperSynthesis.NAMES

    @classmethod
    def from_parts(
        cls: type[AnyCoder], settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> AnyCoder:
        """Make a coder from tables and integers, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        inner = cls.inner_type.from_parts(settings, arrays)  # pyright: ignore
        return cls(inner, HyperSynthesis(arrays))  # pyright: ignore

    def encode(self, *tensors: Array) -> bytes:
        """Code one image; y is rounded relative to its means.

        Args:
            tensors: y (C, h, w) float32 and symbols of z (D, hz, wz) int32, any values.

        Returns:
            The payload.

        Raises:
            TablesError: The tensors do not fit each other or the tables, or no 32-bit symbols
                result from them.
        """
        latent, hyper_symbols = tensors
        return self.inner.encode(*self.sent(latent, hyper_symbols))

    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Read y_hat (C, h, w) float32, the rounded y.

        Args:
            payload: Result of :meth:`encode`.
            height: Height of z.
            width: Width of z.
            hyper: Not needed.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        if not self.synthesis.can_take(height, width):
            raise BitstreamError(f"A hyperprior of {height}×{width} makes no latent of this model.")
        try:
            return self._received(*self.inner.decode(payload, height, width, self._parameters))
        except DesyncError as error:
            raise DesyncError(
                f"The payload is damaged, or this machine computes integers wrong: {error.message}",
                next_step="Send it again. If every stream of the device ends so: splitrun selftest",
            ) from error

    def ideal_bits(self, *tensors: Array) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        return self.inner.ideal_bits(*self.sent(*tensors))

    @abstractmethod
    def sent(self, latent: Array, hyper_symbols: Array) -> tuple[Array, ...]:
        """Return what ``inner`` encodes."""

    @abstractmethod
    def _parameters(self, hyper_symbols: NDArray[np.int32]) -> tuple[Array, ...]:
        """Compute what ``inner`` decodes with."""

    @abstractmethod
    def _received(self, *tensors: Array) -> tuple[Array, ...]:
        """Return y_hat from what ``inner`` decoded."""


class IntegerHyperpriorCoder(IntegerCoder[HyperpriorCoder | ContextHyperpriorCoder]):
    """Codes y under Gaussians whose scales, and means where there are any, are integers.

    Args:
        inner: Coder of the symbols.
        synthesis: h_s in integers.
        scales: (rows,) float32, rising: the scale of each row of the tables of y.

    Raises:
        TablesError: The integers or scales are not for the tables.
    """

    kind: ClassVar[str] = "integer-hyperprior"
    inner_type: ClassVar[Any] = HyperpriorCoder

    def __init__(
        self,
        inner: HyperpriorCoder | ContextHyperpriorCoder,
        synthesis: HyperSynthesis,
        scales: NDArray[np.float32],
    ) -> None:
        super().__init__(inner, synthesis)
        if scales.shape != (inner.rows,) or not np.all(scales[1:] > scales[:-1]):
            raise TablesError(f"Entropy tables: {inner.rows} rows need as many rising scales.")
        if synthesis.has_means and synthesis.channels[1] % 2:
            raise TablesError("Integer network: an odd number of scales and means.")
        self.scales = scales

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        return hashlib.sha256(super().digest() + self.scales.astype("<f4").tobytes()).digest()

    def arrays(self) -> dict[str, Array]:
        """Return tables, integers and scales by name."""
        return super().arrays() | {"scales": self.scales}

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        return (*super().array_names(), "scales")

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> "IntegerHyperpriorCoder":
        """Make a coder from tables, integers and scales, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        inner = cls.inner_type.from_parts(settings, arrays)
        return cls(inner, HyperSynthesis(arrays), finite_float32(arrays, "scales"))

    def around(self, inner: Coder) -> "IntegerHyperpriorCoder":
        """Return a coder with the same integers around another coder of the symbols."""
        kinds = (IntegerHyperpriorCoder, IntegerContextHyperpriorCoder)
        (kind,) = (kind for kind in kinds if isinstance(inner, kind.inner_type))
        return kind(inner, self.synthesis, self.scales)  # pyright: ignore[reportArgumentType]

    @cached_property
    def _rows(self) -> NDArray[np.uint8]:
        """The row of each scale in units of 2^−10: the first of at least that, or the last."""
        scales = np.arange(_SCALE_UNITS) * UNIT
        return np.searchsorted(self.scales[:-1], scales).astype(np.uint8)

    def _parameters(self, hyper_symbols: NDArray[np.int32]) -> tuple[Array, ...]:
        """Compute scale indexes (C, h, w), and means (C, h, w) float32 if there are any."""
        params = self.synthesis(hyper_symbols)
        scales, *means = np.split(params, 2) if self.synthesis.has_means else (params,)
        indexes = self._rows.take(scales.astype(np.int32), mode="clip")
        return indexes, *(mean * np.float32(UNIT) for mean in means)

    def sent(self, latent: Array, hyper_symbols: Array) -> tuple[Array, ...]:
        """Return symbols of y, symbols of z, and scale indexes."""
        indexes, *means = self._parameters(hyper_symbols)
        if latent.shape != indexes.shape or latent.dtype != np.float32:
            raise TablesError(
                f"y is {latent.dtype} {latent.shape}; float32 {indexes.shape} was expected."
            )
        return _symbols(latent, *means), hyper_symbols, indexes

    def decoded(self, *tensors: Array) -> tuple[Array, ...]:
        """Return y_hat and the symbols of z."""
        latent, hyper_symbols = tensors
        symbols, _, _ = self.sent(latent, hyper_symbols)
        _, *means = self._parameters(hyper_symbols)
        return *self._received(symbols, *means), hyper_symbols

    def _received(self, *tensors: Array) -> tuple[Array, ...]:
        symbols, *means = tensors
        # In float64, so that nothing but the last step rounds.
        return (sum(means, start=symbols.astype(np.float64)).astype(np.float32),)


class IntegerContextHyperpriorCoder(IntegerHyperpriorCoder):
    """The same, with symbols that pick tables for their neighbours; see ``context``."""

    kind: ClassVar[str] = "integer-hyperprior-context"
    is_context: ClassVar[bool] = True
    inner_type: ClassVar[Any] = ContextHyperpriorCoder


class _FixedPointAutoregressive(AutoregressiveCoder):
    network_type: ClassVar[Any] = FixedPointContextNetwork


class IntegerAutoregressiveCoder(IntegerCoder[AutoregressiveCoder]):
    """Codes y position by position; scales and means come from a context network in fixed point."""

    kind: ClassVar[str] = "integer-autoregressive"
    inner_type: ClassVar[Any] = _FixedPointAutoregressive

    def _parameters(self, hyper_symbols: NDArray[np.int32]) -> tuple[Array, ...]:
        return (self.synthesis(hyper_symbols) * np.float32(UNIT),)

    def sent(self, latent: Array, hyper_symbols: Array) -> tuple[Array, ...]:
        """Return y, the symbols of z, and the parameters."""
        return latent, hyper_symbols, *self._parameters(hyper_symbols)

    def decoded(self, *tensors: Array) -> tuple[Array, ...]:
        """Return y_hat and the symbols of z."""
        latent, hyper_symbols = tensors
        return self.inner.rounded(latent, *self._parameters(hyper_symbols)), hyper_symbols

    def _received(self, *tensors: Array) -> tuple[Array, ...]:
        return tensors


def _symbols(latent: Array, *means: Array) -> NDArray[np.int32]:
    """Round y less its means, in float64."""
    symbols = np.rint(latent.astype(np.float64) - sum(means, start=0.0))
    if not np.all(np.abs(symbols) <= np.iinfo(np.int32).max):
        raise TablesError("y, relative to its means, is not finite or beyond 32 bits.")
    return symbols.astype(np.int32)
