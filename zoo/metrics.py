"""Accuracy: top-1 and top-5, mean average precision, mean intersection over union.

A result is what is kept of one image, small and free of torch, so that an evaluation can be
interrupted and continued, and processes can exchange theirs.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from splitrun.errors import DependencyError

from .bottleneck_specs import Finite, Part
from .datasets import Boxes
from .kinds import Task

TOP = 5
UNLABELLED = 255
"""Value of the unlabelled pixels in an image of class indexes."""

Scores = dict[str, float]
"""Shares in [0, 1] by metric."""

Index = Annotated[int, Field(ge=0, lt=1 << 31)]
Box = tuple[Finite, Finite, Finite, Finite]


class ClassResult(Part):
    """The best classes, best first, and the correct one."""

    prediction: Annotated[tuple[Index, ...], Field(min_length=1, max_length=TOP)]
    label: Index

    @property
    def correct(self) -> bool:
        """The best class is the correct one."""
        return self.prediction[0] == self.label


class PixelResult(Part):
    """How many pixels of each correct class were predicted as each class.

    Attributes:
        pairs: Number of pixels by ``correct class · classes + predicted class``, for pairs that
            occur.
    """

    pairs: dict[Index, Index]


class BoxResult(Part):
    """Predicted and true objects, in pixels of the image."""

    boxes: list[Box]
    scores: list[Finite]
    labels: list[Index]
    true_boxes: list[Box]
    true_labels: list[Index]
    crowd: list[bool]
    area: list[Finite]


Result = ClassResult | PixelResult | BoxResult

METRICS: dict[Task, tuple[str, ...]] = {
    "image-classification": ("top1", "top5"),
    "object-detection": ("map", "map50"),
    "semantic-segmentation": ("miou", "pixel_accuracy"),
}
"""Metrics of each task, the main one first; all are shares in [0, 1]."""

NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "map50": "mAP at IoU 0.5",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}


def classification_result(logits: NDArray[np.float32], label: int) -> ClassResult:
    """Return the best classes of logits (classes,) float32, best first, and the correct one."""
    best = np.argsort(-logits.astype(np.float64), kind="stable")[:TOP]
    return ClassResult(prediction=tuple(best.tolist()), label=label)


def segmentation_result(
    classes: NDArray[np.integer], truth: NDArray[np.integer], num_classes: int
) -> PixelResult:
    """Count, for each correct class, the pixels predicted as each class.

    Args:
        classes: (h, w), predicted class indexes.
        truth: (h, w), correct class indexes, 255 for unlabelled pixels.
        num_classes: Number of classes, with the background.
    """
    known = truth != UNLABELLED
    pairs = truth[known].astype(np.int64) * num_classes + classes[known]
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return PixelResult(pairs={int(pair): int(counts[pair]) for pair in np.flatnonzero(counts)})


def detection_result(found: Mapping[str, NDArray[Any]], truth: Boxes) -> BoxResult:
    """Return predicted and true objects.

    Args:
        found: Predicted ``boxes`` (D, 4), in pixels of the image, ``scores`` (D,) and ``labels``
            (D,).
        truth: True objects, in pixels of the image.
    """
    return BoxResult(
        boxes=found["boxes"].astype(float).round(2).tolist(),
        scores=found["scores"].astype(float).tolist(),
        labels=found["labels"].astype(int).tolist(),
        true_boxes=truth.boxes.astype(float).tolist(),
        true_labels=truth.labels.tolist(),
        crowd=truth.crowd.tolist(),
        area=truth.area.astype(float).tolist(),
    )


def scores(task: Task, results: Sequence[Any], num_classes: int) -> Scores:
    """Return the metrics of ``METRICS[task]`` over results of at least one image, each in [0, 1].

    Top-5 is left out where there are no more than five classes.

    Raises:
        DependencyError: Detection needs torchmetrics and pycocotools.
    """
    if task == "image-classification":
        count = len(results)
        found = {"top1": sum(result.correct for result in results) / count}
        if num_classes > TOP:  # where the best five are not all there are
            found["top5"] = sum(result.label in result.prediction for result in results) / count
        return found
    if task == "semantic-segmentation":
        return _segmentation_scores(results, num_classes)
    return _detection_scores(results)


def _segmentation_scores(results: Sequence[PixelResult], num_classes: int) -> Scores:
    counts = np.zeros(num_classes * num_classes, np.int64)
    for result in results:
        for pair, count in result.pairs.items():
            counts[pair] += count
    matrix = counts.reshape(num_classes, num_classes)
    correct = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - correct
    # Over the classes that occur in the images or in the predictions.
    shares = correct[union > 0] / union[union > 0]
    return {
        "miou": float(shares.mean()) if shares.size else 0.0,
        "pixel_accuracy": float(correct.sum() / max(matrix.sum(), 1)),
    }


def _detection_scores(results: Sequence[BoxResult]) -> Scores:
    try:
        import torch
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox")
    except ImportError as error:  # torchmetrics raises it for pycocotools too
        raise DependencyError(
            "Mean average precision needs torchmetrics and pycocotools.",
            next_step="pip install 'splitzoo[train]'",
        ) from error
    metric.warn_on_many_detections = False
    for result in results:
        found = {
            "boxes": torch.tensor(result.boxes, dtype=torch.float32).reshape(-1, 4),
            "scores": torch.tensor(result.scores, dtype=torch.float32),
            "labels": torch.tensor(result.labels, dtype=torch.int64),
        }
        truth = {
            "boxes": torch.tensor(result.true_boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(result.true_labels, dtype=torch.int64),
            "iscrowd": torch.tensor(result.crowd, dtype=torch.int64),
            "area": torch.tensor(result.area, dtype=torch.float32),
        }
        metric.update([found], [truth])
    values = metric.compute()
    # −1 means that there are no objects at all.
    return {"map": max(float(values["map"]), 0.0), "map50": max(float(values["map_50"]), 0.0)}
