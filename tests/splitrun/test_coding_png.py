"""PNG: what loses nothing, and what it refuses."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from splitrun.coding.pixels import PixelsCoder
from splitrun.errors import BitstreamError, TablesError
from splitrun.images.codecs import IMAGE_CODECS


def made_image(height, width):
    """Noise: (height, width, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def planes(height, width):
    return np.ascontiguousarray(made_image(height, width).transpose(2, 0, 1))


def saved(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1), (65, 130)])
def test_png_loses_nothing(shape):
    coder = PixelsCoder("png", 100)
    pixels = planes(*shape)
    (decoded,) = coder.decode(coder.encode(pixels), *shape)
    np.testing.assert_array_equal(decoded, pixels, strict=True)
    grey = pixels[0]
    codec = IMAGE_CODECS.get("png")
    np.testing.assert_array_equal(codec.decode(codec.encode(grey, 100), *shape, 1), grey)
    with pytest.raises(TablesError, match="png has no quality 90"):
        PixelsCoder("png", 90)


def test_png_of_another_form_is_refused_before_it_is_decoded():
    coder = PixelsCoder("png", 100)
    good = coder.encode(planes(16, 24))
    header = good.index(b"IHDR")
    for change in (
        good[:20],
        good[:-1],
        good + b"\0",
        good[: header + 4] + struct.pack(">I", 1 << 30) + good[header + 8 :],
        good[: header + 16] + b"\x01" + good[header + 17 :],  # interlaced, or of other colours
        saved(made_image(16, 24), format="PNG", pnginfo=_text()),
        saved(made_image(16, 24)[..., 0], format="PNG"),
    ):
        with pytest.raises(BitstreamError):
            coder.decode(change, 16, 24)
    with pytest.raises(BitstreamError, match="claims 16×24"):
        coder.decode(good, 24, 16)


def _text():
    info = PngInfo()
    info.add_text("comment", "x" * 1000, zip=True)
    return info
