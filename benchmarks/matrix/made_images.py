"""Made images as files, for commands that take a folder of images where there is none."""

from pathlib import Path

import numpy as np
from PIL import Image

from splitrun.preprocessing import Preprocessing
from splitzoo.export.recording import seeded_image

_FIRST = 1 << 16
"""Seed of the first: those of the images that parity is checked on are smaller."""


def write_images(preprocessing: Preprocessing, folder: Path, count: int) -> None:
    """Write PNG files of images with the spectrum of images, as large as a model's input.

    Args:
        preprocessing: Of the model.
        folder: That exists.
        count: Of the files.
    """
    mean, std = (np.reshape(one, (3, 1, 1)) for one in (preprocessing.mean, preprocessing.std))
    for number in range(count):
        values = seeded_image(preprocessing, _FIRST + number)[0] * std + mean
        pixels = np.rint(255 * values).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:03}.png")
