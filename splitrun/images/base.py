"""What every image codec offers, and the errors for images that one cannot code or decode."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import BitstreamError, SplitzooError
from ..image_reading import DAMAGE

_DAMAGE = (*DAMAGE, OSError, Image.DecompressionBombError)


class ImageCodec(ABC):
    """Turns pixels into bytes and back, losing some of them.

    Attributes:
        name: Key in ``IMAGE_CODECS``.
        max_side: Longest side of an image that it codes, pixels.
        qualities: Qualities in the codec's own units, from the smallest files to the largest.
        lossless: Whether pixels come back as they were.
    """

    name: str
    max_side: int
    qualities: range = range(101)
    lossless: bool = False

    @abstractmethod
    def available(self) -> str:
        """Return why the codec cannot be used here; empty where it can."""

    def versions(self) -> dict[str, str]:
        """Return the programs outside Python that code here, and their versions, for records."""
        return {}

    def encode(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        """Code pixels (H, W, 3) RGB or (H, W) grey, uint8; some code grey as equal colours.

        Raises:
            DependencyError: The codec is not available.
            SplitzooError: It cannot code the image.
        """
        height, width = pixels.shape[:2]
        if not 0 < min(height, width) <= max(height, width) <= self.max_side:
            raise SplitzooError(
                f"An image of {height}×{width} pixels cannot be coded as {self.name}: sides of 1 "
                f"to {self.max_side} can."
            )
        try:
            return self._encode(Image.fromarray(pixels), quality)
        except (OSError, RuntimeError, ValueError) as error:
            raise SplitzooError(
                f"An image of {height}×{width} pixels could not be coded as {self.name}: "
                f"{_said(error)}."
            ) from error

    def decode(self, data: bytes, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Decode pixels (height, width, 3) for 3 channels, (height, width) for 1, uint8.

        Raises:
            DependencyError: The codec is not available.
            BitstreamError: The data is not what :meth:`encode` writes for this shape.
        """
        try:
            image = self._decode(data, height, width, channels)
            if image.mode not in ("L", "RGB"):
                raise ValueError(f"its pixels are {image.mode}")
            pixels = np.array(image.convert("L" if channels == 1 else "RGB"))
            if pixels.shape[:2] != (height, width):
                raise ValueError(f"it has {pixels.shape[1]}×{pixels.shape[0]} pixels")
        except _DAMAGE as error:
            raise BitstreamError(
                f"The payload's {self.name} image cannot be decoded: {_said(error)}."
            ) from error
        return pixels

    @abstractmethod
    def _encode(self, image: Image.Image, quality: int) -> bytes: ...

    @abstractmethod
    def _decode(self, data: bytes, height: int, width: int, channels: int) -> Image.Image:
        """Check that data has the form and size that are expected, then open it."""


def _said(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not recognised"  # Pillow's message names an object in memory
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
