"""Turn an image into the model's input, as torchvision's evaluation transforms do it.

Bilinear pixels are torchvision's to within 1 of 255: both round between the two passes of a resize,
but here the passes see the cropped part alone.

numpy and Pillow alone: the same code runs in the zoo and on the board.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .image_reading import AnyImage, read_rgb


@dataclass(frozen=True)
class Preprocessing:
    """Resize, fit into the model's input, scale to [0, 1] and normalise.

    ``fit`` says how an image of any shape becomes an input of one shape:

    - ``"crop"``: the shorter side is resized to ``resize``, and the centre cut out.
    - ``"pad"``: the image is scaled as a whole, so that its shorter side has ``resize`` pixels if
      its longer one then has at most ``longest`` and it lies inside the input, else as large as
      that allows. It lies at the top left; the rest is padding.

    torchvision's detectors take each image at its own shape. An input of one shape holds a
    landscape image at the same scale, but a portrait one only at the scale that its height
    leaves: 480×640 goes into 800×1344 as 600×800, where torchvision makes it 800×1066.

    Attributes:
        resize: Length of the shorter side after resizing, pixels.
        crop: Height and width of the model's input, pixels.
        interpolation: ``"bilinear"`` or ``"bicubic"``, with antialiasing.
        mean: Mean per channel (red, green, blue), of values in [0, 1].
        std: Standard deviation per channel, of values in [0, 1].
        fit: ``"crop"`` or ``"pad"``.
        longest: Bound of the longer side after resizing, pixels, where ``fit`` is ``"pad"``; 0
            where the input's own sides are the bound.
        padding: Value of the padding per channel, after normalisation, where ``fit`` is ``"pad"``.
    """

    resize: int
    crop: tuple[int, int]
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: str = "crop"
    longest: int = 0
    padding: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation {self.interpolation!r}, not bilinear or bicubic")
        if self.fit not in ("crop", "pad"):
            raise ValueError(f"fit {self.fit!r}, not crop or pad")
        sizes = (self.resize, self.longest, *self.crop)
        if any(type(size) is not int for size in sizes) or len(self.crop) != 2:
            raise ValueError("resize, crop and longest are not whole numbers of pixels")
        fits = min(self.resize, *self.crop) >= 1 and 0 <= min(sizes) <= max(sizes) <= 1 << 14
        if not fits or (self.fit == "crop" and max(self.crop) > self.resize):
            raise ValueError(f"a crop of {self.crop} out of a shorter side of {self.resize}")
        if not len(self.mean) == len(self.std) == len(self.padding) == 3:
            raise ValueError("mean, std and padding are not three numbers each")
        values = (*self.mean, *self.std, *self.padding)
        if not all(map(math.isfinite, values)) or min(self.std) <= 0:
            raise ValueError("mean, std and padding are not finite, or a std is not above 0")

    def load(self, image: AnyImage) -> NDArray[np.float32]:
        """Turn an image into the model's input; :mod:`.image_reading` says how it is read.

        Several threads may call it.

        Args:
            image: Path of an image file, its content as bytes, an open file, a Pillow image, or
                pixels, RGB (H, W, 3) uint8 or grey (H, W).

        Returns:
            (1, 3, crop height, crop width) float32, normalised.

        Raises:
            ImageError: The image is missing, none, damaged, or too large.
        """
        values = self.normalise(self.pixels(read_rgb(image)))
        return self.padded(values) if self.fit == "pad" else values

    def summary(self) -> str:
        """Say in words what happens to an image's size."""
        height, width = self.crop
        if self.fit == "pad":
            fitted = f"within {height}×{width}, padded right and below"
        else:
            fitted = f"centre crop {height}×{width}"
        return f"shorter side to {self.resize}, {self.interpolation}, {fitted}"

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize an RGB image and, where ``fit`` is ``"crop"``, cut out the centre.

        Only the part that the crop keeps is resized, so an image 20,000 pixels wide costs no more
        than a square one.

        Returns:
            (crop height, crop width, 3) uint8; where ``fit`` is ``"pad"``, the image without its
            padding, (height, width, 3).
        """
        width, height = image.size
        new_width, new_height = self.scaled_size(width, height)
        kept_height, kept_width = (new_height, new_width) if self.fit == "pad" else self.crop
        left, top = self._corner(new_width, new_height)
        x, y = width / new_width, height / new_height
        resample = Image.Resampling[self.interpolation.upper()]
        box = (left * x, top * y, (left + kept_width) * x, (top + kept_height) * y)
        return np.asarray(image.resize((kept_width, kept_height), resample, box=box))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn pixels (H, W, 3) uint8 into values (1, 3, H, W) float32."""
        # A byte has 256 values: each is worked out once, not for every pixel.
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        values = np.empty((1, 3, *pixels.shape[:2]), np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            table = (levels - np.float32(mean)) / np.float32(std)
            np.take(table, pixels[:, :, channel], out=values[0, channel], mode="clip")
        return values

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height of an image after resizing, pixels, before any crop.

        Where ``fit`` is ``"pad"``, this part of the input, from its top left, is the image.
        """
        shorter, longer = min(width, height), max(width, height)
        if self.fit == "crop":
            # torchvision truncates the longer side.
            long_side = int(self.resize * longer / shorter)
            return (self.resize, long_side) if width <= height else (long_side, self.resize)
        scale = min(self.resize / shorter, self.crop[0] / height, self.crop[1] / width)
        if self.longest:
            scale = min(scale, self.longest / longer)
        # Truncated after the product, as torchvision does: 97 pixels times 800 / 97 are 799.
        return max(int(width * scale), 1), max(int(height * scale), 1)

    def to_image(self, boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
        """Map boxes on the model's input back to the image that was loaded.

        Args:
            boxes: (D, 4) float32, x0, y0, x1, y1 in pixels of the input.
            width: Width of the image, upright, pixels.
            height: Height of the image, upright, pixels.

        Returns:
            (D, 4) float32 in pixels of the image, clipped to it.
        """
        new_width, new_height = self.scaled_size(width, height)
        corner = np.array(self._corner(new_width, new_height) * 2, np.float32)
        ratio = np.array((width / new_width, height / new_height) * 2, np.float32)
        limit = np.array((width, height) * 2, np.float32)
        return np.clip((boxes + corner) * ratio, 0, limit)

    def _corner(self, new_width: int, new_height: int) -> tuple[int, int]:
        """Return x and y, in the resized image, of the input's top left pixel."""
        if self.fit == "pad":
            return 0, 0
        crop_height, crop_width = self.crop
        # Python's round() is torchvision's rule for the offset.
        return round((new_width - crop_width) / 2.0), round((new_height - crop_height) / 2.0)

    def padded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lay a normalised image (1, 3, h, w) at the top left of the model's input, float32."""
        canvas = np.empty((1, 3, *self.crop), np.float32)
        canvas[...] = np.array(self.padding, np.float32)[:, None, None]
        canvas[:, :, : values.shape[2], : values.shape[3]] = values
        return canvas
