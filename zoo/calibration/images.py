"""Images to calibrate with: which are drawn, which are held out, and how few are too few."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from splitrun.errors import CalibrationError
from splitrun.image_files import list_images

T = TypeVar("T")

MOST_IMAGES = 384
LEAST_IMAGES = 8
_HELD_OUT = 4
"""Every how many images one is held out: not fitted to, but compared on."""


def choose(folder: Path, most: int = MOST_IMAGES) -> list[Path]:
    """Draw images from a folder at random, with a fixed seed, in random order.

    Raises:
        ImageError: The folder does not exist, or holds no image.
    """
    found = list_images(folder)
    chosen = sorted(random.Random(0).sample(found, min(most, len(found))))
    # Which ones are held out must not follow from the folders that they are sorted by.
    random.Random(1).shuffle(chosen)
    return chosen


def check_enough(folder: Path, chosen: int, usable: int) -> None:
    """Check that enough images of a folder can be read.

    Raises:
        CalibrationError: There are too few.
    """
    if usable >= LEAST_IMAGES:
        return
    broken = chosen - usable
    unusable = f", {broken} of them unusable" if broken else ""
    images = "1 image" if chosen == 1 else f"{chosen} images"
    raise CalibrationError(
        f"{folder} has {images}{unusable}: calibration takes {LEAST_IMAGES} at "
        "least, and some hundred are better.",
        next_step="Give images like those that the camera will see.",
    )


def parted(images: Sequence[T]) -> tuple[list[T], list[T]]:
    """Return the images that are fitted to, and those that are held out to compare on."""
    fitted = [image for number, image in enumerate(images) if number % _HELD_OUT]
    return fitted, list(images[::_HELD_OUT])
