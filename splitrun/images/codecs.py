"""The registry of image codecs, for images and for features laid out as images."""

from ..errors import TablesError, UnknownNameError
from ..registry import Registry
from .base import ImageCodec
from .external_codecs import BpgCodec, VtmCodec
from .headers import check_jpeg, check_png, check_webp
from .heif_headers import check_avif
from .pillow_codecs import HeicCodec, PillowCodec

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


def codec_of(name: str | int, quality: str | int) -> ImageCodec:
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
