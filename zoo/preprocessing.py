"""From an image file to the model's input, as torchvision's evaluation transforms do it.

Bilinear pixels are torchvision's to within 1 of 255: both round between the two passes of a resize,
but here the passes see the cropped part alone.

numpy and Pillow alone: the same code runs in the zoo and on the board.
"""

import math
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ..errors import ImageError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
IMAGE_FORMATS = tuple(
    str(plugin.format)
    for plugin in (
        BmpImagePlugin.BmpImageFile,
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        PpmImagePlugin.PpmImageFile,
        TiffImagePlugin.TiffImageFile,
        WebPImagePlugin.WebPImageFile,
    )
)
"""What is read. Pillow knows more, among them formats that it hands to other programs."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, cut out the centre, scale to [0, 1] and normalise.

    Attributes:
        resize: Length of the shorter side after resizing, pixels.
        crop: Height and width of the centre crop, pixels; the model's input.
        interpolation: ``"bilinear"`` or ``"bicubic"``, with antialiasing.
        mean: Per channel (red, green, blue), of values in [0, 1].
        std: Likewise.
    """

    resize: int
    crop: tuple[int, int]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation {self.interpolation!r}, not bilinear or bicubic")
        if any(type(size) is not int for size in (self.resize, *self.crop)) or len(self.crop) != 2:
            raise ValueError("resize and crop are not whole numbers of pixels")
        if not 0 < min(self.crop) <= max(self.crop) <= self.resize <= 1 << 14:
            raise ValueError(f"a crop of {self.crop} out of a shorter side of {self.resize}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError("mean and std are not three numbers each")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError("mean and std are not finite, or a std is not above 0")

    def load(self, path: Path | str) -> NDArray[np.float32]:
        """Read an image file into the model's input.

        The picture is turned as its EXIF tag says. Alpha is dropped, grey, palette and CMYK
        pictures become RGB, 16 bits become 8.

        Returns:
            (1, 3, crop height, crop width) float32, normalised.

        Raises:
            ImageError: The file is missing, no image, truncated, or has more than 89 megapixels.
        """
        with _image_errors(path), Image.open(path, formats=IMAGE_FORMATS) as image:
            return self.normalise(self.pixels(_upright_rgb(image)))

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an RGB picture and cut out the centre.

        Only the part that the crop keeps is resized, so a picture 20,000 pixels wide costs no more
        than a square one.

        Returns:
            (crop height, crop width, 3) uint8.
        """
        width, height = image.size
        # torchvision truncates the longer side; Python's round() is its rule for the offset.
        new_width = self.resize if width <= height else int(self.resize * width / height)
        new_height = self.resize if height <= width else int(self.resize * height / width)
        crop_height, crop_width = self.crop
        left = round((new_width - crop_width) / 2.0)
        top = round((new_height - crop_height) / 2.0)
        x, y = width / new_width, height / new_height
        resample = Image.Resampling[self.interpolation.upper()]
        box = (left * x, top * y, (left + crop_width) * x, (top + crop_height) * y)
        return np.asarray(image.resize((crop_width, crop_height), resample, box=box))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn pixels (H, W, 3) uint8 into the model's input (1, 3, H, W) float32."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = (pixels.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


# What Pillow's readers raise at damaged files, beside OSError.
_DAMAGE = (
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


def list_images(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted by path.

    Raises:
        ImageError: The folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise ImageError(folder, "it is not a folder")
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )
    if not found:
        raise ImageError(folder, "no file in it has the name of an image")
    return found


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its values are floating-point, of no known range")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey values to 255 instead of scaling them.
        grey = np.asarray(image, np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError("its values do not fit into 16 bits")
        image = Image.fromarray(np.rint(grey / 257).astype(np.uint8))
    image.info.pop("transparency", None)  # or Pillow warns that it is lost
    return image.convert("RGB")


@contextmanager
def _image_errors(path: Path | str) -> Iterator[None]:
    """Map what Pillow and the file system raise to ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except UnidentifiedImageError as error:
        known = ", ".join(IMAGE_FORMATS)
        raise ImageError(path, f"it is not an image of a known format ({known})") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(path, "it has more than 89 megapixels") from error
    except OSError as error:
        raise ImageError(path, (error.strerror or str(error)).lower()) from error
    except _DAMAGE as error:
        raise ImageError(path, f"it is damaged ({error})") from error
