"""Read images: which formats, how large, and how their pixels become RGB of 8 bits.

Formats are told by a file's content, not its name. These are read: AVIF, BMP, DDS, GIF, ICNS, ICO,
JPEG, JPEG 2000, PCX, PNG, PPM and its kin, PSD, QOI, SGI, Sun, TIFF and WebP; HEIC where
pillow-heif is installed; DIB and TGA, which have no signature, by their names. Pillow knows more:
formats that it hands to other programs (EPS, WMF), that it decompresses without a bound (FITS), or
that hold no photographs. They are not read.

Of several images in a file, the first is taken, turned as its EXIF tag says. Alpha is dropped;
grey, palettes, CMYK and YCbCr become RGB. Values of more than 8 bits are scaled, see
:func:`to_8_bits`.

numpy and Pillow alone: the same code runs in the zoo and on the board.
"""

import importlib
import io
import math
import os
import re
import stat
import struct
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from .errors import ImageError, SplitzooError

FORMATS = (
    *("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "QOI"),
    *("DDS", "ICNS", "ICO", "PCX", "PSD", "SGI", "SUN"),
)
"""Pillow's names of the formats that are told by their content."""

UNSIGNED_FORMATS = {".dib": "DIB"} | dict.fromkeys((".tga", ".icb", ".vda", ".vst"), "TGA")
"""Those that are told by the ending of a file's name."""

HEIC_NEEDS = "HEIC needs the package pillow-heif, which is not installed"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

LIMIT_VARIABLE = "SPLITZOO_MAX_MEGAPIXELS"
"""Environment variable: largest images that are decoded, in millions of pixels."""

MOST_PIXELS = 89_478_485
"""Pixels of the largest images without it: Pillow's own limit, 256 MiB of RGB."""

_MOST_FILE_BYTES = 1 << 30
_MOST_SCANS = 100
_HELD_WHOLE = 3
"""How often the limit's pixels a JPEG may have whose coefficients are in memory all at once."""

AnyImage = Path | str | bytes | IO[bytes] | Image.Image | NDArray[Any]
"""An image: path of a file, content of a file, open file, Pillow image, or pixels.

Pixels are RGB (H, W, 3) uint8, with alpha (H, W, 4), or grey (H, W) or (H, W, 1) of any type that
is read from files."""

DAMAGE = (
    *(EOFError, LookupError, MemoryError, OverflowError, RuntimeError, SyntaxError, TypeError),
    *(ValueError, struct.error),
)
"""Exceptions that Pillow's readers raise at damaged data, beside OSError."""


def read_rgb(image: AnyImage) -> Image.Image:
    """Read an image: upright, RGB, 8 bits.

    Raises:
        ImageError: The image is missing, none, damaged, too large, or given as something else.
    """
    if isinstance(image, np.ndarray):
        image, name = _from_pixels(image), "given as an array"
    elif isinstance(image, Image.Image):
        image, name = image.copy(), "given as a Pillow image"
    else:
        name = _name(image)
    with _image_errors(name):
        if isinstance(image, Image.Image):
            return _rgb(_upright(image))
        with _opened(image) as opened:
            deep = _is_deep(opened)
            rgb = _rgb(_upright(opened))
            if deep and np.max(rgb.getextrema()) < _AMBIGUOUS:
                return _scaled(rgb, image)
            return rgb


def check_image(path: Path | str) -> None:
    """Read the image in a file whole, and forget it.

    Raises:
        ImageError: It cannot be read; ``reason`` says why, details of the one file in brackets.
    """
    read_rgb(path)


def upright_size(path: Path | str) -> tuple[int, int]:
    """Return width and height of the image in a file, pixels, turned as its EXIF tag says.

    Raises:
        ImageError: The file is missing, no image, or damaged.
    """
    with _image_errors(str(path)), _opened(path, reduce=False) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        width, height = image.size
        # Pillow turns a TIFF's size itself.
        return (height, width) if turned and image.format != "TIFF" else (width, height)


def most_pixels() -> int:
    """Return how many pixels an image may have.

    Raises:
        SplitzooError: The environment variable holds no number above 0.
    """
    given = os.environ.get(LIMIT_VARIABLE, "")
    try:
        pixels = round(float(given) * 1e6) if given else MOST_PIXELS
    except (OverflowError, ValueError):
        pixels = 0
    if pixels < 1:
        raise SplitzooError(
            f"{LIMIT_VARIABLE} is {given!r}; a number above 0 is expected, of megapixels.",
            next_step=f"Set it like this: {LIMIT_VARIABLE}=200",
        )
    return pixels


class _UnusableError(Exception):
    """Why an image is not read, in words, and what to do."""

    def __init__(self, reason: str, next_step: str = "") -> None:
        super().__init__(reason)
        self.reason, self.next_step = reason, next_step


@contextmanager
def _image_errors(name: object) -> Iterator[None]:
    """Map what Pillow and the file system raise to ImageError."""
    try:
        yield
    except _UnusableError as error:
        raise ImageError(name, error.reason, next_step=error.next_step) from error
    except OSError as error:
        said = error.strerror.lower() if error.strerror else f"it is damaged ({error})"
        raise ImageError(name, said) from error
    except MemoryError as error:
        raise ImageError(name, "there is not enough memory for it") from error
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise ImageError(name, f"it is damaged ({error})") from error


def _name(image: object) -> object:
    if isinstance(image, str | os.PathLike):
        return image
    if isinstance(image, bytes):
        return "given as bytes"
    if hasattr(image, "read"):
        return "given as an open file"
    known = "a path, bytes, an open file, a Pillow image, or an array uint8 (H, W, 3)"
    raise ImageError(f"given as {type(image).__name__}", f"it is not {known}")


@contextmanager
def _opened(image: Path | str | bytes | IO[bytes], *, reduce: bool = True) -> Iterator[Any]:
    """Open an image that may be decoded; it is not yet.

    Args:
        reduce: Whether to decode a JPEG beyond the limit at a smaller scale.
    """
    limit, source, formats = most_pixels(), image, FORMATS
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        facts = path.stat()
        if facts.st_size > _MOST_FILE_BYTES:
            raise _large_file()
        if not stat.S_ISREG(facts.st_mode) and not stat.S_ISDIR(facts.st_mode):
            with path.open("rb") as file:
                source = _read_all(file)
        unsigned = UNSIGNED_FORMATS.get(path.suffix.lower())
        formats += (unsigned,) if unsigned else ()
    elif not isinstance(image, bytes) and not (hasattr(image, "seekable") and image.seekable()):
        source = _read_all(image)
    source = io.BytesIO(source) if isinstance(source, bytes) else source
    with _open(source, formats, limit) as opened:
        pixels = opened.width * opened.height
        if opened.format in ("JPEG", "MPO"):
            _check_jpeg(opened, limit)
            if reduce and pixels > limit:
                _reduce(opened, limit)
        elif pixels > limit:
            raise _too_large(opened, limit)
        yield opened


def _read_all(file: IO[bytes]) -> bytes:
    """Read a pipe, or another file without a size."""
    data = file.read(_MOST_FILE_BYTES + 1)
    if len(data) > _MOST_FILE_BYTES:
        raise _large_file()
    return data


def _large_file() -> _UnusableError:
    return _UnusableError(f"its file has more than {_MOST_FILE_BYTES >> 30} GiB")


def _too_large(image: Image.Image, limit: int) -> _UnusableError:
    megapixels = image.width * image.height / 1e6
    return _UnusableError(
        f"it has more than {limit / 1e6:.0f} megapixels ({image.width:,}×{image.height:,} pixels)",
        f"Make it smaller, or allow it, where there is the memory: "
        f"{LIMIT_VARIABLE}={math.ceil(megapixels)}",
    )


_pillow_lock = threading.Lock()


def _open(source: Any, formats: tuple[str, ...], limit: int) -> Image.Image:
    # Pillow's limit is the whole process's. It is lifted while a header is read, as what may be
    # decoded is decided here; threads do so in turn.
    with _pillow_lock:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return Image.open(source, formats=formats)
        except UnidentifiedImageError:
            return _open_heic(source, formats)
        finally:
            Image.MAX_IMAGE_PIXELS = None if before is None else max(before, limit)


def _open_heic(source: Any, formats: tuple[str, ...]) -> Image.Image:
    """Open what Pillow does not know, or say what it is."""
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            start = file.read(16)
    else:
        source.seek(0)
        start = source.read(16)
        source.seek(0)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        try:
            # Not an import statement: boards need not have the package.
            return importlib.import_module("pillow_heif").HeifImageFile(source)
        except ImportError as error:
            raise _UnusableError(HEIC_NEEDS, "pip install pillow-heif") from error
    for name in formats:
        accept = Image.OPEN[name][1]
        accepted = accept(start) if accept else False
        if isinstance(accepted, str):  # this Pillow was built without the format
            raise _UnusableError(accepted, 'pip install -U "pillow>=11.3"')
        if accepted:
            raise _UnusableError(f"its {name} data are damaged, or of a kind that is not read")
    raise _UnusableError(f"it is not an image of a known format ({', '.join(sorted(FORMATS))})")


_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_LEAST_CODED = 256
"""Pixels in a byte of JPEG data, at most: a block of 64 has two codes, of a bit each or more."""


def _check_jpeg(image: Any, limit: int) -> None:
    """Refuse a JPEG that costs much more time or memory than its pixels do.

    libjpeg holds all coefficients of one that has several scans, at whatever scale it is decoded,
    and goes through them anew for each scan.
    """
    progressive, pixels = "progressive" in image.info, image.width * image.height
    if not progressive and pixels <= limit:
        return
    image.fp.seek(0)
    data = image.fp.read()
    scans = _jpeg_scans(data)
    if len(scans) > _MOST_SCANS:
        raise _UnusableError(f"its JPEG data have more than {_MOST_SCANS} scans")
    if pixels > _HELD_WHOLE * limit and (progressive or scans[:1] != [image.layers]):
        raise _too_large(image, limit)
    if pixels > _LEAST_CODED * len(data) and not progressive:
        raise _UnusableError("it is damaged (its JPEG data are too few for its size)")


def _jpeg_scans(data: bytes) -> list[int]:
    """Return the number of colour components in each scan of a JPEG's first image."""
    scans, position = [], 2
    while (found := _JPEG_MARKER.search(data, position)) and found[1][0] != _JPEG_END:
        position = found.end()
        if found[1][0] == _JPEG_SCAN:
            scans += data[position + 2 : position + 3]
        position += int.from_bytes(data[position : position + 2], "big")
    return scans


def _reduce(image: Image.Image, limit: int) -> None:
    """Let a JPEG be decoded at half, a quarter or an eighth of its size: the first that fits."""
    width, height = image.size
    for scale in (2, 4, 8):
        smaller = max(width // scale, 1), max(height // scale, 1)
        if smaller[0] * smaller[1] <= limit:
            image.draft(None, smaller)
            break
    if (image.width - 1) * (image.height - 1) > limit:
        raise _too_large(image, limit)


def _upright(image: Image.Image) -> Image.Image:
    ImageOps.exif_transpose(image, in_place=True)
    image.load()  # while its file is open
    return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        declared = image.format in ("JPEG2000", "PPM")
        image = Image.fromarray(to_8_bits(np.asarray(image), (16,) if declared else DEPTHS))
    if image.mode == "LAB":
        raise _UnusableError("its colours are CIELAB's, which are not read")
    image.info.pop("transparency", None)  # or Pillow warns that it is lost
    return image if image.mode == "RGB" else image.convert("RGB")


DEPTHS = (8, 10, 12, 14, 16)
"""Bits that whole numbers may be of."""

_AMBIGUOUS = 64
"""Level of 256 that 16-bit colours reach which use their two upper bits."""


def to_8_bits(values: NDArray[Any], depths: Sequence[int] = DEPTHS) -> NDArray[np.uint8]:
    """Scale the values of an image to 0 … 255.

    Cameras of 10, 12 or 14 bits write their values into 16 bits as they are, and neither PNG nor
    TIFF says so. Whole numbers count as being of the fewest bits, of those in ``depths``, that hold
    the image's largest. Floating-point ones are those of black (0) to white (1).

    Raises:
        _UnusableError: They are below 0, or beyond 16 bits or 1.
    """
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        fits, scale, expected = 0 <= low <= high <= 1, 255.0, "floating-point ones of 0 to 1"
    else:
        depth = next((bits for bits in depths if high < 1 << bits), 0)
        fits, scale = low >= 0 and depth > 0, 255 / ((1 << depth) - 1 or 1)
        expected = f"whole numbers of 0 to {(1 << depths[-1]) - 1:,}"
    if not fits:
        raise _UnusableError(
            f"its values are out of range (they go from {low:g} to {high:g}; {expected} are read)",
            "Scale them, and save the image again.",
        )
    scaled = np.empty(values.shape, np.uint8)
    for row, given in enumerate(values):  # whole, they would take eight bytes for each
        scaled[row] = np.rint(given * scale)
    return scaled


def _is_deep(image: Any) -> bool:
    """Return whether an image is of 16-bit colours, of which Pillow keeps the upper bytes alone."""
    return image.mode in ("RGB", "RGBA") and any(_low_bytes(tile) for tile in image.tile)


def _low_bytes(tile: Any) -> Any:
    """Return how Pillow unpacks the lower bytes of 16-bit colours; None for others.

    They are the upper ones in the other byte order.
    """
    settings = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    layout, _, order = str(settings[0]).rpartition(";16")
    if not layout or order not in ("B", "L", "N"):
        return None
    big = order == "B" or (order == "N" and sys.byteorder == "big")
    # Grey and alpha are known in one order alone; their four bytes are as many as RGBA's.
    raw = "RGBA" if layout == "LA" else f"{layout};16{'L' if big else 'B'}"
    args = (raw, *settings[1:]) if isinstance(tile.args, tuple) else raw
    return tile._replace(args=args)


def _scaled(high: Image.Image, source: Any) -> Image.Image:
    """Scale 16-bit colours that leave their upper bits unused."""
    if hasattr(source, "seek"):
        source.seek(0)
    with _opened(source) as opened:
        grey = "LA;16" in str(opened.tile[0].args)
        opened.tile = [_low_bytes(tile) for tile in opened.tile]
        low = np.asarray(_upright(opened))
    low = low[..., 1:2] if grey else low[..., :3]
    return Image.fromarray(to_8_bits(np.asarray(high, np.uint16) << 8 | low))


def _from_pixels(pixels: NDArray[Any]) -> Image.Image:
    """Turn an array into an image.

    Raises:
        ImageError: It has another shape or type.
    """
    shape = pixels.shape
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and shape[2] == 1)
    colours = pixels.ndim == 3 and shape[2] in (3, 4)
    if not pixels.size or not (grey or colours) or pixels.dtype.kind not in "uif":
        found = f"it is {pixels.dtype} {shape}, not uint8 (H, W, 3)"
        raise ImageError("given as an array", found)
    pixels = pixels.reshape(shape[:2]) if grey else pixels[..., :3]
    with _image_errors("given as an array"):
        levels = pixels if pixels.dtype == np.uint8 else to_8_bits(pixels)
    return Image.fromarray(np.ascontiguousarray(levels))
