"""From a segmentation network's logits to the class of each pixel, and each class's share."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError

_MAX_CLASSES = 1 << 16


@dataclass(frozen=True)
class ClassShare:
    """A class, and the part of the image that it covers, from 0 to 1."""

    index: int
    label: str
    share: float


def class_map(
    logits: NDArray[np.float32], area: tuple[int, int] | None = None
) -> NDArray[np.uint8 | np.uint16]:
    """Return the most probable class of each pixel.

    Args:
        logits: (1, classes, H, W) float32, of at most 65,536 classes.
        area: Height and width of the part of the model's input, from its top left, that is the
            image; by default the whole input.

    Returns:
        (H, W) uint8, above 256 classes uint16, or of the area's size.

    Raises:
        BundleError: The logits have another shape, or too many classes.
    """
    if logits.ndim != 4 or logits.shape[0] != 1 or not 1 <= logits.shape[1] <= _MAX_CLASSES:
        raise BundleError(
            f"The logits have the shape {logits.shape}, not (1, at most {_MAX_CLASSES:,}, H, W)."
        )
    height, width = area or logits.shape[2:]
    dtype = np.uint8 if logits.shape[1] <= 1 << 8 else np.uint16
    return logits[0, :, :height, :width].argmax(axis=0).astype(dtype)


def class_shares(classes: NDArray[np.integer[Any]], labels: list[str]) -> list[ClassShare]:
    """Return the classes of a map (H, W) with the part of it that each covers, largest first."""
    counts = np.bincount(classes.reshape(-1))
    if counts.size > len(labels):
        raise BundleError(f"The bundle has {len(labels)} labels; class {counts.size - 1} none.")
    order = np.argsort(-counts, kind="stable")
    return [
        ClassShare(int(index), labels[index], float(counts[index] / classes.size))
        for index in order[: np.count_nonzero(counts)]
    ]
