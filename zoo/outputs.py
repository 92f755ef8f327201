"""From a model's outputs to what is scored of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splitrun.errors import DatasetError, ImageError
from splitrun.preprocessing import Preprocessing, upright_size

from .datasets import Boxes, Sample
from .metrics import Result, classification_result, detection_result, segmentation_result
from .spec import ModelSpec


def results_of(spec: ModelSpec, outputs: Any, samples: Sequence[Sample]) -> list[Result]:
    """Return what is scored of a batch of a model's outputs.

    Args:
        spec: Of the model.
        outputs: As ``SplitModel.forward`` gives them.
        samples: That they are of, in their order.

    Raises:
        ImageError: An image or an image of class indexes cannot be read.
        DatasetError: The data set has a class that the model does not.
    """
    if spec.task == "object-detection":
        each = [{name: one.cpu().numpy() for name, one in found.items()} for found in outputs]
    else:
        each = list(outputs.detach().cpu().float().numpy())
    return [result_of(spec, output, sample) for output, sample in zip(each, samples, strict=True)]


def result_of(spec: ModelSpec, output: Any, sample: Sample) -> Result:
    """Return what is scored of one image's output, as numpy arrays.

    Args:
        spec: Of the model.
        output: Logits (classes,) or (classes, H, W) float32; or ``boxes``, ``labels``, ``scores``.
        sample: That it is of.
    """
    if isinstance(sample.target, int):
        if not 0 <= sample.target < spec.num_classes:
            raise DatasetError(f"{sample.name} is of class {sample.target}; the model has none.")
        return classification_result(output, sample.target)
    if isinstance(sample.target, Boxes):
        return _detection(spec.preprocessing, output, sample, sample.target)
    return _segmentation(spec, output, sample, sample.target)


def _detection(
    preprocessing: Preprocessing, found: dict[str, NDArray[Any]], sample: Sample, truth: Boxes
) -> Result:
    boxes = preprocessing.to_image(found["boxes"], *upright_size(sample.path))
    return detection_result({**found, "boxes": boxes}, truth)


def _segmentation(
    spec: ModelSpec, logits: NDArray[np.float32], sample: Sample, truth: Path
) -> Result:
    """Compare at the size to which the image was scaled, as torchvision's evaluation does."""
    width, height = spec.preprocessing.scaled_size(*upright_size(sample.path))
    wanted = np.asarray(read_class_map(truth).resize((width, height), Image.Resampling.NEAREST))
    known = (wanted < spec.num_classes) | (wanted == 255)
    if not known.all():
        raise DatasetError(
            f"{truth} has class {int(wanted[~known].max())}; the model has {spec.num_classes}."
        )
    classes = logits[:, :height, :width].argmax(0)
    return segmentation_result(classes, wanted, spec.num_classes)


def read_class_map(path: Path) -> Image.Image:
    """Read an image of class indexes, such as VOC's, whose colours are indexes of a palette.

    Raises:
        ImageError: It is missing, damaged, or of another kind.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode not in ("P", "L"):
                raise ImageError(path, f"its pixels are {image.mode}, not class indexes")
            return Image.fromarray(np.asarray(image).astype(np.uint8))
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(path, str(error).lower()) from error
