"""Coder of a latent y under its hyperprior and a network over its own context: Minnen et al. 2018.

::

    device: y, symbols of z, parameters ─► payload
    edge:   payload ─► symbols of z ─► hyper-decoder ─► parameters ─► y_hat

(https://arxiv.org/abs/1809.02736.) The scale of a symbol of y follows from the parameters and from
the positions decoded before it, see ``context_network``. Parameters are floats that two engines
compute: see ``DesyncError``.

The payload is a check of all scale indexes in the order of coding, 2 bytes, and one stack (see
``ans``): on its top z, channel after channel in raster order, below it y, step after step; within a
step, scale after scale, each from the top right to the bottom left, channel after channel.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, DesyncError, SplitzooError, TablesError
from .ans import Stack
from .coder import Array, HyperDecoder, Setting
from .context_network import ContextNetwork, Float64, Positions, finite_float32
from .hyperprior import SAME_ENGINE, HierarchicalCoder, check_indexes
from .stream import MAX_SYMBOLS
from .tables import FactorizedTables


class AutoregressiveCoder(HierarchicalCoder[FactorizedTables]):
    """Codes y position by position, each symbol relative to the mean its context predicts.

    M is the number of channels of y.

    Args:
        hyper_tables: Tables of z, one row per channel.
        tables: Tables of y, one row per scale.
        scales: (rows,) float32, rising: the scale of each row of ``tables``.
        network: Network that predicts scales and means.

    Raises:
        TablesError: The scales do not rise, or are not those of the tables.
    """

    kind: ClassVar[str] = "autoregressive"
    lossless: ClassVar[bool] = False
    network_type: ClassVar[Any] = ContextNetwork

    def __init__(
        self,
        hyper_tables: FactorizedTables,
        tables: FactorizedTables,
        scales: NDArray[np.float32],
        network: ContextNetwork,
    ) -> None:
        super().__init__(hyper_tables, tables)
        if scales.shape != (tables.channels,) or not np.all(scales[1:] > scales[:-1]):
            raise TablesError(f"Entropy tables: {tables.channels} rows need as many rising scales.")
        self.scales = scales
        self.network = network

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        scales = self.scales.astype("<f4").tobytes()
        return hashlib.sha256(super().digest() + scales + self.network.digest()).digest()

    def arrays(self) -> dict[str, Array]:
        """Return tables, scales and weights by name."""
        return super().arrays() | {"scales": self.scales} | self.network.weights

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        return (*super().array_names(), "scales", *ContextNetwork.NAMES)

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> "AutoregressiveCoder":
        """Make a coder from tables, scales and weights, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        return cls(
            *cls._tables_of(arrays), finite_float32(arrays, "scales"), cls.network_type(arrays)
        )

    def encode(self, *tensors: Array) -> bytes:
        """Code one image; y is rounded relative to its predicted means.

        Args:
            tensors: y (M, h, w) float32; symbols of z (N, hz, wz) int32, any values; parameters
                (2M, h, w) float32 from the hyper-decoder.

        Returns:
            The payload.

        Raises:
            TablesError: The tensors do not fit each other or the tables, or no 32-bit symbols
                result from them.
        """
        latent, hyper_symbols, params = tensors
        steps: list[tuple[NDArray[np.int32], NDArray[np.uint8]]] = []
        self._walk(latent, params, steps)
        stack = Stack()
        for symbols, indexes in reversed(steps):
            self._models.push(stack, symbols, indexes)
        return self._finish(stack, hyper_symbols, _joined([indexes for _, indexes in steps]))

    def rounded(self, latent: Array, params: Array) -> NDArray[np.float32]:
        """Return y_hat (M, h, w) as the edge receives it, without coding; see :meth:`encode`."""
        return self._walk(latent, params, []).astype(np.float32, order="C")

    def _walk(
        self,
        latent: Array,
        params: Array,
        steps: list[tuple[NDArray[np.int32], NDArray[np.uint8]]],
    ) -> Float64:
        """Round y position by position, note symbols and scale indexes, and return y_hat."""
        self._check_latent(params, TablesError)
        if latent.shape != (self.network.channels, *params.shape[1:]):
            raise TablesError(f"y has shape {latent.shape}, its parameters {params.shape}.")
        latent = np.moveaxis(latent, 0, -1).astype(np.float64)

        def quantise(places: Positions, scales: Float64, means: Float64) -> Float64:
            rounded = np.rint(latent[places] - means)
            if not np.all(np.abs(rounded) <= np.iinfo(np.int32).max):
                raise TablesError("y, relative to its means, is not finite or beyond 32 bits.")
            symbols = rounded.astype(np.int32)
            steps.append((symbols, self._indexes(scales)))
            return symbols + means  # of integers, as the edge has them: there is no -0

        return self.network.walk(params, quantise)

    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Read back y_hat, the rounded y.

        Args:
            payload: Result of :meth:`encode`.
            height: Height of z.
            width: Width of z.
            hyper: Function of z's symbols (N, height, width) int32 that returns the parameters
                (2M, h, w) float32, and whatever else the edge takes.

        Returns:
            y_hat (M, h, w) float32, and what ``hyper`` returned after the parameters.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
            DesyncError: Other scale indexes than the device's result from the parameters, or what
                is read with them is no symbol.
        """
        check, stack, (params, *rest) = self._begin(payload, height, width, hyper)
        self._check_latent(params, BitstreamError)
        steps: list[NDArray[np.uint8]] = []

        def read(_: Positions, scales: Float64, means: Float64) -> Float64:
            steps.append(self._indexes(scales))
            return self._models.pop(stack, steps[-1]) + means

        try:
            y_hat = self.network.walk(params, read)
        except BitstreamError as error:
            # From the first scale on that differs, what is read makes no sense.
            raise DesyncError(
                f"{error.message} It is damaged, or the parameters computed here are not those "
                "that the device computed from the same hyperprior.",
                next_step=SAME_ENGINE,
            ) from error
        check_indexes(_joined(steps), check)
        stack.close()
        with np.errstate(over="ignore"):
            y_hat = y_hat.astype(np.float32, order="C")
        if not np.isfinite(y_hat).all():
            raise BitstreamError("The payload holds a latent beyond float32.")
        return y_hat, *rest

    def _check_latent(self, params: Array, error: type[SplitzooError]) -> None:
        """Check the parameters from the hyper-decoder."""
        doubled = 2 * self.network.channels
        if (
            params.ndim != 3
            or len(params) != doubled
            or params.dtype != np.float32
            or not 0 < params.size <= 2 * MAX_SYMBOLS
            or not np.isfinite(params).all()
        ):
            raise error(
                f"The hyper-decoder gave {params.dtype} {params.shape}; expected are finite "
                f"float32 ({doubled}, h, w), {2 * MAX_SYMBOLS} at most."
            )

    def _indexes(self, scales: Float64) -> NDArray[np.uint8]:
        """Return for each scale the first row of at least that scale, or the last row."""
        return np.searchsorted(self.scales[:-1], scales).astype(np.uint8)


def _joined(steps: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return np.concatenate(steps, axis=None)
