"""The steps of Faster R-CNN between its graphs and after them, as torchvision's detector has them.

::

    edge graph ─► p2 … p5, objectness, deltas ─► propose ─► proposals, levels ─► boxes graph
                                                                                      │
    detections ◄─ select_boxes ◄─ class_logits, box_deltas ◄──────────────────────────┘

These steps give as many boxes as an image has; the graphs have one shape. All of it is for one
image, in float32 and in torchvision's order of operations, so that both keep the same boxes. A
graph's output of another shape than the settings say is a ``BundleError``.

Ren et al. 2015, "Faster R-CNN" (https://arxiv.org/abs/1506.01497); Lin et al. 2017, "Feature
Pyramid Networks for Object Detection" (https://arxiv.org/abs/1612.03144).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_MAX_SIDE = 1 << 14
_MAX_ANCHORS = 1 << 23
_MAX_BOXES = 10_000
# Of a side, pixels; smaller boxes are dropped. torchvision's constants.
_SMALLEST_PROPOSAL, _SMALLEST_DETECTION = 1e-3, 1e-2
# Larger changes of a side's logarithm are cut, so that no box has an infinite side.
_MAX_LOG_RATIO = math.log(1000 / 16)


@dataclass(frozen=True)
class DetectionSettings:
    """All numbers that the steps outside the graphs depend on; they check themselves.

    Attributes:
        canvas: Height and width of the model's input, pixels.
        grids: Height and width of each level that has anchors, the finest first.
        pooled_levels: Number of levels, the finest, that boxes are cut out of.
        num_classes: Number of classes, with the background, which is class 0.
        anchor_sizes: Side of a square anchor on each level, pixels.
        aspect_ratios: Height over width of the anchors at each place of each level.
        level_candidates: Number of anchors of each level, those of most objectness, that are
            considered.
        proposals: Number of rows that the boxes graph takes.
        proposal_score: Least objectness of a proposal, a probability.
        proposal_overlap: Intersection over union above which the lesser proposal is dropped.
        delta_weights: Divisors of the box deltas of the boxes graph: x, y, width, height.
        score: Least probability of a detection's class.
        overlap: Intersection over union above which the lesser detection of a class is dropped.
        detections: Number of detections in an image, at most.
        level_side: Side of a square box that is cut out of the level of stride 16, pixels.
    """

    canvas: tuple[int, int]
    grids: tuple[tuple[int, int], ...]
    pooled_levels: int
    num_classes: int
    anchor_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    level_candidates: int
    proposals: int
    proposal_score: float
    proposal_overlap: float
    delta_weights: tuple[float, float, float, float]
    score: float
    overlap: float
    detections: int
    level_side: float

    def __post_init__(self) -> None:
        for size in (self.canvas, *self.grids):
            if len(size) != 2 or not all(_is_count(side, _MAX_SIDE) for side in size):
                raise ValueError(f"{size} is not a height and a width")
        if not 1 <= len(self.grids) == len(self.anchor_sizes) <= 8:
            raise ValueError(f"{len(self.grids)} levels with {len(self.anchor_sizes)} anchor sizes")
        if any(grid[side] > self.canvas[side] for grid in self.grids for side in (0, 1)):
            raise ValueError("a level is larger than the canvas")
        if not 1 <= len(self.aspect_ratios) <= 16 or self.anchors > _MAX_ANCHORS:
            raise ValueError(f"{len(self.aspect_ratios)} anchors at each place")
        for name, limit in {
            "pooled_levels": len(self.grids),
            "num_classes": 1 << 16,
            "level_candidates": _MAX_BOXES,
            "proposals": _MAX_BOXES,
            "detections": _MAX_BOXES,
        }.items():
            if not _is_count(getattr(self, name), limit):
                raise ValueError(f"{name} is {getattr(self, name)!r}, not from 1 to {limit}")
        if len(self.delta_weights) != 4:
            raise ValueError("delta_weights are not four")
        lengths = (*self.anchor_sizes, *self.aspect_ratios, *self.delta_weights, self.level_side)
        if not all(_is_between(value, 1e-6, 1e6) for value in lengths):
            raise ValueError("a size, ratio or weight is not a number from 1e-6 to 1e6")
        shares = (self.proposal_score, self.proposal_overlap, self.score, self.overlap)
        if not all(_is_between(value, 0, 1) for value in shares):
            raise ValueError("a score or overlap is not a number from 0 to 1")

    @property
    def anchors(self) -> int:
        """Anchors of all levels."""
        return len(self.aspect_ratios) * sum(height * width for height, width in self.grids)


@dataclass(frozen=True)
class FoundBoxes:
    """Boxes found in one image, best first.

    Attributes:
        boxes: (D, 4) float32, x0, y0, x1, y1 in pixels of the model's input.
        labels: (D,) int64, indexes of classes.
        scores: (D,) float32, probabilities.
    """

    boxes: Floats
    labels: Ints
    scores: Floats


@dataclass(frozen=True)
class Detection:
    """One object: its class, how probable that is, and where it lies (x0, y0, x1, y1), pixels."""

    index: int
    label: str
    score: float
    box: tuple[float, float, float, float]


def detect(
    outputs: Sequence[Floats],
    run_boxes: Callable[[Sequence[NDArray[Any]]], Sequence[Floats]],
    settings: DetectionSettings,
    area: tuple[int, int] | None = None,
) -> FoundBoxes:
    """Turn the edge graph's outputs for one image into boxes.

    Args:
        outputs: Levels that boxes are cut out of, each (1, C, h, w), the finest first, then
            objectness (1, anchors) and deltas (1, anchors, 4).
        run_boxes: Boxes graph: the levels, proposals (P, 4) float32 and their levels (P,)
            int32, to class logits (P, classes) and box deltas (P, 4 · classes).
        settings: Settings of the model.
        area: Height and width of the part of the input, from its top left, that is the image;
            by default the whole input.

    Raises:
        BundleError: A graph's output has another shape than the settings say.
    """
    *levels, objectness, deltas = outputs
    proposals = propose(objectness[0], deltas[0], settings, area)
    if not len(proposals):
        return FoundBoxes(
            np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.float32)
        )
    rows = np.zeros((settings.proposals, 4), np.float32)
    rows[: len(proposals)] = proposals
    class_logits, box_deltas = run_boxes([*levels, rows, box_levels(rows, settings)])
    _check_shape("class_logits", class_logits, (settings.proposals, settings.num_classes))
    found = slice(len(proposals))
    return select_boxes(class_logits[found], box_deltas[found], proposals, settings, area)


def propose(
    objectness: Floats,
    deltas: Floats,
    settings: DetectionSettings,
    area: tuple[int, int] | None = None,
) -> Floats:
    """Choose the boxes that the second stage looks at: torchvision's RPN in evaluation.

    Args:
        objectness: (anchors,) float32, logits, level by level; in a level row by row, at each place
            one for each aspect ratio.
        deltas: (anchors, 4) float32 in the same order.

    Returns:
        (P, 4) float32, best first, P at most ``settings.proposals``.
    """
    _check_shape("objectness", objectness, (settings.anchors,))
    _check_shape("deltas", deltas, (settings.anchors, 4))
    candidates, scores, groups, start = [], [], [], 0
    with np.errstate(over="ignore", invalid="ignore"):
        for level, (height, width) in enumerate(settings.grids):
            end = start + height * width * len(settings.aspect_ratios)
            best = _largest(objectness[start:end], settings.level_candidates)
            anchors = _anchors(settings, level, best)
            candidates.append(_decode(deltas[start:end][best], anchors, (1, 1, 1, 1)))
            scores.append(1 / (1 + np.exp(-objectness[start:end][best])))
            groups.append(np.full(len(best), level))
            start = end
        boxes = _clipped(np.concatenate(candidates), area or settings.canvas)
        score, group = np.concatenate(scores), np.concatenate(groups)
        kept = _has_sides(boxes, _SMALLEST_PROPOSAL) & (score >= settings.proposal_score)
    boxes, score, group = boxes[kept], score[kept], group[kept]
    return boxes[suppress(boxes, score, group, settings.proposal_overlap, settings.proposals)]


def box_levels(boxes: Floats, settings: DetectionSettings) -> NDArray[np.int32]:
    """Return the level that each box (P, 4) is cut out of, 0 for the finest: (P,) int32.

    The larger a box, the coarser its level (Feature Pyramid Networks, Eq. 1).
    """
    finest = round(math.log2(settings.canvas[0] / settings.grids[0][0]))
    with np.errstate(divide="ignore", invalid="ignore"):
        side = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
        level = np.floor(4 + np.log2(side / np.float32(settings.level_side)) + np.float32(1e-6))
    level = np.clip(level - finest, 0, settings.pooled_levels - 1)
    return np.nan_to_num(level).astype(np.int32)


def select_boxes(
    class_logits: Floats,
    box_deltas: Floats,
    proposals: Floats,
    settings: DetectionSettings,
    area: tuple[int, int] | None = None,
) -> FoundBoxes:
    """Choose the detections among all classes of all proposals: torchvision's last step.

    Args:
        class_logits: (P, classes) float32.
        box_deltas: (P, 4 · classes) float32, those of a class side by side.
        proposals: (P, 4) float32.
    """
    rows, classes = len(proposals), settings.num_classes
    _check_shape("class_logits", class_logits, (rows, classes))
    _check_shape("box_deltas", box_deltas, (rows, 4 * classes))
    with np.errstate(over="ignore", invalid="ignore"):
        shares = np.exp(class_logits - class_logits.max(axis=1, keepdims=True, initial=-np.inf))
        shares /= shares.sum(axis=1, keepdims=True)
        # Class 0 is the background.
        row, label = np.nonzero(shares[:, 1:] > settings.score)
        label += 1
        deltas = box_deltas.reshape(rows, classes, 4)[row, label]
        boxes = _decode(deltas, proposals[row], settings.delta_weights)
        boxes, score = _clipped(boxes, area or settings.canvas), shares[row, label]
        kept = _has_sides(boxes, _SMALLEST_DETECTION)
    boxes, score, label = boxes[kept], score[kept], label[kept]
    best = suppress(boxes, score, label, settings.overlap, settings.detections)
    return FoundBoxes(boxes[best], label[best], score[best])


def suppress(
    boxes: Floats, scores: Floats, groups: NDArray[Any], overlap: float, limit: int
) -> Ints:
    """Non-maximum suppression in each group: return the indexes of the boxes kept, best first.

    Args:
        boxes: (B, 4) float32.
        scores: (B,) float32; of equal ones the first is better.
        groups: (B,); boxes of different groups do not touch one another.
        overlap: Intersection over union above which the lesser box is dropped.
        limit: Number of boxes kept, at most; the time is bounded by ``limit`` times B.
    """
    order = np.argsort(-scores, kind="stable")
    corners, group = boxes[order].T.copy(), groups[order]
    area = (corners[2] - corners[0]) * (corners[3] - corners[1])
    kept = []
    while order.size and len(kept) < limit:
        kept.append(order[0])
        low = np.maximum(corners[:2, 1:], corners[:2, :1])
        high = np.minimum(corners[2:, 1:], corners[2:, :1])
        width, height = np.maximum(high - low, 0)
        shared = width * height
        with np.errstate(invalid="ignore", divide="ignore"):
            share = shared / (area[0] + area[1:] - shared)
        # In float64, as torchvision compares: float32 has another 0.3, and 3 of 10 pixels are it.
        too_close = share.astype(np.float64) > overlap
        stays = np.flatnonzero(~(too_close & (group[1:] == group[0]))) + 1
        order, corners, group, area = order[stays], corners[:, stays], group[stays], area[stays]
    return np.array(kept, np.int64)


def name_detections(found: FoundBoxes, labels: list[str]) -> list[Detection]:
    """Give each box the name of its class."""
    if found.labels.size and found.labels.max() >= len(labels):
        raise BundleError(f"The bundle has {len(labels)} labels; class {found.labels.max()} none.")
    rows = zip(found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True)
    return [Detection(index, labels[index], score, tuple(box)) for index, score, box in rows]


def _anchors(settings: DetectionSettings, level: int, indexes: Ints) -> Floats:
    """Return the anchors (n, 4) float32 of some indexes within a level."""
    height, width = settings.grids[level]
    root = np.sqrt(np.array(settings.aspect_ratios, np.float32))
    size = np.float32(settings.anchor_sizes[level])
    sides = np.stack([1 / root * size, root * size], axis=1)
    around = np.round(np.concatenate([-sides, sides], axis=1) / 2)
    place, ratio = np.divmod(indexes, len(settings.aspect_ratios))
    y, x = np.divmod(place, width)
    # Whole pixels, as torchvision has it: 13 rows on 800 pixels lie 61 apart.
    y, x = y * (settings.canvas[0] // height), x * (settings.canvas[1] // width)
    return around[ratio] + np.stack([x, y, x, y], axis=1).astype(np.float32)


def _decode(deltas: Floats, boxes: Floats, weights: Sequence[float]) -> Floats:
    """Move and stretch boxes (n, 4) by deltas (n, 4) (Faster R-CNN, Eq. 2)."""
    low, high = boxes[:, :2], boxes[:, 2:]
    sides = high - low
    centres = low + np.float32(0.5) * sides
    weight = np.array(weights, np.float32)
    centres = deltas[:, :2] / weight[:2] * sides + centres
    stretch = np.minimum(deltas[:, 2:] / weight[2:], np.float32(_MAX_LOG_RATIO))
    half = np.float32(0.5) * (np.exp(stretch) * sides)
    return np.concatenate([centres - half, centres + half], axis=1)


def _largest(values: Floats, count: int) -> Ints:
    """Return the indexes of the largest values, the largest first."""
    if values.size > count:
        indexes = np.sort(np.argpartition(-values, count - 1)[:count])
    else:
        indexes = np.arange(values.size)
    return indexes[np.argsort(-values[indexes], kind="stable")]


def _clipped(boxes: Floats, area: tuple[int, int]) -> Floats:
    return np.clip(boxes, 0, np.array((area[1], area[0]) * 2, np.float32))


def _has_sides(boxes: Floats, least: float) -> NDArray[np.bool_]:
    # False for boxes that are no numbers, which a graph may give for a hostile stream.
    return np.all(boxes[:, 2:] - boxes[:, :2] >= np.float32(least), axis=1)


def _check_shape(name: str, tensor: NDArray[Any], shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise BundleError(
            f"The graph gave {name} of shape {tensor.shape}; the detector's settings say {shape}.",
            next_step="Export the bundle again.",
        )


def _is_count(value: Any, limit: int) -> bool:
    return type(value) is int and 1 <= value <= limit


def _is_between(value: Any, least: float, most: float) -> bool:
    return type(value) in (int, float) and least <= value <= most
