"""The frame around one image's payload: what goes over the network.

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

from ..errors import BitstreamError

STREAM_OVERHEAD_BYTES = 12
"""Bytes of a stream beyond its payload when the shape is not sent."""

MAX_SIDE = (1 << 16) - 1
"""Height and width of a latent have two bytes each."""

_MAGIC = b"SZ"
_VERSION = 1
_HAS_SHAPE = 1
_HEADER = struct.Struct("<2sBB4s")
_SHAPE = struct.Struct("<HH")
_CRC = struct.Struct("<I")


class Frame(NamedTuple):
    """A stream taken apart.

    Attributes:
        model_id: 4 bytes.
        shape: Height and width of the latent, or None where the model fixes them.
        payload: What the entropy coder wrote.
    """

    model_id: bytes
    shape: tuple[int, int] | None
    payload: bytes


def write_stream(payload: bytes, model_id: bytes, shape: tuple[int, int] | None = None) -> bytes:
    """Frame a payload.

    Args:
        payload: What the entropy coder wrote.
        model_id: 4 bytes.
        shape: Height and width of the latent, each below 65,536, if the model does not fix them.
    """
    header = _HEADER.pack(_MAGIC, _VERSION, _HAS_SHAPE if shape else 0, model_id)
    body = header + (_SHAPE.pack(*shape) if shape else b"") + payload
    return body + _CRC.pack(zlib.crc32(body))


def read_stream(stream: bytes) -> Frame:
    """Take a stream apart.

    Raises:
        BitstreamError: It is truncated, corrupted, of a later version, or no stream at all.
    """
    if len(stream) < STREAM_OVERHEAD_BYTES:
        raise BitstreamError(
            f"The stream has {len(stream)} bytes; the shortest has {STREAM_OVERHEAD_BYTES}."
        )
    magic, version, flags, model_id = _HEADER.unpack_from(stream)
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
        return Frame(model_id, None, body[_HEADER.size :])
    if len(body) < _HEADER.size + _SHAPE.size:
        raise BitstreamError("The stream ends within its shape.")
    return Frame(
        model_id,
        _SHAPE.unpack_from(body, _HEADER.size),
        body[_HEADER.size + _SHAPE.size :],
    )
