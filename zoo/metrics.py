"""How good answers are: top-1 and top-5, mean average precision, mean intersection over union.

A result is what is kept of one picture, small and free of torch, so that an evaluation can stop and
go on, and processes can hand theirs to one another.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError
from .datasets import Boxes
from .kinds import Task

TOP = 5
UNLABELLED = 255
"""Of a picture of class indexes: nothing is said of these pixels."""

Result = dict[str, Any]
Scores = dict[str, float]

METRICS: dict[Task, tuple[str, ...]] = {
    "image-classification": ("top1", "top5"),
    "object-detection": ("map", "map50"),
    "semantic-segmentation": ("miou", "pixel_accuracy"),
}
"""What is measured for each task, the main one first; all are shares in [0, 1]."""

NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "map50": "mAP at IoU 0.5",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}


def classification_result(logits: NDArray[np.float32], label: int) -> Result:
    """Return the best classes, best first, and the right one.

    Args:
        logits: (classes,) float32.
        label: The right class index.
    """
    best = np.argsort(-logits.astype(np.float64), kind="stable")[:TOP]
    return {"answer": best.tolist(), "label": label}


def segmentation_result(
    classes: NDArray[np.integer], truth: NDArray[np.integer], num_classes: int
) -> Result:
    """Count, for each right class that occurs, the pixels given to each class.

    Args:
        classes: (h, w), the answer.
        truth: (h, w), 255 where nothing is said.
        num_classes: With the background.
    """
    known = truth != UNLABELLED
    pairs = truth[known].astype(np.int64) * num_classes + classes[known]
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return {"pairs": {str(index): int(counts[index]) for index in np.flatnonzero(counts)}}


def detection_result(found: dict[str, NDArray[Any]], truth: Boxes) -> Result:
    """Return objects found and objects there.

    Args:
        found: ``boxes`` (D, 4), ``scores`` (D,), ``labels`` (D,), boxes in pixels of the picture.
        truth: In pixels of the picture.
    """
    return {
        "boxes": found["boxes"].astype(float).round(2).tolist(),
        "scores": found["scores"].astype(float).tolist(),
        "labels": found["labels"].astype(int).tolist(),
        "true_boxes": truth.boxes.astype(float).tolist(),
        "true_labels": truth.labels.tolist(),
        "crowd": truth.crowd.astype(int).tolist(),
        "area": truth.area.astype(float).tolist(),
    }


def is_right(result: Result) -> bool:
    """Say whether the best class is the right one."""
    return result["answer"][0] == result["label"]


def scores(task: Task, results: Sequence[Result], num_classes: int) -> Scores:
    """Return the metrics of ``METRICS[task]`` over at least one picture, each in [0, 1].

    Raises:
        DependencyError: Detection needs torchmetrics and pycocotools.
    """
    if task == "image-classification":
        count = len(results)
        return {
            "top1": sum(map(is_right, results)) / count,
            "top5": sum(one["label"] in one["answer"] for one in results) / count,
        }
    if task == "semantic-segmentation":
        return _segmentation_scores(results, num_classes)
    return _detection_scores(results)


def _segmentation_scores(results: Sequence[Result], num_classes: int) -> Scores:
    counts = np.zeros(num_classes * num_classes, np.int64)
    for one in results:
        for index, count in one["pairs"].items():
            counts[int(index)] += count
    matrix = counts.reshape(num_classes, num_classes)
    right = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - right
    # Over the classes that occur in the pictures, or in the answers.
    shares = right[union > 0] / union[union > 0]
    return {
        "miou": float(shares.mean()) if shares.size else 0.0,
        "pixel_accuracy": float(right.sum() / max(matrix.sum(), 1)),
    }


def _detection_scores(results: Sequence[Result]) -> Scores:
    try:
        import torch
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox")
    except ImportError as error:  # of pycocotools too, by torchmetrics
        raise DependencyError(
            "Mean average precision needs torchmetrics and pycocotools.",
            next_step="pip install 'splitzoo[train]'",
        ) from error

    def boxes(values: list[list[float]]) -> "torch.Tensor":
        return torch.tensor(values, dtype=torch.float32).reshape(-1, 4)

    def whole(values: list[int]) -> "torch.Tensor":
        return torch.tensor(values, dtype=torch.int64)

    metric.warn_on_many_detections = False
    for one in results:
        metric.update(
            [
                {
                    "boxes": boxes(one["boxes"]),
                    "scores": torch.tensor(one["scores"], dtype=torch.float32),
                    "labels": whole(one["labels"]),
                }
            ],
            [
                {
                    "boxes": boxes(one["true_boxes"]),
                    "labels": whole(one["true_labels"]),
                    "iscrowd": whole(one["crowd"]),
                    "area": torch.tensor(one["area"], dtype=torch.float32),
                }
            ],
        )
    found = metric.compute()
    # −1 stands for no object at all.
    return {
        name: max(float(found[key]), 0.0) for name, key in (("map", "map"), ("map50", "map_50"))
    }
