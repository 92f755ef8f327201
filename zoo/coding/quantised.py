"""Values of an affine quantiser as raw bytes: no entropy coding.

The payload is the scale (float32), the zero point (1 byte), and the values (1 byte each), channel
after channel in raster order, little endian.
"""

import hashlib
import struct
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ...errors import BitstreamError, TablesError
from .coder import Array, Hyper, Setting

_HEAD = struct.Struct("<fB")
_MAX_CHANNELS = 1 << 16


class QuantisedCoder:
    """Packs what a quantiser gives for one image.

    Args:
        channels: Of the values.
        bits: Of each value; 8 is all that there is.

    Raises:
        TablesError: The channels or bits are not possible.
    """

    kind: ClassVar[str] = "quantised"
    lossless: ClassVar[bool] = True
    takes: ClassVar[int] = 3
    gives: ClassVar[int] = 3
    needs_hyper: ClassVar[bool] = False

    def __init__(self, channels: int, bits: int = 8) -> None:
        # A bool is an int to Python.
        if type(channels) is not int or not 1 <= channels <= _MAX_CHANNELS:
            raise TablesError(f"Quantised values: {channels!r} channels, not 1 to {_MAX_CHANNELS}.")
        if type(bits) is not int or bits != 8:
            raise TablesError(f"Quantised values: of {bits!r} bits, not 8.")
        self._channels = channels
        self.bits = bits

    @property
    def channels(self) -> int:
        """Channels of the values."""
        return self._channels

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of the values."""
        values, _, _ = tensors
        return values.shape[-2], values.shape[-1]

    def encode(self, *tensors: Array) -> bytes:
        """Pack the device graph's outputs for one image.

        Args:
            tensors: Values (C, h, w) uint8; scale (1, 1, 1) float32, finite and above 0; zero point
                (1, 1, 1) int32 in [0, 255].

        Returns:
            The payload, 5 + C · h · w bytes.

        Raises:
            TablesError: The tensors are not of that form.
        """
        values, scale, zero_point = tensors
        if values.dtype != np.uint8 or len(values) != self.channels:
            raise TablesError(
                f"The quantiser gave values of {values.dtype} in {len(values)} channels; "
                f"uint8 in {self.channels} were expected."
            )
        if not 0 < scale.item() < np.inf or not 0 <= zero_point.item() <= 255:
            raise TablesError(
                f"The quantiser gave scale {scale.item()} and zero point {zero_point.item()}."
            )
        return _HEAD.pack(scale.item(), zero_point.item()) + values.tobytes()

    def decode(
        self, payload: bytes, height: int, width: int, hyper: Hyper | None = None
    ) -> tuple[Array, ...]:
        """Read back what :meth:`encode` wrote.

        Returns:
            Values (C, height, width) uint8, scale (1, 1, 1) float32, zero point (1, 1, 1) int32.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        expected = _HEAD.size + self.channels * height * width
        if len(payload) != expected:
            raise BitstreamError(f"The payload has {len(payload)} bytes; expected were {expected}.")
        scale, zero_point = _HEAD.unpack_from(payload)
        if not 0 < scale < np.inf:
            raise BitstreamError(f"The payload has a scale of {scale}, which no encoder writes.")
        values = np.frombuffer(payload, np.uint8, offset=_HEAD.size)
        return (
            values.reshape(self.channels, height, width).copy(),
            np.full((1, 1, 1), scale, np.float32),
            np.full((1, 1, 1), zero_point, np.int32),
        )

    def digest(self) -> bytes:
        """Return the SHA-256 of the settings."""
        return hashlib.sha256(f"quantised-1 {self.channels} {self.bits}".encode()).digest()

    def settings(self) -> dict[str, Setting]:
        """Return channels and bits."""
        return {"channels": self.channels, "bits": self.bits}

    def arrays(self) -> dict[str, Array]:
        """Return nothing: there are no tables."""
        return {}

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return nothing: there are no tables."""
        return ()

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> "QuantisedCoder":
        """Make a coder from settings, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        if set(settings) != {"channels", "bits"}:
            raise TablesError(f"Quantised values: the settings are {sorted(settings)}.")
        return cls(**settings)  # pyright: ignore[reportArgumentType]  # checked in __init__
