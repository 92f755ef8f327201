"""What the pages share: lines of tables, the machine they were made on, and synthetic images."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from splitrun.machine import machine
from splitrun.preprocessing import Preprocessing
from splitzoo.export.recording import seeded_image

_FIRST = 1 << 16
"""Seed of the first synthetic image; the images of the parity check have smaller seeds."""


def made_here() -> str:
    """Return this machine's processor, and whether it computes bf16, for a page's foot."""
    env = machine()
    text = f"on {env['cpu']} ({env['instructions']})"
    if "BF16" not in env["instructions"]:
        text += ", which has no bf16: OpenVINO computes in fp32 instead"
    return text


def table_line(cells: Iterable[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def write_images(preprocessing: Preprocessing, folder: Path, count: int) -> None:
    """Write synthetic images with a natural spectrum, of a model's input size, as PNG files.

    Args:
        preprocessing: Preprocessing of the model.
        folder: Folder to write into; it exists.
        count: Number of images.
    """
    mean, std = (
        np.reshape(values, (3, 1, 1)) for values in (preprocessing.mean, preprocessing.std)
    )
    for number in range(count):
        values = seeded_image(preprocessing, _FIRST + number)[0] * std + mean
        pixels = np.rint(255 * values).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:03}.png")
