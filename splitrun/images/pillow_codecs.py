"""JPEG, WebP, AVIF and PNG of Pillow, and HEIC of pillow-heif, for pixels of one known size.

Encoders have their libraries' default settings, except for the quality: JPEG and WebP files are
those of ``Image.save(..., quality=quality)``, byte for byte. Files differ between versions of the
libraries; each reads what another wrote.
"""

import importlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..errors import DependencyError
from .base import ImageCodec
from .headers import check_size
from .heif_headers import check_heic


@dataclass(frozen=True)
class PillowCodec(ImageCodec):
    """A codec that Pillow has built in.

    Attributes:
        format: Pillow's name of the format.
        check: Function that raises for data of another form than the encoder writes, or of other
            height, width or channels.
    """

    name: str
    format: str
    max_side: int
    check: Callable[[bytes, int, int, int], None]
    qualities: range = range(101)
    lossless: bool = False

    def available(self) -> str:
        """Return why the codec cannot be used here; empty where it can."""
        Image.init()
        return "" if self.format in Image.SAVE else f"This Pillow was built without {self.format}."

    def _encode(self, image: Image.Image, quality: int) -> bytes:
        self._require()
        file = io.BytesIO()
        settings = {} if self.lossless else {"quality": quality}
        image.save(file, format=self.format, **settings)
        return file.getvalue()

    def _decode(self, data: bytes, height: int, width: int, channels: int) -> Image.Image:
        self._require()
        self.check(data, height, width, channels)
        return open_image(data, self.format, height, width)

    def _require(self) -> None:
        if reason := self.available():
            raise DependencyError(reason, next_step='pip install -U "pillow>=11.3"')


class HeicCodec(ImageCodec):
    """HEVC intra coding in a HEIC file, by the optional package pillow-heif."""

    name = "heic"
    max_side = 1 << 13

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

    def _encode(self, image: Image.Image, quality: int) -> bytes:
        library, file = self._library(), io.BytesIO()
        if reason := self.available():
            raise DependencyError(reason, next_step="Install its wheel: pip install -U pillow-heif")
        library.from_pillow(image.convert("RGB")).save(file, quality=quality)
        return file.getvalue()

    def _decode(self, data: bytes, height: int, width: int, channels: int) -> Image.Image:
        library = self._library()
        check_heic(data, height, width, channels)
        file = library.open_heif(io.BytesIO(data))
        if len(file) != 1:
            raise ValueError(f"it shows {len(file)} images")
        # Before its pixels are decoded.
        check_size("HEIC", file.size[::-1], (height, width))
        return file.to_pillow()


def open_image(data: bytes, pillow_format: str, height: int, width: int) -> Image.Image:
    """Open an image of one format with Pillow's reader; its pixels are not decoded yet.

    Raises:
        BitstreamError: It has another size.
    """
    image = Image.open(io.BytesIO(data), formats=[pillow_format])
    check_size(pillow_format, image.size[::-1], (height, width))
    return image
