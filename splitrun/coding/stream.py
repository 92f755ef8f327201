"""From wire tensors to a stream and back: a model's codec, and the frame around each payload.

::

    offset  bytes
    0       2      "SZ"
    2       1      format version, 1
    3       1      flags: bit 0, a shape follows
    4       4      id of the model: its tables and weights
    8       4      height and width of the latent, 2 bytes each (only with flag bit 0)
    8 / 12  n      payload
    end-4   4      CRC-32 of everything before it

Numbers are little-endian. A model of fixed input shape sends no shape: 12 bytes beyond the payload.
"""

import struct
import zlib
from typing import NamedTuple

from ..errors import BitstreamError, ForeignStreamError
from .coder import Array, Coder, HyperDecoder

STREAM_OVERHEAD_BYTES = 12
"""Bytes of a stream beyond its payload when the shape is not sent."""

MAX_SIDE = (1 << 16) - 1
"""Height and width of a latent have two bytes each."""

MAX_SYMBOLS = 1 << 24
"""Largest number of symbols that a stream may claim: 64 MiB of int32."""

_MAGIC = b"SZ"
_VERSION = 1
_HAS_SHAPE = 1
_HEADER = struct.Struct("<2sBB4s")
_SHAPE = struct.Struct("<HH")
_CRC = struct.Struct("<I")


class Frame(NamedTuple):
    """A stream taken apart.

    Attributes:
        stream_id: Id of the streams of a model, 4 bytes.
        shape: Height and width of the latent, or None where the model fixes them.
        payload: Bytes from the entropy coder.
    """

    stream_id: bytes
    shape: tuple[int, int] | None
    payload: bytes


def write_stream(payload: bytes, stream_id: bytes, shape: tuple[int, int] | None = None) -> bytes:
    """Frame a payload.

    Args:
        payload: Bytes from the entropy coder.
        stream_id: Id of the streams of a model, 4 bytes.
        shape: Height and width of the latent, each below 65,536, if the model does not fix them.
    """
    header = _HEADER.pack(_MAGIC, _VERSION, _HAS_SHAPE if shape else 0, stream_id)
    body = header + (_SHAPE.pack(*shape) if shape else b"") + payload
    return body + _CRC.pack(zlib.crc32(body))


def read_stream(stream: bytes) -> Frame:
    """Take a stream apart.

    Raises:
        BitstreamError: It is truncated, corrupted, of a later version, or no stream at all.
    """
    if isinstance(stream, bytearray | memoryview):
        stream = bytes(stream)
    if not isinstance(stream, bytes):
        raise BitstreamError(
            f"A stream is bytes, not {type(stream).__name__}.",
            next_step="Read one from a file with: Path(FILE).read_bytes()",
        )
    if len(stream) < STREAM_OVERHEAD_BYTES:
        raise BitstreamError(
            f"The stream has {len(stream)} bytes; the shortest has {STREAM_OVERHEAD_BYTES}."
        )
    magic, version, flags, stream_id = _HEADER.unpack_from(stream)
    if magic != _MAGIC:
        raise BitstreamError("This is not a splitzoo stream: it does not begin with 'SZ'.")
    body = stream[: -_CRC.size]
    if _CRC.unpack_from(stream, len(body))[0] != zlib.crc32(body):
        raise BitstreamError("The stream is damaged: its CRC-32 does not match. Send it again.")
    if version != _VERSION:
        raise BitstreamError(
            f"The stream has format version {version}; this reads version {_VERSION}.",
            next_step="Use the runtime of the bundle that wrote it.",
        )
    if flags & ~_HAS_SHAPE:
        raise BitstreamError(f"The stream sets flags that version {_VERSION} lacks: {flags:#04x}.")
    if not flags & _HAS_SHAPE:
        return Frame(stream_id, None, body[_HEADER.size :])
    if len(body) < _HEADER.size + _SHAPE.size:
        raise BitstreamError("The stream ends within its shape.")
    return Frame(
        stream_id,
        _SHAPE.unpack_from(body, _HEADER.size),
        body[_HEADER.size + _SHAPE.size :],
    )


class Codec:
    """Turns the wire tensors of one image into a stream and back: coder, frame and stream id.

    Several threads may use one at a time.

    Args:
        coder: Entropy coder of the model.
        stream_id: 4 bytes that tell streams of different models apart.
        shape: Height and width of the tensor that is decoded first, where they need not be sent.
    """

    def __init__(self, coder: Coder, stream_id: bytes, shape: tuple[int, int]) -> None:
        self.coder = coder
        self.stream_id = stream_id
        self.shape = shape

    def at(self, beta: float | None) -> "Codec":
        """Return the codec that encodes at the level whose β is nearest; None changes nothing.

        Raises:
            RateError: The model's rate is fixed, or β is outside its range.
        """
        return self if beta is None else Codec(self.coder.at(beta), self.stream_id, self.shape)

    def compress(self, *tensors: Array) -> bytes:
        """Code and frame the device graph's outputs for one image, each (C, h, w)."""
        return self.frame(self.coder.encode(*tensors), self.coder.shape(*tensors))

    def decompress(self, stream: bytes, hyper: HyperDecoder | None = None) -> tuple[Array, ...]:
        """Read the edge graph's inputs for one image, each (C, h, w).

        Args:
            stream: Result of :meth:`compress`.
            hyper: Hyper-decoder, for coders that need one.

        Raises:
            BitstreamError: The stream is damaged, hostile, or from another model.
        """
        payload, height, width = self.unframe(stream)
        return self.coder.decode(payload, height, width, hyper)

    def frame(self, payload: bytes, shape: tuple[int, int]) -> bytes:
        """Frame a payload; another shape than the model's is sent along."""
        self._check_size(*shape)
        return write_stream(payload, self.stream_id, None if shape == self.shape else shape)

    def unframe(self, stream: bytes) -> tuple[bytes, int, int]:
        """Check a stream's frame, and return its payload, height and width.

        Raises:
            BitstreamError: The stream is damaged, hostile, or from another model.
        """
        frame = read_stream(stream)
        if frame.stream_id != self.stream_id:
            raise ForeignStreamError(
                f"The stream is of model {frame.stream_id.hex()}; this is {self.stream_id.hex()}.",
                next_step="Decode it with the bundle or model that wrote it.",
            )
        height, width = frame.shape or self.shape
        self._check_size(height, width)
        return frame.payload, height, width

    def _check_size(self, height: int, width: int) -> None:
        channels = self.coder.channels
        possible = 0 < channels * height * width <= MAX_SYMBOLS
        if not possible or max(height, width) > MAX_SIDE:
            raise BitstreamError(
                f"The stream claims {channels}×{height}×{width} symbols; "
                f"from 1 to {MAX_SYMBOLS} are possible."
            )
