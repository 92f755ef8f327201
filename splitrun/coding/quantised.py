"""Coder of an affine quantiser's values as raw bytes.

The payload is the scale (float32), the zero point (1 byte), and the values (1 byte each),
channel after channel in raster order, little endian.
"""

import hashlib
import struct
from typing import ClassVar

import numpy as np

from ..errors import BitstreamError, TablesError
from .coder import Array, HyperDecoder, Setting, SettingsCoder
from .tables import MAX_CHANNELS

_HEAD = struct.Struct("<fB")


class QuantisedCoder(SettingsCoder):
    """Packs a quantiser's values, scale and zero point for one image.

    Args:
        channels: Number of channels of the values.
        bits: Number of bits of each value; 8 is all that there is.

    Raises:
        TablesError: The channels or bits are not possible.
    """

    kind: ClassVar[str] = "quantised"
    lossless: ClassVar[bool] = True
    num_inputs: ClassVar[int] = 3
    num_outputs: ClassVar[int] = 3
    is_quantised: ClassVar[bool] = True
    setting_names: ClassVar[tuple[str, ...]] = ("channels", "bits")

    def __init__(self, channels: int, bits: int = 8) -> None:
        # A bool is an int to Python.
        if type(channels) is not int or not 1 <= channels <= MAX_CHANNELS:
            raise TablesError(f"Quantised values: {channels!r} channels, not 1 to {MAX_CHANNELS}.")
        if type(bits) is not int or bits != 8:
            raise TablesError(f"Quantised values: of {bits!r} bits, not 8.")
        self._channels = channels
        self.bits = bits

    @property
    def channels(self) -> int:
        """Channels of the values."""
        return self._channels

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
        return pack_range(values, scale, zero_point, self.channels) + values.tobytes()

    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
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
        scale, zero_point, rest = read_range(payload)
        values = np.frombuffer(rest, np.uint8).reshape(self.channels, height, width)
        return values.copy(), scale, zero_point

    def settings(self) -> dict[str, Setting]:
        """Return channels and bits."""
        return {"channels": self.channels, "bits": self.bits}

    def digest(self) -> bytes:
        """Return the SHA-256 of the settings."""
        return hashlib.sha256(f"quantised-1 {self.channels} {self.bits}".encode()).digest()


def pack_range(values: Array, scale: Array, zero_point: Array, channels: int) -> bytes:
    """Check a quantiser's tensors, and return a payload's first bytes: scale and zero point.

    Args:
        values: Values (C, h, w) uint8.
        scale: Scale (1, 1, 1) float32.
        zero_point: Zero point (1, 1, 1) int32.
        channels: Number of channels that the values must have.

    Raises:
        TablesError: They are not a quantiser's.
    """
    if values.dtype != np.uint8 or values.ndim != 3 or len(values) != channels:
        raise TablesError(
            f"The quantiser gave values of {values.dtype} {values.shape}; "
            f"uint8 in {channels} channels were expected."
        )
    if not 0 < scale.item() < np.inf or not 0 <= zero_point.item() <= 255:
        raise TablesError(
            f"The quantiser gave scale {scale.item()} and zero point {zero_point.item()}."
        )
    return _HEAD.pack(scale.item(), zero_point.item())


def read_range(payload: bytes) -> tuple[Array, Array, bytes]:
    """Return scale (1, 1, 1) float32 and zero point (1, 1, 1) int32, and what follows them.

    Raises:
        BitstreamError: The payload is shorter, or no encoder writes such a scale.
    """
    if len(payload) < _HEAD.size:
        raise BitstreamError("The payload ends within its scale and zero point.")
    scale, zero_point = _HEAD.unpack_from(payload)
    if not 0 < scale < np.inf:
        raise BitstreamError(f"The payload has a scale of {scale}, which no encoder writes.")
    return (
        np.full((1, 1, 1), scale, np.float32),
        np.full((1, 1, 1), zero_point, np.int32),
        payload[_HEAD.size :],
    )
