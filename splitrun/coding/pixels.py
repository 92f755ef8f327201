"""Input compression: the image itself on the wire, through an image codec."""

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ..errors import TablesError
from ..images.codecs import codec_of
from .coder import Array, Coder, Hyper, Setting


class PixelsCoder(Coder):
    """Codes pixels with an image codec; the payload is the codec's file.

    Args:
        codec: Its name in ``IMAGE_CODECS``. It is looked for when first used, not here.
        quality: In the codec's own units.

    Raises:
        TablesError: There is no such codec, or it lacks that quality.
    """

    kind: ClassVar[str] = "pixels"
    lossless: ClassVar[bool] = False
    takes: ClassVar[int] = 1
    gives: ClassVar[int] = 1
    needs_hyper: ClassVar[bool] = False

    def __init__(self, codec: str, quality: int) -> None:
        self.codec = codec_of(codec, quality)
        self.quality = quality

    @property
    def channels(self) -> int:
        """Red, green and blue."""
        return 3

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return the image's height and width."""
        (pixels,) = tensors
        return pixels.shape[1], pixels.shape[2]

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
        self, payload: bytes, height: int, width: int, hyper: Hyper | None = None
    ) -> tuple[Array, ...]:
        """Return the image: pixels (3, height, width) uint8, RGB.

        Args:
            payload: From :meth:`encode`.
            height: Of the image.
            width: Likewise.
            hyper: Not needed.

        Raises:
            DependencyError: The codec is not available here.
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        pixels = self.codec.decode(payload, height, width, self.channels)
        return (np.ascontiguousarray(pixels.transpose(2, 0, 1)),)

    def digest(self) -> bytes:
        """Return the SHA-256 of kind and settings."""
        return hashlib.sha256(f"{self.kind} {self.codec.name} {self.quality}".encode()).digest()

    def settings(self) -> dict[str, Setting]:
        """Return the codec's name and quality."""
        return {"codec": self.codec.name, "quality": self.quality}

    def arrays(self) -> dict[str, Array]:
        """Return nothing: there are no tables."""
        return {}

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return no names."""
        return ()

    @classmethod
    def from_parts(
        cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> "PixelsCoder":
        """Make a coder from its settings.

        Raises:
            TablesError: They are not those of a codec.
        """
        if set(settings) != {"codec", "quality"} or arrays:
            raise TablesError("The settings of a pixels coder are codec and quality.")
        return cls(**settings)  # pyright: ignore  # types are checked there
