"""Values of an affine quantiser: as raw bytes, or under context tables.

The raw payload is the scale (float32), the zero point (1 byte), and the values (1 byte each),
channel after channel in raster order, little endian.
"""

import hashlib
import struct
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ..errors import BitstreamError, TablesError
from .coder import Array, Coder, Hyper, Setting
from .factorized import ContextCoder

_HEAD = struct.Struct("<fB")
_MAX_CHANNELS = 1 << 16


class QuantisedCoder(Coder):
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
        return pack_range(values, scale, zero_point, self.channels) + values.tobytes()

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
        scale, zero_point, rest = read_range(payload)
        values = np.frombuffer(rest, np.uint8).reshape(self.channels, height, width)
        return values.copy(), scale, zero_point

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


class ContextQuantisedCoder(ContextCoder):
    """Codes the values under tables that those coded before them pick, as ``context`` does symbols.

    For streams that are there: calibration makes what ``live`` has, which sends less.
    The payload is scale and zero point, as above, and a stack of the values less the zero point.
    """

    kind: ClassVar[str] = "quantised-context"
    takes: ClassVar[int] = 3
    gives: ClassVar[int] = 3

    def encode(self, *tensors: Array) -> bytes:
        """Code the device graph's outputs for one image, losslessly.

        Args:
            tensors: As :meth:`QuantisedCoder.encode` takes them.

        Raises:
            TablesError: The tensors are not of that form.
        """
        values, scale, zero_point = tensors
        head = pack_range(values, scale, zero_point, self.channels)
        return head + super().encode(_less_zero_point(values, scale, zero_point))

    def decode(
        self, payload: bytes, height: int, width: int, hyper: Hyper | None = None
    ) -> tuple[Array, ...]:
        """Read back what :meth:`encode` wrote.

        Returns:
            As :meth:`QuantisedCoder.decode` does.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        scale, zero_point, rest = read_range(payload)
        (symbols,) = super().decode(rest, height, width)
        values = symbols.astype(np.int64) + zero_point.item()
        if values.min() < 0 or values.max() > 255:
            raise BitstreamError("The payload holds a value beyond 8 bits.")
        return values.astype(np.uint8), scale, zero_point

    def ideal_bits(self, *tensors: Array) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        return super().ideal_bits(_less_zero_point(*tensors))


def _less_zero_point(values: Array, _scale: Array, zero_point: Array) -> Array:
    return values.astype(np.int32) - np.int32(zero_point.item())


def pack_range(values: Array, scale: Array, zero_point: Array, channels: int) -> bytes:
    """Return the first bytes of a payload: scale and zero point.

    Args:
        values: That they belong to.
        scale: (1, 1, 1) float32.
        zero_point: (1, 1, 1) int32.
        channels: That the values are to have.

    Raises:
        TablesError: The tensors are not what a quantiser gives.
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
