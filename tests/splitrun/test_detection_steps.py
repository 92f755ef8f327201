"""What a bundle's runtime does between a detector's graphs and after them, in numpy."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image
from torchvision.ops.poolers import LevelMapper

from splitrun.errors import BundleError
from splitrun.predictions.detection import (
    Detection,
    DetectionSettings,
    FoundBoxes,
    box_levels,
    detect,
    name_detections,
    propose,
    select_boxes,
    suppress,
)
from splitrun.strict_json import read_strictly

CLASSES, PROPOSALS = 7, 150
NUMBERS = DetectionSettings(
    canvas=(256, 320),
    grids=((64, 80), (32, 40), (16, 20), (8, 10), (4, 5)),
    pooled_levels=4,
    num_classes=CLASSES,
    anchor_sizes=(32, 64, 128, 256, 512),
    aspect_ratios=(0.5, 1.0, 2.0),
    level_candidates=1000,
    proposals=PROPOSALS,
    proposal_score=0.0,
    proposal_overlap=0.7,
    delta_weights=(10.0, 10.0, 5.0, 5.0),
    score=0.05,
    overlap=0.5,
    detections=100,
    level_side=224,
)

# Levels and non-maximum suppression

SIDES = st.floats(1 / 64, 1300, width=32)


@given(st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=30), st.integers(1, 4))
def test_levels_are_torchvisions(sides, pooled):
    boxes = torch.tensor([(3.0, 5.0, 3 + width, 5 + height) for width, height in sides])
    expected = LevelMapper(2, 1 + pooled)([boxes])
    found = box_levels(boxes.numpy(), replace(NUMBERS, pooled_levels=pooled))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("side", [56, 112, 224, 448])
def test_a_box_at_a_boundary_is_cut_out_of_the_coarser_level(side):
    box = np.array([[0, 0, side, side]], np.float32)
    expected = LevelMapper(2, 5)([torch.from_numpy(box)])
    assert box_levels(box, NUMBERS).tolist() == expected.tolist() == [int(math.log2(side / 56))]


@st.composite
def scored_boxes(draw):
    # Corners on a coarse grid, so that overlaps of all kinds are common.
    count, seed = draw(st.integers(0, 60)), draw(st.integers(0, 1 << 31))
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, 12, (count, 2))
    boxes = np.concatenate([corner, corner + generator.integers(1, 9, (count, 2))], axis=1)
    scores = generator.permutation(count) / max(count, 1)
    groups = generator.integers(0, draw(st.integers(1, 4)), count)
    return boxes.astype(np.float32), scores.astype(np.float32), groups


@given(scored_boxes(), st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.integers(1, 80))
def test_suppression_is_torchvisions(boxes, overlap, limit):
    expected = batched_nms(*map(torch.from_numpy, boxes), overlap)[:limit]
    found = suppress(*boxes, overlap, limit)
    assert found.dtype == np.int64
    assert found.tolist() == expected.tolist()


def test_of_equal_boxes_the_first_is_kept():
    boxes = np.tile(np.array([[0, 0, 5, 5]], np.float32), (4, 1))
    assert suppress(boxes, np.full(4, 0.5, np.float32), np.zeros(4), 0.5, 10).tolist() == [0]
    assert suppress(boxes, np.full(4, 0.5, np.float32), np.arange(4), 0.5, 3).tolist() == [0, 1, 2]


# What a hostile stream can make the graphs give

FIRST_STAGE = (1, NUMBERS.anchors), (1, NUMBERS.anchors, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 0])
def test_graphs_that_give_no_numbers_give_boxes_inside_the_canvas_or_none(value):
    levels = [np.zeros((1, 16, *grid), np.float32) for grid in NUMBERS.grids[:4]]
    objectness, deltas = (np.full(shape, value, np.float32) for shape in FIRST_STAGE)

    def boxes(tensors):
        *_, rows, chosen = tensors
        assert np.isfinite(rows).all()
        assert ((chosen >= 0) & (chosen < 4)).all()
        logits = np.full((PROPOSALS, CLASSES), value, np.float32)
        logits[:, 3] = 1
        return logits, np.full((PROPOSALS, 4 * CLASSES), value, np.float32)

    found = detect([*levels, objectness, deltas], boxes, NUMBERS)
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()
    assert ((found.boxes >= 0) & (found.boxes <= [320, 256, 320, 256])).all()


def test_no_proposal_means_no_detection_and_no_run_of_the_second_graph():
    nothing, deltas = (np.full(shape, np.nan, np.float32) for shape in FIRST_STAGE)
    found = detect([nothing, deltas], pytest.fail, NUMBERS)
    assert (found.boxes.shape, found.labels.shape, found.scores.shape) == ((0, 4), (0,), (0,))
    assert name_detections(found, []) == []


@pytest.mark.parametrize("tensor", ["objectness", "deltas", "class_logits", "box_deltas"])
def test_another_shape_than_the_settings_say_is_refused(tensor):
    names = ("objectness", "deltas", "class_logits", "box_deltas")
    shapes = (*FIRST_STAGE, (PROPOSALS, CLASSES), (PROPOSALS, 4 * CLASSES))
    given = {name: np.zeros(shape, np.float32) for name, shape in zip(names, shapes, strict=True)}
    given[tensor] = given[tensor][:, 1:]
    first, second = [*given.values()][:2], [*given.values()][2:]
    with pytest.raises(BundleError, match=f"gave {tensor} of shape"):
        detect(first, lambda _: second, NUMBERS)


# Predictions and settings


def selected(shares, deltas, proposals):
    """Detections for probabilities and deltas that are the same for all classes."""
    logits = np.log(np.array(shares, np.float32))
    moves = np.tile(np.array(deltas, np.float32), CLASSES)
    return select_boxes(logits, moves, np.array(proposals, np.float32), NUMBERS)


def test_the_background_and_unsure_classes_are_no_detections():
    shares = [[0.73, 0.04, 0.06, 0.17, 1e-6, 1e-6, 1e-6], [0.99, 0.01, 0, 0, 0, 0, 0]]
    boxes = [[10, 20, 50, 60], [100, 90, 140, 130]]
    with np.errstate(divide="ignore"):
        found = selected(shares, np.zeros((2, 4)), boxes)
    assert found.labels.tolist() == [3, 2]
    assert found.boxes.tolist() == [[10, 20, 50, 60]] * 2
    np.testing.assert_allclose(found.scores, [0.17, 0.06], rtol=1e-4)


def test_a_box_without_a_side_is_no_detection():
    shares = [[0.1, 0.9, 0, 0, 0, 0, 0]] * 3
    boxes = [[10, 20, 10.009, 60], [10, 20, 50, 20.011], [300, 20, 390, 60]]
    with np.errstate(divide="ignore"):
        found = selected(shares, np.zeros((3, 4)), boxes)
    # Of the last one, the part inside the canvas is left.
    np.testing.assert_allclose(found.boxes[:, 2:], [[50, 20.011], [320, 60]], rtol=1e-6)


@given(
    st.lists(st.floats(-40, 40, width=32), min_size=4, max_size=4),
    st.tuples(st.integers(0, 300), st.integers(0, 240), st.integers(1, 20), st.integers(1, 16)),
)
def test_deltas_move_boxes_as_torchvisions_do(deltas, place):
    x, y, width, height = place
    box = torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32)
    moved = BoxCoder(NUMBERS.delta_weights).decode(torch.tensor([deltas]), [box])[:, 0]
    expected = clip_boxes_to_image(moved, NUMBERS.canvas).numpy()
    with np.errstate(divide="ignore"):
        found = selected([[0.1, 0.9, 0, 0, 0, 0, 0]], [deltas], box.numpy())
    side = (expected[:, 2:] - expected[:, :2]).min()
    if abs(side - 0.01) > 1e-3:
        assert len(found.boxes) == (side > 0.01)
        np.testing.assert_allclose(found.boxes, expected[: len(found.boxes)], rtol=1e-5, atol=1e-3)


def test_of_proposals_that_are_all_sure_those_of_most_objectness_stay():
    # Their probabilities are all 1 in float32.
    objectness = np.full(NUMBERS.anchors, -50, np.float32)
    chosen = [3000, 6000, 9000]
    objectness[chosen] = 20, 40, 30
    deltas = np.tile(np.array([0, 0, -2, -2], np.float32), (NUMBERS.anchors, 1))
    found = propose(objectness, deltas, replace(NUMBERS, proposals=3))
    # Three anchors at each place, 80 places in a row, rows 4 pixels apart.
    rows = [6000 // 240, 9000 // 240, 3000 // 240]
    assert ((found[:, 1] + found[:, 3]) / 2).tolist() == [4 * row for row in rows]


def test_detections_have_the_names_of_their_classes():
    boxes = np.array([[1, 2, 3.5, 4], [0, 0, 9, 9]], np.float32)
    found = FoundBoxes(boxes, np.array([2, 1]), np.array([0.75, 0.5], np.float32))
    assert name_detections(found, ["background", "person", "cat"]) == [
        Detection(2, "cat", 0.75, (1.0, 2.0, 3.5, 4.0)),
        Detection(1, "person", 0.5, (0.0, 0.0, 9.0, 9.0)),
    ]
    with pytest.raises(BundleError, match="2 labels; class 2 none"):
        name_detections(found, ["background", "person"])


BIG = 10**400


BAD_SETTINGS = {
    "canvas": [(256,), 256, (256, 1 << 15), (256.0, 320)],
    "grids": [
        *((), ((64, 80),), (64, 80, 3, 4, 5), "abcde"),
        ((64, 80), (32, 40), (16, 20), (8, 10), (0, 5)),
        ((512, 80), (32, 40), (16, 20), (8, 10), (4, 5)),
    ],
    "pooled_levels": [0, 6, True],
    "num_classes": [1 << 17],
    "anchor_sizes": [(32, 64, 128, 256, math.nan), (32, 64, 128, 256, -1), None],
    "aspect_ratios": [(), (1,) * 17, ("1",)],
    "level_candidates": [BIG],
    "proposals": [10_001, "100"],
    "proposal_score": [math.nan],
    "proposal_overlap": [-0.1],
    "delta_weights": [(10, 10, 5), (10, 10, 5, 0)],
    "score": [1.5],
    "overlap": [None],
    "detections": [0],
    "level_side": [math.inf, BIG],
    "unknown": [1],
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_that_make_no_sense_are_refused(name):
    given = asdict(NUMBERS)
    assert read_strictly(DetectionSettings, given) == NUMBERS
    for value in BAD_SETTINGS[name]:
        with pytest.raises(ValueError):
            read_strictly(DetectionSettings, given | {name: value})


def test_settings_pass_through_json_and_a_missing_one_is_named():
    given = json.loads(json.dumps(asdict(NUMBERS)))
    assert read_strictly(DetectionSettings, given) == NUMBERS
    del given["score"]
    with pytest.raises(ValueError, match="score is missing"):
        read_strictly(DetectionSettings, given)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.data())
def test_any_value_in_a_setting_is_read_or_refused(data):
    given = asdict(NUMBERS)
    given[data.draw(st.sampled_from(sorted(given)))] = data.draw(JSON)
    try:
        read = read_strictly(DetectionSettings, given)
    except ValueError:
        return
    assert read.anchors <= 1 << 23
