"""Checks of JPEG, WebP, PNG and BPG files before a decoder sees them.

A decoder allocates what an image's header claims, and spends time on each scan or frame that the
image holds. So a payload must have the form in which the encoders here write it, one image in
one pass, and claim the expected size. A file that passes costs a decoder no more than an image of
that size does; whether its content is sound is for the decoder to say.
Every check raises ``BitstreamError`` for another form or size.
"""

import struct
from typing import Any

from ..errors import BitstreamError

_PNG_START = b"\x89PNG\r\n\x1a\n"
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_APP0, _JPEG_HUFFMAN, _JPEG_QUANTISER = 0xE0, 0xC4, 0xDB
_JPEG_BASELINE, _JPEG_SCAN = 0xC0, 0xDA


def check_jpeg(data: bytes, height: int, width: int, channels: int) -> None:
    """Check that data is a baseline JPEG of one scan, 8 bits, and this size."""
    if not data.startswith(_JPEG_START):
        raise other_form("JPEG")
    position, framed = len(_JPEG_START), False
    while True:
        marker, length = unpack("JPEG", ">HH", data, position)
        content = data[position + 4 : position + 2 + length]
        position += 2 + length
        kind = marker & 0xFF
        if marker >> 8 != 0xFF or len(content) != length - 2:
            raise other_form("JPEG")
        if kind == _JPEG_BASELINE and not framed:
            framed = True
            bits, *size, components = unpack("JPEG", ">BHHB", content, 0)
            if (bits, components) != (8, channels):
                raise other_form("JPEG", f"has {components} channels of {bits} bits")
            check_size("JPEG", tuple(size), (height, width))
        elif kind == _JPEG_SCAN and framed:
            break
        elif kind not in (_JPEG_APP0, _JPEG_HUFFMAN, _JPEG_QUANTISER):
            raise other_form("JPEG")
    if content[:1] != bytes([channels]):
        raise other_form("JPEG", "has more than one scan")
    # In a scan 0xFF is followed by 0, or begins a marker; here that is the end's alone.
    scan = data[position:].replace(b"\xff\0", b"")
    if not scan.endswith(_JPEG_END) or scan.find(b"\xff") != len(scan) - len(_JPEG_END):
        raise other_form("JPEG", "is cut short, or has more than one scan")


def check_webp(data: bytes, height: int, width: int, channels: int) -> None:
    """Check that data is a single lossy WebP image of this size, without metadata."""
    riff, length, form, chunk = unpack("WebP", "<4sI8sI", data, 0)
    if (riff, form) != (b"RIFF", b"WEBPVP8 "):
        raise other_form("WebP")
    if (length, len(data)) != (12 + chunk + (chunk & 1), length + 8):
        raise other_form("WebP", "is cut short, or has something behind it")
    tag, start_code, claimed_width, claimed_height = unpack("WebP", "<B2x3sHH", data, 20)
    if tag & 1 or start_code != b"\x9d\x01\x2a":
        raise other_form("WebP")
    # The upper two bits ask a viewer to enlarge the image; a decoder leaves it as it is.
    claimed = (claimed_height & 0x3FFF, claimed_width & 0x3FFF)
    check_size("WebP", claimed, (height, width))


def check_png(data: bytes, height: int, width: int, channels: int) -> None:
    """Check that data is an 8-bit PNG image of this size, not interlaced, without metadata."""
    if not data.startswith(_PNG_START):
        raise other_form("PNG")
    position, kinds = len(_PNG_START), []
    while position < len(data):
        length, kind = unpack("PNG", ">I4s", data, position)
        if position + 12 + length > len(data):
            raise other_form("PNG", "is cut short")
        if kind == b"IHDR" and not kinds:
            claimed_width, claimed_height, *form = unpack("PNG", ">IIBBBBB", data, position + 8)
            if form != [8, 2 if channels == 3 else 0, 0, 0, 0]:
                raise other_form("PNG")
            check_size("PNG", (claimed_height, claimed_width), (height, width))
        if kind != b"IDAT" or kinds[-1:] != [kind]:
            kinds.append(kind)
        position += 12 + length
    if kinds != [b"IHDR", b"IDAT", b"IEND"]:
        raise other_form("PNG")


def check_bpg(data: bytes, height: int, width: int, channels: int) -> None:
    """Check that data is a BPG image of 4:4:4 YCbCr, 8 bits, and this size, without extensions."""
    magic, form = unpack("BPG", "4s2s", data, 0)
    if magic != b"BPG\xfb":
        raise other_form("BPG")
    if form != b"\x60\x00":
        raise other_form("BPG", "is not 4:4:4 YCbCr of 8 bits, or has extensions")
    claimed_width, position = _ue7(data, 6)
    claimed_height, position = _ue7(data, position)
    length, position = _ue7(data, position)
    check_size("BPG", (claimed_height, claimed_width), (height, width))
    # 0: up to the end of the file.
    if length not in (0, len(data) - position):
        raise other_form("BPG", "is cut short, or has something behind it")


def _ue7(data: bytes, position: int) -> tuple[int, int]:
    """Read an integer of 7 bits a byte, highest first; return it and where it ends."""
    number = 0
    for index in range(5):
        (byte,) = unpack("BPG", "B", data, position + index)
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, position + index + 1
    raise other_form("BPG")


def unpack(name: str, form: str, data: bytes, position: int) -> tuple[Any, ...]:
    """Return the fields at a position, or raise ``BitstreamError`` where the data ends before."""
    try:
        return struct.unpack_from(form, data, position)
    except struct.error:
        raise other_form(name, "is cut short") from None


def other_form(name: str, what: str = "") -> BitstreamError:
    """Return the error for a payload that is no image as the encoder writes it."""
    if what:
        return BitstreamError(f"The payload's {name} image {what}.")
    return BitstreamError(f"The payload is no {name} image as this package writes it.")


def check_size(name: str, claimed: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise ``BitstreamError`` unless height and width are those expected."""
    if claimed != expected:
        raise BitstreamError(
            f"The payload's {name} image claims {claimed[0]}×{claimed[1]} pixels (height×width); "
            f"{expected[0]}×{expected[1]} are expected."
        )
