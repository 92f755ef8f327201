"""How good answers are: top-1 and top-5, mean average precision, mean intersection over union.

A result is what is kept of one image, small and free of torch, so that an evaluation can stop and
go on, and processes can hand theirs to one another.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from splitrun.errors import DependencyError

from .datasets import Boxes
from .spec import Task

TOP = 5
UNLABELLED = 255
"""Of an image of class indexes: nothing is said of these pixels."""

Scores = dict[str, float]
"""By metric, shares in [0, 1]."""

Index = Annotated[int, Field(ge=0, lt=1 << 31)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Box = tuple[Finite, Finite, Finite, Finite]


class _Result(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassResult(_Result):
    """The best classes, best first, and the correct one."""

    answer: Annotated[tuple[Index, ...], Field(min_length=1, max_length=TOP)]
    label: Index

    @property
    def correct(self) -> bool:
        """The best class is the correct one."""
        return self.answer[0] == self.label


class PixelResult(_Result):
    """How many pixels of each correct class were given to each class.

    Attributes:
        pairs: ``right · classes + given`` to a count, for pairs that occur.
    """

    pairs: dict[Index, Index]


class BoxResult(_Result):
    """Objects found and objects there, in pixels of the image."""

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
"""What is measured for each task, the main one first; all are shares in [0, 1]."""

NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "map50": "mAP at IoU 0.5",
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}


def classification_result(logits: NDArray[np.float32], label: int) -> ClassResult:
    """Return the best classes, best first, and the correct one.

    Args:
        logits: (classes,) float32.
        label: The correct class index.
    """
    best = np.argsort(-logits.astype(np.float64), kind="stable")[:TOP]
    return ClassResult(answer=tuple(best.tolist()), label=label)


def segmentation_result(
    classes: NDArray[np.integer], truth: NDArray[np.integer], num_classes: int
) -> PixelResult:
    """Count, for each correct class that occurs, the pixels given to each class.

    Args:
        classes: (h, w), the answer.
        truth: (h, w), 255 where nothing is said.
        num_classes: With the background.
    """
    known = truth != UNLABELLED
    pairs = truth[known].astype(np.int64) * num_classes + classes[known]
    counts = np.bincount(pairs, minlength=num_classes * num_classes)
    return PixelResult(pairs={int(one): int(counts[one]) for one in np.flatnonzero(counts)})


def detection_result(found: Mapping[str, NDArray[Any]], truth: Boxes) -> BoxResult:
    """Return objects found and objects there.

    Args:
        found: ``boxes`` (D, 4), ``scores`` (D,), ``labels`` (D,), boxes in pixels of the image.
        truth: In pixels of the image.
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
    """Return the metrics of ``METRICS[task]`` over at least one image, each in [0, 1].

    Args:
        task: Of the model.
        results: Of the task's kind.
        num_classes: Of the model.

    Raises:
        DependencyError: Detection needs torchmetrics and pycocotools.
    """
    if task == "image-classification":
        count = len(results)
        return {
            "top1": sum(one.correct for one in results) / count,
            "top5": sum(one.label in one.answer for one in results) / count,
        }
    if task == "semantic-segmentation":
        return _segmentation_scores(results, num_classes)
    return _detection_scores(results)


def _segmentation_scores(results: Sequence[PixelResult], num_classes: int) -> Scores:
    counts = np.zeros(num_classes * num_classes, np.int64)
    for one in results:
        for index, count in one.pairs.items():
            counts[index] += count
    matrix = counts.reshape(num_classes, num_classes)
    right = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - right
    # Over the classes that occur in the images, or in the answers.
    shares = right[union > 0] / union[union > 0]
    return {
        "miou": float(shares.mean()) if shares.size else 0.0,
        "pixel_accuracy": float(right.sum() / max(matrix.sum(), 1)),
    }


def _detection_scores(results: Sequence[BoxResult]) -> Scores:
    try:
        import torch
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox")
    except ImportError as error:  # of pycocotools too, by torchmetrics
        raise DependencyError(
            "Mean average precision needs torchmetrics and pycocotools.",
            next_step="pip install 'splitzoo[train]'",
        ) from error

    def boxes(values: list[Box]) -> "torch.Tensor":
        return torch.tensor(values, dtype=torch.float32).reshape(-1, 4)

    def whole(values: list[int]) -> "torch.Tensor":
        return torch.tensor(values, dtype=torch.int64)

    metric.warn_on_many_detections = False
    for one in results:
        metric.update(
            [
                {
                    "boxes": boxes(one.boxes),
                    "scores": torch.tensor(one.scores, dtype=torch.float32),
                    "labels": whole(one.labels),
                }
            ],
            [
                {
                    "boxes": boxes(one.true_boxes),
                    "labels": whole(one.true_labels),
                    "iscrowd": whole([int(crowd) for crowd in one.crowd]),
                    "area": torch.tensor(one.area, dtype=torch.float32),
                }
            ],
        )
    found = metric.compute()
    # −1 stands for no object at all.
    return {
        name: max(float(found[key]), 0.0) for name, key in (("map", "map"), ("map50", "map_50"))
    }
