"""Values of an affine quantiser under dense tables, where the edge begins with a ReLU.

What the edge's first layers make 0 of is *dead*: however far beyond the threshold it lies, the edge
computes the same from it. Each channel's dead values are sent as the one next to the threshold, its
*origin*, and all others as their distance from there. Nothing else changes: the quantiser keeps the
range of the whole latent.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, TablesError
from .coder import Array, Hyper, Setting
from .dense_models import DenseModels
from .dense_tables import DenseTables
from .factorized import SymbolCoder
from .quantised import pack_range, read_range
from .tables import taken

_LIVE = "live"
_MARGIN = 0.25 + 2**-6
"""Of a quantiser's step, of which the range has 255: the threshold moves by up to 255 / 1024 where
both weights of the batch norm are float16, and by little where sums are rounded otherwise.
"""


class ReluRange:
    """Which values of each channel the edge can tell apart.

    Args:
        ends: (2, C) float32, in the latent's units: what lies below the first or above the second
            is dead; −inf and inf where nothing is. A channel has one end at most.

    Attributes:
        ends: As given.

    Raises:
        TablesError: They are not of that form.
    """

    def __init__(self, ends: Array) -> None:
        if ends.dtype != np.float32 or ends.ndim != 2 or len(ends) != 2 or np.isnan(ends).any():
            raise TablesError(f"Live range: {ends.dtype} {ends.shape}, not (2, C) float32 numbers.")
        self.ends = ends.copy()
        self.ends.setflags(write=False)
        low, high = ends.astype(np.float64)[..., None, None]
        rising, falling = low > -np.inf, high < np.inf
        if np.any(rising & falling):
            raise TablesError("Live range: a channel has two ends.")
        self._has_end = rising | falling
        self._end = np.where(falling, high, np.where(rising, low, 0.0))
        self._direction = np.where(falling, -1, 1)

    def origins(self, scale: float, zero_point: int) -> NDArray[np.int64]:
        """Return the dead value next to each channel's threshold, (C, 1, 1), from 0 to 255.

        A channel without a threshold begins at the zero point.
        """
        end = self._direction * (zero_point + self._end / scale)
        origins = self._direction * np.floor(end - _MARGIN * self._has_end)
        return origins.clip(0, 255).astype(np.int64)

    def distances(self, values: Array, origins: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return how far from the origins values (C, h, w) are: 0 of those that are dead."""
        distances = self._direction * (values - origins)
        np.maximum(distances, 0, out=distances, where=self._has_end)
        return distances.astype(np.int32)

    def values(self, distances: NDArray[np.int32], origins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what has these distances (C, h, w), any integers."""
        return origins + self._direction * distances.astype(np.int64)


class ReluQuantisedCoder(SymbolCoder[DenseTables]):
    """Codes what the edge can tell apart of a quantiser's values, and that exactly.

    The payload is the scale (float32), the zero point (1 byte), each channel's origin (1 byte), and
    a stack of the distances from these.

    Args:
        tables: Of the distances.
        live: Range of each channel.

    Raises:
        TablesError: They do not fit together.
    """

    kind: ClassVar[str] = "quantised-relu"
    tables_type: ClassVar[Any] = DenseTables
    models_type: ClassVar[Any] = DenseModels
    takes: ClassVar[int] = 3
    gives: ClassVar[int] = 3

    def __init__(self, tables: DenseTables, live: ReluRange) -> None:
        super().__init__(tables)
        if live.ends.shape[1] != self.channels:
            raise TablesError(
                f"Live range: of {live.ends.shape[1]} channels; the tables are for {self.channels}."
            )
        self.live = live

    def received(self, *tensors: Array) -> tuple[Array, ...]:
        """Return the tensors with each channel's origin in place of its dead values."""
        values, scale, zero_point = tensors
        distances, origins = self._distances(*tensors)
        return self.live.values(distances, origins).astype(values.dtype), scale, zero_point

    def encode(self, *tensors: Array) -> bytes:
        """Code the device graph's outputs for one image.

        Args:
            tensors: As :meth:`QuantisedCoder.encode` takes them.

        Raises:
            TablesError: The tensors are not of that form.
            BitstreamError: They are more than :data:`dense_models.MAX_SYMBOLS`.
        """
        values, scale, zero_point = tensors
        head = pack_range(values, scale, zero_point, self.channels)
        distances, origins = self._distances(*tensors)
        return head + origins.astype(np.uint8).tobytes() + super().encode(distances)

    def decode(
        self, payload: bytes, height: int, width: int, hyper: Hyper | None = None
    ) -> tuple[Array, ...]:
        """Read back what :meth:`encode` wrote.

        Returns:
            As :meth:`QuantisedCoder.decode` does, and as :meth:`received` says.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        scale, zero_point, rest = read_range(payload)
        head, stack = rest[: self.channels], rest[self.channels :]
        if len(head) < self.channels:
            raise BitstreamError("The payload ends within the origins of its channels.")
        origins = np.frombuffer(head, np.uint8).astype(np.int64)[:, None, None]
        (distances,) = super().decode(stack, height, width)
        values = self.live.values(distances, origins)
        if values.min() < 0 or values.max() > 255:
            raise BitstreamError("The payload holds a value beyond 8 bits.")
        if not np.array_equal(self.live.distances(values, origins), distances):
            raise BitstreamError("The payload holds a dead value that is not its channel's origin.")
        return values.astype(np.uint8), scale, zero_point

    def ideal_bits(self, *tensors: Array) -> float:
        """Return the sum of −log2 p over the ordinary distances and escape slots, in bits."""
        return super().ideal_bits(self._distances(*tensors)[0])

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        return hashlib.sha256(super().digest() + self.live.ends.astype("<f4").tobytes()).digest()

    def arrays(self) -> dict[str, Array]:
        """Return the tables and the live range by name."""
        return super().arrays() | {_LIVE: self.live.ends}

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        return *super().array_names(), _LIVE

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> "ReluQuantisedCoder":
        """Make a coder from what :meth:`arrays` gave, which may be hostile.

        Raises:
            TablesError: It is not valid.
        """
        ends = taken(arrays, (_LIVE,), "")[_LIVE]
        return cls(DenseTables.of(arrays), ReluRange(ends))

    def _distances(
        self, values: Array, scale: Array, zero_point: Array
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        pack_range(values, scale, zero_point, self.channels)  # refuses what is no quantiser's
        origins = self.live.origins(scale.item(), zero_point.item())
        return self.live.distances(values, origins), origins
