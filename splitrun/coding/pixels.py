"""Coder of input compression: the image itself on the wire, through an image codec."""

from typing import ClassVar

import numpy as np

from ..images.codecs import codec_of
from .coder import Array, HyperDecoder, Setting, SettingsCoder


class PixelsCoder(SettingsCoder):
    """Codes pixels with an image codec; the payload is the codec's file.

    Args:
        codec: Name of the image codec in ``IMAGE_CODECS``; whether it is available is checked when
            it is first used.
        quality: Quality in the codec's own units.

    Raises:
        TablesError: There is no such codec, or it lacks that quality.
    """

    kind: ClassVar[str] = "pixels"
    lossless: ClassVar[bool] = False
    setting_names: ClassVar[tuple[str, ...]] = ("codec", "quality")

    def __init__(self, codec: str, quality: int) -> None:
        self.codec = codec_of(codec, quality)
        self.quality = quality

    @property
    def channels(self) -> int:
        """Red, green and blue."""
        return 3

    def encode(self, *tensors: Array) -> bytes:
        """Code one image: pixels (3, h, w) uint8, RGB.

        Raises:
            DependencyError: The codec is not available here.
            SplitzooError: It cannot code the image.
        """
        (pixels,) = tensors
        pixels = pixels.astype(np.uint8, casting="safe", copy=False)
        return self.codec.encode(np.ascontiguousarray(pixels.transpose(1, 2, 0)), self.quality)

    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Return the image: pixels (3, height, width) uint8, RGB.

        Raises:
            DependencyError: The codec is not available here.
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        pixels = self.codec.decode(payload, height, width, self.channels)
        return (np.ascontiguousarray(pixels.transpose(2, 0, 1)),)

    def versions(self) -> dict[str, str]:
        """Return the image codec's programs and their versions."""
        return self.codec.versions()

    def settings(self) -> dict[str, Setting]:
        """Return the codec's name and quality."""
        return {"codec": self.codec.name, "quality": self.quality}
