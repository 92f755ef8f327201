"""What a model's outputs mean to people."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import BundleError
from ..halves import Edge
from .detection import Detection, DetectionSettings, detect, name_detections
from .segmentation import ClassShare, class_map, class_shares


@dataclass(frozen=True)
class Prediction:
    """One class and its probability."""

    index: int
    label: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a model says of one image; which of the three depends on its task.

    Attributes:
        top: The most probable classes, best first.
        detections: Objects, best first; boxes in pixels of the image where its size is known,
            else of the model's input.
        shares: Classes and how much of the image they cover, largest first; of the whole input,
            padding included, where the image's size is not known.
    """

    top: list[Prediction] = field(default_factory=list)
    detections: list[Detection] = field(default_factory=list)
    shares: list[ClassShare] = field(default_factory=list)

    def lines(self) -> list[tuple[str, str]]:
        """Return the answer as rows of two words, for people."""
        if not (self.detections or self.shares or self.top):
            # Only a detector may have nothing to say.
            return [("", "nothing found")]
        if self.detections:
            return [
                (f"{one.score:.1%}", f"{one.label} at {', '.join(f'{x:.0f}' for x in one.box)}")
                for one in self.detections
            ]
        if self.shares:
            return [(f"{one.share:.1%}", one.label) for one in self.shares]
        return [(f"{one.probability:.1%}", one.label) for one in self.top]


def answer(
    bundle: Bundle,
    edge: Edge,
    outputs: Sequence[NDArray[Any]],
    labels: list[str],
    *,
    count: int = 5,
    image: tuple[int, int] | None = None,
) -> Answer:
    """Turn the edge graph's outputs for one image into an answer.

    Args:
        bundle: Of the outputs.
        edge: Its edge half; runs a detector's second stage.
        outputs: Each (1, …).
        labels: Of the bundle.
        count: Of classes or objects, at most.
        image: Width and height of the image, upright, pixels; a stream does not say.

    Raises:
        BundleError: The outputs do not fit labels or settings.
    """
    area = None
    if image and bundle.preprocessing.fit == "pad":
        width, height = bundle.preprocessing.scaled_size(*image)
        area = height, width
    if bundle.task == "object-detection":
        try:
            settings = DetectionSettings.from_dict(bundle.postprocessing)
        except ValueError as error:
            raise BundleError(f"The bundle's detection settings are damaged: {error}.") from error
        _check_labels(labels, settings.num_classes)
        found = detect(outputs, edge.boxes, settings, area)
        if image:
            boxes = bundle.preprocessing.to_image(found.boxes, *image)
            found = replace(found, boxes=boxes)
        return Answer(detections=name_detections(found, labels)[:count])
    (logits,) = outputs
    if bundle.task == "semantic-segmentation":
        classes = class_map(logits, area)
        _check_labels(labels, logits.shape[1])
        return Answer(shares=class_shares(classes, labels)[:count])
    return Answer(top=top_predictions(logits, labels, count))


def _check_labels(labels: list[str], classes: int) -> None:
    if len(labels) < classes:
        raise BundleError(
            f"The bundle has {len(labels)} labels for {classes} classes.",
            next_step="Export the bundle again.",
        )


def top_predictions(
    logits: NDArray[np.float32], labels: list[str], count: int = 5
) -> list[Prediction]:
    """Return the most probable classes of logits (1, classes), best first.

    Raises:
        BundleError: There are not as many labels as classes.
    """
    scores = logits.reshape(-1).astype(np.float64)
    if len(labels) != scores.size:
        raise BundleError(f"The bundle has {len(labels)} labels for {scores.size} classes.")
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")[:count]
    return [Prediction(int(i), labels[i], float(shares[i])) for i in order]
