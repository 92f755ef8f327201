"""What a model's outputs say to people: classes, objects, or shares of an area."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..manifest import Manifest, TailInfo
from ..strict_json import read_strictly
from .detection import Detection, DetectionSettings, detect, name_detections
from .segmentation import ClassShare, class_map, class_shares


@dataclass(frozen=True)
class ClassScore:
    """One class and its probability."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image; which of the three depends on its task.

    Attributes:
        top: The most probable classes, best first.
        detections: Objects, best first; boxes in pixels of the image where its size is known, else
            of the model's input.
        shares: Classes and how much of the image they cover, largest first; of the whole input,
            padding included, where the image's size is not known.
    """

    top: list[ClassScore] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)
    shares: list[ClassShare] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str]]:
        """Return an amount and what it is of, for each row that people read."""
        found = [
            *((score.probability, score.label) for score in self.top),
            *(
                (item.score, f"{item.label} at {', '.join(f'{side:.0f}' for side in item.box)}")
                for item in self.detections
            ),
            *((share.share, share.label) for share in self.shares),
        ]
        # Only a detector may have nothing to say.
        return [(f"{amount:.1%}", what) for amount, what in found] or [("", "nothing found")]

    def __str__(self) -> str:
        return "\n".join(f"{amount:>6}  {what}" for amount, what in self.rows())


def predict(
    manifest: Manifest,
    tail: TailInfo,
    outputs: Sequence[NDArray[Any]],
    labels: list[str],
    run_boxes: Callable[[Sequence[NDArray[Any]]], Sequence[NDArray[Any]]],
    *,
    top: int = 5,
    image_size: tuple[int, int] | None = None,
) -> Prediction:
    """Turn the edge graph's outputs for one image into a prediction; see ``Edge.predict``.

    Args:
        run_boxes: A detector's second stage; see :func:`.detection.detect`.
    """
    area, task, preprocessing = None, manifest.task_of(tail), manifest.preprocessing
    if image_size and preprocessing.fit == "pad":
        width, height = preprocessing.scaled_size(*image_size)
        area = height, width
    if task == "object-detection":
        try:
            settings = read_strictly(DetectionSettings, tail.postprocessing)
        except ValueError as error:
            raise BundleError(f"The bundle's detection settings are damaged: {error}.") from error
        _check_labels(labels, settings.num_classes)
        found = detect(outputs, run_boxes, settings, area)
        if image_size:
            found = replace(found, boxes=preprocessing.to_image(found.boxes, *image_size))
        return Prediction(detections=name_detections(found, labels)[:top])
    (logits,) = outputs
    if task == "semantic-segmentation":
        classes = class_map(logits, area)
        _check_labels(labels, logits.shape[1])
        return Prediction(shares=class_shares(classes, labels)[:top])
    _check_labels(labels, logits.size, exact=True)
    scores = logits.reshape(-1).astype(np.float64)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    best = np.argsort(-shares, kind="stable")[:top].tolist()
    return Prediction(top=[ClassScore(i, labels[i], float(shares[i])) for i in best])


def _check_labels(labels: list[str], classes: int, *, exact: bool = False) -> None:
    if len(labels) < classes or (exact and len(labels) != classes):
        raise BundleError(
            f"The bundle has {len(labels)} labels for {classes} classes.",
            next_step="Export the bundle again.",
        )
