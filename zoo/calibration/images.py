"""Images to calibrate with: which are drawn, which are held out, and how few are too few."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from splitrun.errors import CalibrationError, ImageError
from splitrun.image_files import Unread, UnreadCount, count_unread, find_some_images
from splitrun.signals import check_stopped

from ...progress import SILENT, Progress

T = TypeVar("T")

MOST_IMAGES = 384
LEAST_IMAGES = 8
RECOMMENDED_IMAGES = 100
"""Number of images from which on more change little, measured in ``docs/guides/calibrate.md``."""
_HELD_OUT = 4
"""Every how many images one is held out: not fitted to, but compared on."""


@dataclass(frozen=True)
class DrawnImages(Generic[T]):
    """Images of a folder, in random order, and what was made of each.

    Attributes:
        used: What was made of each image that can be read.
        unread: Numbers of files that are not read, by reason and ending.
        warnings: What speaks against relying on the images, in words.
    """

    used: dict[Path, T]
    unread: list[UnreadCount]
    warnings: tuple[str, ...]


def draw_images(
    folder: Path,
    use: Callable[[Path], T],
    *,
    most: int = MOST_IMAGES,
    recommended: int = RECOMMENDED_IMAGES,
    progress: Progress = SILENT,
) -> DrawnImages[T]:
    """Draw images from a folder at random, with a fixed seed, and make something of each.

    Args:
        use: Function that reads an image; those for which it raises ``ImageError`` are left out.
        recommended: Number of images below which there is a warning.
        progress: Progress, told of each image, of what is not read, and of warnings.

    Raises:
        ImageError: The folder does not exist, or holds no image.
        CalibrationError: Fewer than 8 can be read.
    """
    found = find_some_images(folder)
    chosen = sorted(random.Random(0).sample(found.images, min(most, len(found.images))))
    # Which ones are held out must not follow from the folders that they are sorted by.
    random.Random(1).shuffle(chosen)
    used: dict[Path, T] = {}
    broken: list[Unread] = []
    for path in progress.track(chosen, "images"):
        check_stopped()
        try:
            used[path] = use(path)
        except ImageError as error:
            broken.append(Unread(path.name, error.reason))
    unread = count_unread([*found.unread, *broken])
    for count in unread:
        progress.note(f"not read: {count}")
    if len(used) < LEAST_IMAGES:
        unusable = f", {len(broken)} of them unusable" if broken else ""
        images = "1 image" if len(chosen) == 1 else f"{len(chosen)} images"
        raise CalibrationError(
            f"{folder} has {images}{unusable}: calibration takes {LEAST_IMAGES} at least, and "
            f"{RECOMMENDED_IMAGES} or more are recommended.",
            next_step="Give images like those that the camera will see.",
        )
    warnings = ()
    if len(used) < recommended:
        fitted, held_out = parted(list(used))
        warnings = (
            f"{len(used)} images are few: {recommended} or more, like those that the camera "
            f"will see, are recommended. {len(fitted)} were fitted to and {len(held_out)} compared "
            "on, so that others may come out worse than is said",
        )
    for warning in warnings:
        progress.note(f"warning: {warning}.")
    return DrawnImages(used, unread, warnings)


def parted(images: Sequence[T]) -> tuple[list[T], list[T]]:
    """Return the images that are fitted to, and those that are held out to compare on."""
    fitted = [image for number, image in enumerate(images) if number % _HELD_OUT]
    return fitted, list(images[::_HELD_OUT])
