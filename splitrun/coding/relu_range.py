"""Coder of an affine quantiser's values by context coding, where the edge begins with a ReLU.

Values that the edge's ReLU clips to 0 are *clipped*: however far beyond the threshold one lies, the
edge's output is bit-identical. All clipped values of a channel are sent as the one next to the
threshold, its *origin*, and all others as their distance from there. Nothing else changes: the
quantiser keeps the range of the whole latent.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, TablesError
from .coder import Array, HyperDecoder, Setting
from .context.dense import DenseModels, DenseTables
from .factorized import SymbolCoder
from .quantised import pack_range, read_range

_ENDS = "live"
"""Name of the ranges' ends in files."""

_MARGIN = 0.25 + 2**-6
"""Distance kept from the threshold, in steps of the quantiser, whose range has 255: the threshold
moves by up to 255 / 1024 where both weights of the batch norm are float16, and by little where sums
are rounded otherwise."""


class ReluRange:
    """Range of each channel's values that the edge's ReLU does not clip.

    Args:
        ends: (2, C) float32, in the latent's units: values below the first or above the second are
            clipped; −inf and inf where none is. A channel has one end at most.

    Attributes:
        ends: The same array.

    Raises:
        TablesError: The ends are not of that form.
    """

    def __init__(self, ends: Array) -> None:
        if ends.dtype != np.float32 or ends.ndim != 2 or len(ends) != 2 or np.isnan(ends).any():
            raise TablesError(f"ReLU range: {ends.dtype} {ends.shape}, not (2, C) float32 numbers.")
        self.ends = ends.copy()
        self.ends.setflags(write=False)
        low, high = ends.astype(np.float64)[..., None, None]
        rising, falling = low > -np.inf, high < np.inf
        if np.any(rising & falling):
            raise TablesError("ReLU range: a channel has two ends.")
        self._has_end = rising | falling
        self._end = np.where(falling, high, np.where(rising, low, 0.0))
        self._direction = np.where(falling, -1, 1)

    def origins(self, scale: float, zero_point: int) -> NDArray[np.int64]:
        """Return the clipped value next to each channel's threshold, (C, 1, 1), from 0 to 255.

        A channel without a threshold begins at the zero point.
        """
        end = self._direction * (zero_point + self._end / scale)
        origins = self._direction * np.floor(end - _MARGIN * self._has_end)
        return origins.clip(0, 255).astype(np.int64)

    def distances(self, values: Array, origins: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return how far values (C, h, w) are from the origins: 0 for those that are clipped."""
        distances = self._direction * (values - origins)
        np.maximum(distances, 0, out=distances, where=self._has_end)
        return distances.astype(np.int32)

    def values(self, distances: NDArray[np.int32], origins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the values at these distances (C, h, w), any integers."""
        return origins + self._direction * distances.astype(np.int64)


class ReluQuantisedCoder(SymbolCoder[DenseTables]):
    """Codes a quantiser's values losslessly, except that clipped ones become their origin.

    The payload is the scale (float32), the zero point (1 byte), each channel's origin (1 byte), and
    a stack of the distances from these.

    Args:
        tables: Tables of the distances.
        relu_range: Range of each channel.

    Raises:
        TablesError: They do not fit together.
    """

    kind: ClassVar[str] = "quantised-relu"
    tables_type: ClassVar[Any] = DenseTables
    models_type: ClassVar[Any] = DenseModels
    num_inputs: ClassVar[int] = 3
    num_outputs: ClassVar[int] = 3
    is_context: ClassVar[bool] = True
    is_quantised: ClassVar[bool] = True

    def __init__(self, tables: DenseTables, relu_range: ReluRange) -> None:
        super().__init__(tables)
        if relu_range.ends.shape[1] != self.channels:
            raise TablesError(
                f"ReLU range: of {relu_range.ends.shape[1]} channels; the tables are for "
                f"{self.channels}."
            )
        self.relu_range = relu_range

    def decoded(self, *tensors: Array) -> tuple[Array, ...]:
        """Return the tensors with each channel's origin in place of its clipped values."""
        values, scale, zero_point = tensors
        distances, origins = self._distances(*tensors)
        return self.relu_range.values(distances, origins).astype(values.dtype), scale, zero_point

    def encode(self, *tensors: Array) -> bytes:
        """Code the device graph's outputs for one image.

        Args:
            tensors: Tensors as :meth:`QuantisedCoder.encode` takes them.

        Raises:
            TablesError: The tensors are not of that form.
            BitstreamError: The values are more than ``MAX_CONTEXT_VALUES``.
        """
        values, scale, zero_point = tensors
        head = pack_range(values, scale, zero_point, self.channels)
        distances, origins = self._distances(*tensors)
        return head + origins.astype(np.uint8).tobytes() + super().encode(distances)

    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Return the tensors that :meth:`encode` wrote, as :meth:`decoded` says.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        scale, zero_point, rest = read_range(payload)
        head, stack = rest[: self.channels], rest[self.channels :]
        if len(head) < self.channels:
            raise BitstreamError("The payload ends within the origins of its channels.")
        origins = np.frombuffer(head, np.uint8).astype(np.int64)[:, None, None]
        (distances,) = super().decode(stack, height, width)
        values = self.relu_range.values(distances, origins)
        if values.min() < 0 or values.max() > 255:
            raise BitstreamError("The payload holds a value beyond 8 bits.")
        if not np.array_equal(self.relu_range.distances(values, origins), distances):
            raise BitstreamError("The payload holds a clipped value that is no origin.")
        return values.astype(np.uint8), scale, zero_point

    def ideal_bits(self, *tensors: Array) -> float:
        """Return the sum of −log2 p over the ordinary distances and escape slots, in bits."""
        return super().ideal_bits(self._distances(*tensors)[0])

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        return hashlib.sha256(
            super().digest() + self.relu_range.ends.astype("<f4").tobytes()
        ).digest()

    def arrays(self) -> dict[str, Array]:
        """Return the tables and the ends of the ranges by name."""
        return super().arrays() | {_ENDS: self.relu_range.ends}

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        return *super().array_names(), _ENDS

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> "ReluQuantisedCoder":
        """Make a coder from :meth:`arrays`, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        if _ENDS not in arrays:
            raise TablesError(f"ReLU range: {_ENDS!r} is missing.")
        return cls(DenseTables.of(arrays), ReluRange(arrays[_ENDS]))

    def _distances(
        self, values: Array, scale: Array, zero_point: Array
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        pack_range(values, scale, zero_point, self.channels)  # for its checks
        origins = self.relu_range.origins(scale.item(), zero_point.item())
        return self.relu_range.distances(values, origins), origins
