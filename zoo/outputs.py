"""From a model's outputs to the results that metrics are computed from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitrun.errors import DatasetError, ImageError
from splitrun.image_reading import upright_size

from .datasets import Boxes, Sample
from .metrics import (
    UNLABELLED,
    Result,
    classification_result,
    detection_result,
    segmentation_result,
)
from .spec import ModelSpec


def results_of(spec: ModelSpec, outputs: Any, samples: Sequence[Sample]) -> list[Result]:
    """Return the results of a batch from ``SplitModel.forward``; see :func:`result_of`."""
    if spec.task == "object-detection":
        each = [{name: tensor.cpu().numpy() for name, tensor in f.items()} for f in outputs]
    else:
        each = list(outputs.detach().cpu().float().numpy())
    return [result_of(spec, output, sample) for output, sample in zip(each, samples, strict=True)]


def result_of(spec: ModelSpec, output: Any, sample: Sample) -> Result:
    """Return the result of one image.

    The output is numpy's: logits (classes,) or (classes, H, W) float32; or ``boxes``, ``labels``
    and ``scores``.

    Raises:
        ImageError: The image or its image of class indexes cannot be read.
        DatasetError: The sample has a class that the model lacks.
    """
    truth = sample.target
    if isinstance(truth, int):
        if not 0 <= truth < spec.num_classes:
            raise DatasetError(f"{sample.name} is of class {truth}, which the model lacks.")
        return classification_result(output, truth)
    if isinstance(truth, Boxes):
        boxes = spec.preprocessing.to_image(output["boxes"], *upright_size(sample.path))
        return detection_result({**output, "boxes": boxes}, truth)
    return _segmentation(spec, output, sample, truth)


def _segmentation(
    spec: ModelSpec, logits: NDArray[np.float32], sample: Sample, truth: Path
) -> Result:
    """Compare at the size to which the image was scaled, as in torchvision's evaluation."""
    width, height = spec.preprocessing.scaled_size(*upright_size(sample.path))
    read = read_class_map(truth, spec.num_classes)
    wanted = np.asarray(read.resize((width, height), Image.Resampling.NEAREST))
    classes = logits[:, :height, :width].argmax(0)
    return segmentation_result(classes, wanted, spec.num_classes)


def read_class_map(path: Path, num_classes: int) -> Image.Image:
    """Read an image of class indexes, such as VOC's, which keeps them as a palette's indexes.

    Raises:
        ImageError: The image is missing, damaged, of another kind, or has a class too many.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode not in ("P", "L"):
                raise ImageError(path, f"its pixels are {image.mode}, not class indexes")
            classes = np.asarray(image).astype(np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(path, str(error).lower()) from error
    unknown = classes[(classes >= num_classes) & (classes != UNLABELLED)]
    if unknown.size:
        raise ImageError(path, f"it has class {unknown.max()}; the model has {num_classes} classes")
    return Image.fromarray(classes)
