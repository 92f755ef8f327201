"""Detectors: our two graphs and the steps between them give what torchvision gives."""

import math
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
import yaml
from dense_models import enliven
from made_data import make_coco
from torch import nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, clip_boxes_to_image
from training_runs import plan_of

from splitrun.engines.onnx_runtime import OnnxRuntimeSession
from splitrun.errors import SpecError, UnknownNameError
from splitrun.predictions.detection import DetectionSettings, detect, propose
from splitrun.strict_json import read_strictly
from splitzoo import zoo
from splitzoo.export.onnx_graph import write_onnx
from splitzoo.zoo.backbones.table import DetectorSizes, find_backbone
from splitzoo.zoo.tasks.detection import DetectionTail
from splitzoo.zoo.train.recipe_files import find_recipe, recipes
from splitzoo.zoo.train.run import train
from splitzoo.zoo.train.student import build_student

SIZE, CLASSES, PROPOSALS, CHANNELS = (256, 320), 7, 150, 32


def tiny_detector(seed=0, **options):
    torch.manual_seed(seed)
    given = {"cut": "layer1", "sizes": DetectorSizes(proposals=PROPOSALS, channels=16)} | options
    tail = DetectionTail("test_resnet", given.pop("cut"), CLASSES, SIZE, **given)
    return enliven(tail, seed)


def some_features(seed=0, images=1, *, stride=4):
    generator = torch.Generator().manual_seed(seed)
    channels = find_backbone("test_resnet").stage_of(stride).channels
    return torch.randn(images, channels, *(side // stride for side in SIZE), generator=generator)


@pytest.fixture(scope="module")
def tail():
    return tiny_detector(pooled_levels=4)


@pytest.fixture(scope="module")
def numbers(tail):
    return read_strictly(DetectionSettings, tail.settings())


def stages_of(tail, height, width):
    return tail.body(torch.zeros(1, CHANNELS, height, width)).values()


def proposals_of(tail, features):
    images = ImageList(torch.empty(len(features), 3, *SIZE), [SIZE] * len(features))
    pyramid = tail.fpn(dict(zip("0123", tail.body(features).values(), strict=True)))
    return tail.rpn(images, pyramid)[0]


def detect_by_parts(tail, features, numbers, *area):
    """The dense graph, the steps in numpy, and the boxes graph, all but the export."""

    def boxes(tensors):
        return [tensor.numpy() for tensor in tail.boxes(*map(torch.from_numpy, tensors))]

    return detect([tensor.numpy() for tensor in tail.dense(features)], boxes, numbers, *area)


def assert_same(found, expected, *, pixels, scores):
    """Each box has its like; of scores that differ in the last bits, either may come first."""
    boxes, labels = expected["boxes"].numpy(), expected["labels"].numpy()
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert (found.labels.dtype, found.boxes.shape) == (np.int64, boxes.shape)
    distance = np.abs(found.boxes[:, None] - boxes).max(axis=2)
    distance[found.labels[:, None] != labels] = np.inf
    like = distance.argmin(axis=1)
    assert sorted(like) == list(range(len(boxes)))
    assert distance.min(axis=1).max() <= pixels
    np.testing.assert_allclose(found.scores, expected["scores"].numpy()[like], rtol=0, atol=scores)
    assert (np.diff(found.scores) <= 0).all()


def assert_worth_comparing(found):
    """Many detections, sure and less sure, of several classes, apart from one another."""
    assert len(found["boxes"]) >= 50
    assert found["scores"].max() > 0.9
    assert len(found["labels"].unique()) >= 3
    assert (found["boxes"][:, 2:] - found["boxes"][:, :2]).std() > 5


# The graphs and the steps between them


@torch.no_grad()
def test_the_parts_give_what_torchvision_gives(tail, numbers):
    features, area = some_features(), (100, 280)
    expected = tail(features)[0]
    assert_worth_comparing(expected)
    assert_same(detect_by_parts(tail, features, numbers), expected, pixels=1e-3, scores=1e-5)
    # Boxes are clipped to the image where it is known.
    (expected,) = tail(features, [area])
    assert len(expected["boxes"]) >= 50
    found = detect_by_parts(tail, features, numbers, area)
    assert_same(found, expected, pixels=1e-3, scores=1e-5)
    assert (found.boxes[:, 3].max(), found.boxes[:, 2].max()) == area


class Stage(nn.Module):
    """One of a tail's methods as a module."""

    def __init__(self, tail, method):
        super().__init__()
        self.tail, self.method = tail, method

    def forward(self, *tensors):
        return getattr(self.tail, self.method)(*tensors)


@pytest.mark.slow
@torch.no_grad()
def test_exported_graphs_and_numpy_detect_what_torchvision_does(tail, numbers, tmp_path):
    *levels, _, _ = tail.dense(some_features())
    chosen = torch.zeros(PROPOSALS, dtype=torch.int32)
    boxes = [*levels, torch.zeros(PROPOSALS, 4), chosen]
    graphs = {
        "dense": ([some_features()], ["features"], tail.dense_outputs),
        "boxes": (boxes, tail.boxes_inputs, tail.boxes_outputs),
    }
    for name, (example, inputs, outputs) in graphs.items():
        path, names = tmp_path / f"{name}.onnx", {"input_names": inputs, "output_names": outputs}
        write_onnx(Stage(tail, name), example, path, **names, dynamic_batch=False, opset=20)
        graph = onnx.load(path).graph
        assert [value.name for value in graph.input] == list(inputs)
        assert [value.name for value in graph.output] == list(outputs)
        for value in (*graph.input, *graph.output):
            assert all(size.dim_value for size in value.type.tensor_type.shape.dim)
        assert {node.domain for node in graph.node} == {""}
        hard = {"NonZero", "Loop", "If", "NonMaxSuppression"}
        assert hard.isdisjoint(node.op_type for node in graph.node)

    def run(name, tensors):
        _, inputs, outputs = graphs[name]
        session = OnnxRuntimeSession(tmp_path / f"{name}.onnx", threads=1)
        return session.run(dict(zip(inputs, tensors, strict=True)), outputs)

    for seed in (1, 2, 3, 4):
        features = some_features(seed)
        expected = tail(features)[0]
        assert_worth_comparing(expected)
        dense = run("dense", [features.numpy()])
        for found, wanted in zip(dense, tail.dense(features), strict=True):
            assert np.abs(found - wanted.numpy()).max() <= 1e-4 * wanted.abs().max()
        found = detect(dense, lambda tensors: run("boxes", tensors), numbers)
        assert_same(found, expected, pixels=1e-2, scores=1e-4)


@torch.no_grad()
def test_the_box_stage_cuts_each_box_out_of_its_level(tail):
    generator = torch.Generator().manual_seed(0)
    features = some_features()
    corner = torch.rand(PROPOSALS, 2, generator=generator) * 200
    rows = torch.cat([corner, corner + 2 + torch.rand(PROPOSALS, 2, generator=generator) * 900], 1)
    levels = tail.roi_heads.box_roi_pool.map_levels([rows])
    assert min(levels.bincount(minlength=4)) > 0
    *pyramid, _, _ = tail.dense(features)
    found = tail.boxes(*pyramid, rows, levels.int())
    names = dict(zip(tail.boxes_inputs, pyramid, strict=False))
    pooled = tail.roi_heads.box_roi_pool(names, [rows], [SIZE])
    expected = tail.roi_heads.box_predictor(tail.roi_heads.box_head(pooled))
    assert all(map(torch.equal, found, expected))


@torch.no_grad()
def test_proposals_are_torchvisions(tail, numbers):
    features = some_features(5)
    *_, objectness, deltas = (tensor[0].numpy() for tensor in tail.dense(features))
    (expected,) = proposals_of(tail, features)
    found = propose(objectness, deltas, numbers)
    assert found.shape == expected.shape == (PROPOSALS, 4)
    assert found.dtype == np.float32
    # Of scores that differ in the last bit, either may come first.
    found, expected = (boxes[np.lexsort(boxes.T.round(2))] for boxes in (found, expected.numpy()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@torch.no_grad()
def test_images_do_not_touch_one_another(tail):
    features = some_features(9, images=2)
    both = tail.dense(features)
    for whole, *parts in zip(both, tail.dense(features[:1]), tail.dense(features[1:]), strict=True):
        np.testing.assert_allclose(whole, torch.cat(parts), rtol=0, atol=1e-4)
    first, second = tail(features)
    assert len(first["boxes"]) == len(second["boxes"]) == 100
    # Nor does a small first image change the next.
    fresh = tiny_detector(pooled_levels=4)
    fresh(some_features(8), [(40, 60)])
    assert torch.equal(fresh(features[:1])[0]["boxes"], tail(features[:1])[0]["boxes"])


# The tail


def test_the_levels_have_the_strides_of_the_pyramid(tail, numbers):
    with torch.no_grad():
        *levels, objectness, deltas = tail.dense(some_features(images=2))
    assert [tuple(level.shape[2:]) for level in levels] == list(numbers.grids[:4])
    assert numbers.grids == ((64, 80), (32, 40), (16, 20), (8, 10), (4, 5))
    assert objectness.shape == (2, numbers.anchors) == (2, 3 * sum(map(math.prod, numbers.grids)))
    assert deltas.shape == (2, numbers.anchors, 4)
    assert tail.dense_outputs == ("p2", "p3", "p4", "p5", "objectness", "deltas")
    assert tail.boxes_inputs == ("p2", "p3", "p4", "p5", "proposals", "levels")


@torch.no_grad()
def test_a_canvas_of_odd_levels_has_torchvisions_anchors():
    # 800 pixels: 25 rows at stride 32, 13 above them, 61 pixels apart and not 64.
    tail = DetectionTail(
        "test_resnet", "layer1", 3, (800, 32), sizes=DetectorSizes(channels=8)
    ).eval()
    pyramid = list(tail.fpn(dict(zip("0123", stages_of(tail, 200, 8), strict=True))).values())
    images = ImageList(torch.empty(1, 3, 800, 32), [(800, 32)])
    numbers = read_strictly(DetectionSettings, tail.settings())
    assert numbers.grids[-2:] == ((25, 1), (13, 1))
    (anchors,) = tail.rpn.anchor_generator(images, pyramid)
    assert len(anchors) == numbers.anchors
    # Boxes so small around the anchors' centres that hardly any is clipped.
    deltas = torch.tensor([0.01, 0.02, -5, -5]).repeat(len(anchors), 1)
    decoded = tail.rpn.box_coder.decode(deltas, [anchors])[:, 0]
    expected = clip_boxes_to_image(decoded, (800, 32)).numpy()
    every = replace(numbers, level_candidates=10_000, proposals=10_000, proposal_overlap=1.0)
    scores = np.linspace(5, -5, len(anchors), dtype=np.float32)
    found = propose(scores, deltas.numpy(), every)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@torch.no_grad()
def test_without_a_cut_the_tail_takes_the_image():
    tail = tiny_detector(cut=None)
    image = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    numbers = read_strictly(DetectionSettings, tail.settings())
    (expected,) = tail(image)
    assert len(expected["boxes"]) >= 50
    found = detect_by_parts(tail, image, numbers)
    assert_same(found, expected, pixels=1e-3, scores=1e-5)
    # After a cut the coarsest level is not pooled, as in sc2bench.
    cut = tiny_detector()
    assert cut.boxes_inputs == ("p2", "p3", "p4", "proposals", "levels")
    assert tail.boxes_inputs == ("p2", "p3", "p4", "p5", "proposals", "levels")
    assert (cut.settings()["pooled_levels"], numbers.pooled_levels) == (3, 4)


@torch.no_grad()
def test_the_pyramid_begins_at_the_stride_of_the_cut():
    tail, features = tiny_detector(cut="layer2"), some_features(stride=8)
    assert tail.dense_outputs == ("p3", "p4", "p5", "objectness", "deltas")
    numbers = read_strictly(DetectionSettings, tail.settings())
    assert numbers.grids == ((32, 40), (16, 20), (8, 10), (4, 5))
    assert numbers.anchor_sizes == (32, 64, 128, 256)
    (expected,) = tail(features)
    assert_worth_comparing(expected)
    assert_same(detect_by_parts(tail, features, numbers), expected, pixels=1e-3, scores=1e-5)
    # A whole network whose pyramid begins there has the same heads, and teaches them.
    sizes = DetectorSizes(finest=8, proposals=PROPOSALS, channels=16)
    whole = tiny_detector(cut=None, sizes=sizes)
    assert whole.settings() == tail.settings()
    theirs, ours = ({n: v.shape for n, v in one.state_dict().items()} for one in (whole, tail))
    assert ours.items() <= theirs.items()
    assert {name.split(".")[0] for name in theirs.keys() - ours.keys()} == {"body"}


@pytest.mark.parametrize(("cut", "eps"), [("layer1", 1e-5), (None, 0.0)])
def test_batch_norms_are_frozen(cut, eps):
    tail = tiny_detector(cut=cut)
    norms = [layer for layer in tail.body.modules() if isinstance(layer, FrozenBatchNorm2d)]
    assert len(norms) > 5
    assert {norm.eps for norm in norms} == {eps}
    assert not [layer for layer in tail.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    before = {name: value.clone() for name, value in tail.named_buffers()}
    image = torch.randn(1, 3, *SIZE) if cut is None else some_features()
    tail.train()
    tail.losses(image, [{"boxes": torch.tensor([[8.0, 8, 90, 70]]), "labels": torch.tensor([2])}])
    assert all(torch.equal(value, before[name]) for name, value in tail.named_buffers())


@pytest.mark.slow
def test_training_lowers_the_losses():
    tail = tiny_detector().train()
    features = some_features(images=2)
    rows = torch.tensor([[8.0, 8, 90, 70], [100, 40, 300, 200]])
    labels = torch.tensor([1, 2])
    targets = [{"boxes": rows[:found], "labels": labels[:found]} for found in (2, 0)]
    optimizer = torch.optim.SGD(tail.parameters(), lr=0.002)
    totals = []
    for _ in range(8):
        torch.manual_seed(0)
        losses = tail.losses(features, targets)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert all(parameter.grad is not None for parameter in tail.parameters())
    assert totals[-1] < 0.8 * totals[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("test_resnet", "layer4", 7, SIZE), SpecError, "after one of layer1, layer2, layer3"),
        (("test_resnet", "layer1", 7, (256, 300)), SpecError, "no multiple of 32"),
        (("test_vit", None, 7, SIZE), SpecError, "no features at stride 4, 8, 16, 32"),
        (("resnet_51", "layer1", 7, SIZE), UnknownNameError, "resnet_51"),
    ],
)
def test_what_no_detector_can_be_made_of_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        DetectionTail(*arguments)


def test_torchvisions_numbers_are_in_the_settings():
    tail = DetectionTail("test_resnet", None, 91, (64, 64), sizes=DetectorSizes(channels=8))
    assert tail.settings() == {
        "canvas": (64, 64),
        "grids": ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1)),
        "pooled_levels": 4,
        "num_classes": 91,
        "anchor_sizes": (32, 64, 128, 256, 512),
        "aspect_ratios": (0.5, 1.0, 2.0),
        "level_candidates": 1000,
        "proposals": 1000,
        "proposal_score": 0.0,
        "proposal_overlap": 0.7,
        "delta_weights": (10.0, 10.0, 5.0, 5.0),
        "score": 0.05,
        "overlap": 0.5,
        "detections": 100,
        "level_side": 224,
    }


# Detectors on EfficientNet-Lite0 behind the encoder of the ImageNet-1k students

STUDENT = "svbi_tf_efficientnet_lite0-fp-variable"


@pytest.fixture(scope="module")
def whole_detector():
    return zoo.build("faster_rcnn_tf_efficientnet_lite0-png", seed=3)


def test_the_small_detector_has_the_parameters_that_are_counted_by_hand(whole_detector):
    tail = whole_detector.decoder.get_submodule("tail")
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in tail.named_children()
    }
    channels, anchors, classes = 128, 3, 91
    inner = sum(features * channels + channels for features in (40, 112, 320))
    convolution = channels * channels * 9 + channels
    objectness_and_deltas = (channels + 1) * anchors * (1 + 4)
    head = (channels * 49 + 1) * 256 + (256 + 1) * 256
    assert counts["fpn"] == inner + 3 * convolution
    assert counts["rpn"] == convolution + objectness_and_deltas
    assert counts["roi_heads"] == head + (256 + 1) * classes * (1 + 4)


def test_the_small_detector_takes_images_as_its_backbone_does(whole_detector):
    split = zoo.get_spec(f"faster_rcnn_{STUDENT}")
    assert (split.cut, split.latent_shape) == ("blocks.2", (96, 20, 28))
    given = split.preprocessing
    assert (given.mean, given.std, given.crop, given.fit) == (
        *((0.5,) * 3, (0.5,) * 3, (320, 448), "pad"),
    )
    edge = whole_detector.spec.bottleneck
    assert (edge.mean, edge.std) == (given.mean, given.std)
    # Photographs of 4:3 keep their shape: 426 of 448 columns.
    assert given.scaled_size(640, 480) == (426, 320)
    # A tensor of TensorFlow's networks is divided by the root of its variance and 0.001.
    body = whole_detector.decoder.get_submodule("tail.body")
    assert {getattr(layer, "eps", 1e-3) for layer in body.modules()} == {1e-3}
    assert not [layer for layer in body.modules() if isinstance(layer, nn.BatchNorm2d)]


def test_the_split_detector_begins_with_the_students_encoder_and_the_teachers_tail(whole_detector):
    _, recipe, _ = find_recipe(f"bccd-faster_rcnn_{STUDENT}")
    spec = zoo.get_spec(f"faster_rcnn_{STUDENT}")
    student = zoo.load(STUDENT)
    model = build_student(recipe, spec, whole_detector, seed=0).eval()
    model.update()
    # Streams of either are read by both: their id begins the digest.
    student.calibration = None
    assert model.device_digest() == student.device_digest()
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    (ours,), (theirs,) = model.compress(image, 1.6), student.compress(image, 1.6)
    # Only the shape of an input that is not the detector's own is sent besides.
    assert len(ours) == len(theirs) + 4
    for one in (model, student):
        (latent,), (expected,) = (
            other.codec.decompress(stream, other.hyper_decode)
            for other, stream in ((one, ours), (student, theirs))
        )
        assert np.array_equal(latent, expected)
    teacher = whole_detector.decoder.get_submodule("tail")
    tail = model.decoder.get_submodule("tail")
    for path in ("roi_heads.box_head.fc6", "body.blocks.6.0.conv_pwl"):
        assert torch.equal(tail.get_submodule(path).weight, teacher.get_submodule(path).weight)
    # Without the student, the encoder's part of the backbone is the teacher's.
    alone = build_student(recipe.model_copy(update={"start": None}), spec, whole_detector, seed=0)
    found = alone.encoder.get_submodule("head.blocks.2.0.conv_dw").weight
    assert torch.equal(found, teacher.get_submodule("body.blocks.2.0.conv_dw").weight)


@pytest.mark.parametrize("stage", [0, 1])
def test_training_behind_a_frozen_encoder(stage, tmp_path):
    """Streams stay those of the student until a stage learns other rates; its layers always do."""
    recipe = recipes()["bccd-shallow_injection-variable"].model_dump(mode="json")
    recipe["models"][0]["preprocessing"] = {"resize": 64, "crop": [64, 64]}
    # Without the teacher, heads begin at random.
    recipe["teacher"], recipe["stages"] = "", [recipe["stages"][stage] | {"epochs": 1}]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    folder = train(plan_of(path, make_coco(tmp_path / "data"), tmp_path / "run"))
    model, student = zoo.load(folder), zoo.load(STUDENT)
    assert model.spec.labels == ("__background__", "N/A", "N/A", "disc")
    student.calibration = None
    assert (model.device_digest() == student.device_digest()) == (stage == 0)
    for name, tensor in student.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], tensor), name
    moved = model.bottleneck.gain_factors - student.bottleneck.gain_factors
    assert bool(moved.abs().max() > 1e-3) == (stage == 1)
    for (name, ours), theirs in zip(
        model.decoder.get_submodule("g_s").named_parameters(),
        student.decoder.get_submodule("g_s").parameters(),
        strict=True,
    ):
        assert not torch.equal(ours, theirs), name
