"""The registry of image codecs, for images and for features laid out as images."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..coding.coder import Setting
from ..errors import TablesError, UnknownNameError
from ..registry import Registry
from .external_codecs import BpgCodec, VtmCodec
from .headers import check_jpeg, check_png, check_webp
from .heif_headers import check_avif
from .pillow_codecs import HeicCodec, PillowCodec


class ImageCodec(Protocol):
    """Turns pixels into bytes and back, losing some of them."""

    @property
    def name(self) -> str:
        """Key in ``IMAGE_CODECS``."""
        ...

    @property
    def max_side(self) -> int:
        """Longest side of an image that it codes, pixels."""
        ...

    @property
    def qualities(self) -> range:
        """Qualities in the codec's own units, from the smallest files to the largest."""
        ...

    @property
    def lossless(self) -> bool:
        """Whether pixels come back as they were."""
        ...

    def available(self) -> str:
        """Return why the codec cannot be used here; empty where it can."""
        ...

    def encode(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        """Code pixels (H, W, 3) RGB or (H, W) grey, uint8.

        Raises:
            DependencyError: The codec is not available.
            SplitzooError: It cannot code the image.
        """
        ...

    def decode(self, data: bytes, height: int, width: int, channels: int) -> NDArray[np.uint8]:
        """Decode pixels (height, width, 3) for 3 channels, (height, width) for 1, uint8.

        Raises:
            DependencyError: The codec is not available.
            BitstreamError: The data is not what :meth:`encode` writes for this shape.
        """
        ...


IMAGE_CODECS: Registry[ImageCodec] = Registry("image codec")

for _codec in (
    # libjpeg's own limit; the format's is 65,535.
    PillowCodec("jpeg", "JPEG", 65_500, check_jpeg),
    PillowCodec("webp", "WEBP", 16_383, check_webp),
    # libavif's limit.
    PillowCodec("avif", "AVIF", 1 << 15, check_avif),
    # Its one quality keeps all.
    PillowCodec("png", "PNG", 1 << 15, check_png, qualities=range(100, 101), lossless=True),
    HeicCodec(),
    BpgCodec(),
    VtmCodec(),
):
    IMAGE_CODECS.register(_codec.name, _codec)


def codec_of(name: Setting, quality: Setting) -> ImageCodec:
    """Return an image codec by its settings, which may come from a hostile manifest.

    The codec need not be available here.

    Raises:
        TablesError: There is no such codec, or it lacks that quality.
    """
    try:
        codec = IMAGE_CODECS.get(str(name))
    except UnknownNameError as error:
        raise TablesError(error.message, next_step=error.next_step) from error
    if type(quality) is not int or quality not in codec.qualities:
        raise TablesError(
            f"{codec.name} has no quality {quality!r}: it goes from {codec.qualities[0]} (the "
            f"smallest files) to {codec.qualities[-1]}."
        )
    return codec
