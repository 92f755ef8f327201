"""JPEG, WebP, AVIF and PNG of Pillow, and HEIC of pillow-heif, for pixels of one known size.

Encoders have their libraries' default settings, except for the quality: JPEG and WebP files are
those of ``Image.save(..., quality=quality)``, byte for byte. Files differ between versions of the
libraries; each reads what another wrote.
"""

import importlib
import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import BitstreamError, DependencyError, SplitzooError
from .headers import check_size
from .heif_headers import check_heic

Check = Callable[[bytes, int, int, int], None]
"""Function that raises for data of another form than the encoder writes, or of other height, width
or channels."""

# Exceptions that Pillow's and libheif's readers raise at damaged data.
_DAMAGE = (
    EOFError,
    LookupError,
    MemoryError,
    OSError,  # and with it UnidentifiedImageError
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class PillowCodec:
    """A codec that Pillow has built in.

    Attributes:
        name: Key in ``IMAGE_CODECS``.
        format: Pillow's name of the format.
        max_side: Longest side of an image that it codes, pixels.
        check: Check of data that is to be decoded.
    """

    name: str
    format: str
    max_side: int
    check: Check
    qualities: range = range(101)
    lossless: bool = False

    def available(self) -> str:
        """Return why the codec cannot be used here; empty where it can."""
        Image.init()
        return "" if self.format in Image.SAVE else f"This Pillow was built without {self.format}."

    def encode(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        """Code pixels (H, W, 3) RGB or (H, W) grey, uint8.

        Raises:
            DependencyError: Pillow was built without the codec.
            SplitzooError: The image is larger than the format allows.
        """
        self._require()
        return save(self.name, pixels, self.max_side, self._save, quality)

    def _save(self, image: Image.Image, file: io.BytesIO, quality: int) -> None:
        settings = {} if self.lossless else {"quality": quality}
        image.save(file, format=self.format, **settings)

    def decode(self, data: bytes, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Decode pixels (height, width, 3) for 3 channels, (height, width) for 1, uint8.

        Raises:
            DependencyError: Pillow was built without the codec.
            BitstreamError: The data is not what :meth:`encode` writes for this shape.
        """
        self._require()
        self.check(data, height, width, channels)
        return load(self.name, data, self.format, (height, width), channels)

    def _require(self) -> None:
        if reason := self.available():
            raise DependencyError(reason, next_step='pip install -U "pillow>=11.3"')


@dataclass(frozen=True)
class HeicCodec:
    """HEVC intra coding in a HEIC file, by the optional package pillow-heif."""

    name: str = "heic"
    max_side: int = 1 << 13
    qualities: range = range(101)
    lossless: bool = False

    def available(self) -> str:
        """Return why the codec cannot be used here; empty where it can."""
        try:
            encoder = self._library().libheif_info()["HEIF"]
        except DependencyError as error:
            return error.message
        return "" if encoder else "This pillow-heif was built without an HEVC encoder."

    def _library(self) -> Any:
        try:
            # Not an import statement: boards need not have the package.
            return importlib.import_module("pillow_heif")
        except ImportError as error:
            raise DependencyError(
                "HEIC needs the package pillow-heif, which is not installed.",
                next_step="pip install pillow-heif",
            ) from error

    def encode(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        """Code pixels (H, W, 3) RGB or (H, W) grey, uint8; grey as equal colours.

        Raises:
            DependencyError: pillow-heif is missing, or has no HEVC encoder.
            SplitzooError: The encoder refuses the image's size.
        """
        library = self._library()
        if reason := self.available():
            raise DependencyError(reason, next_step="Install its wheel: pip install -U pillow-heif")

        def write(image: Image.Image, file: io.BytesIO, quality: int) -> None:
            library.from_pillow(image.convert("RGB")).save(file, quality=quality)

        return save(self.name, pixels, self.max_side, write, quality)

    def decode(self, data: bytes, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Decode pixels (height, width, 3) for 3 channels, (height, width) for 1, uint8.

        Raises:
            DependencyError: pillow-heif is missing.
            BitstreamError: The data is not what :meth:`encode` writes for this shape.
        """
        library = self._library()
        check_heic(data, height, width, channels)
        with _damage(self.name):
            file = library.open_heif(io.BytesIO(data))
            if len(file) != 1:
                raise ValueError(f"it shows {len(file)} images")
            # Before its pixels are decoded.
            check_size("HEIC", file.size[::-1], (height, width))
            return as_pixels(file.to_pillow(), (height, width), channels)


def save(
    name: str,
    pixels: NDArray[np.uint8],
    max_side: int,
    write: Callable[[Image.Image, io.BytesIO, int], None],
    quality: int,
) -> bytes:
    """Write pixels (H, W, 3) or (H, W) uint8 with an encoder of Pillow's kind.

    Raises:
        SplitzooError: A side is 0 or above ``max_side``, or the encoder refused the image.
    """
    height, width = sides(name, pixels, max_side)
    file = io.BytesIO()
    try:
        write(Image.fromarray(pixels), file, quality)
    except (OSError, RuntimeError, ValueError) as error:
        raise SplitzooError(
            f"An image of {height}×{width} pixels could not be coded as {name}: {_said(error)}."
        ) from error
    return file.getvalue()


def sides(name: str, pixels: NDArray[np.uint8], max_side: int) -> tuple[int, int]:
    """Return height and width of pixels that are to be coded.

    Raises:
        SplitzooError: One of them is 0 or above ``max_side``.
    """
    height, width = pixels.shape[:2]
    if not 0 < min(height, width) <= max(height, width) <= max_side:
        raise SplitzooError(
            f"An image of {height}×{width} pixels cannot be coded as {name}: sides of 1 to "
            f"{max_side} can."
        )
    return height, width


def load(
    name: str, data: bytes, pillow_format: str, size: tuple[int, int], channels: int
) -> NDArray[np.uint8]:
    """Decode one image with one of Pillow's readers.

    Args:
        name: Name of the codec, for messages.
        data: Coded image.
        pillow_format: Format that it must have, as Pillow calls it.
        size: Height and width that the image must have.
        channels: Number of channels, 3 or 1.

    Returns:
        (height, width, 3) or (height, width) uint8.

    Raises:
        BitstreamError: The data is damaged, or has another format or size.
    """
    with _damage(name), Image.open(io.BytesIO(data), formats=[pillow_format]) as image:
        check_size(pillow_format, image.size[::-1], size)
        return as_pixels(image, size, channels)


def as_pixels(image: Image.Image, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Return a decoded image's pixels; colours become grey, or the reverse, where need be.

    Raises:
        ValueError: It has another size or kind of pixels.
    """
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"its pixels are {image.mode}")
    pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
    expected = size if channels == 1 else (*size, 3)
    if pixels.shape != expected:
        raise ValueError(f"it has {pixels.shape[1]}×{pixels.shape[0]} pixels")
    return pixels


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Map what readers raise to BitstreamError."""
    try:
        yield
    except _DAMAGE as error:
        raise BitstreamError(
            f"The payload's {name} image cannot be decoded: {_said(error)}."
        ) from error


def _said(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not recognised"  # Pillow's message names an object in memory
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
