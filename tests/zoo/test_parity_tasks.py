"""The same weights in sc2bench's and torchvision's dense models and in ours."""

import numpy as np
import pytest
import torch
from dense_models import enliven
from torch import nn
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.segmentation import deeplabv3_resnet50

from splitrun.predictions.detection import DetectionSettings, detect
from splitrun.strict_json import read_strictly
from splitzoo.zoo.tasks.detection import DetectionTail
from splitzoo.zoo.tasks.segmentation import SegmentationTail

# sc2bench and what it imports use deprecated interfaces of other packages: theirs to fix.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

SIZE = (128, 160)
BOTTLENECK = "bottleneck_layer."
# Of largest values: the same layers on the same features, only the order of additions may differ.
# Another epsilon of the batch norms would be 6e-5.
TOLERANCE = 1e-5


def splittable(**options):
    return {
        "key": "splittable_resnet",
        "kwargs": {
            "resnet_name": "resnet50",
            "skips_avgpool": True,
            "skips_fc": True,
            "bottleneck_config": {
                "key": "FPBasedResNetBottleneck",
                "kwargs": {"num_bottleneck_channels": 24, "num_target_channels": 256},
            },
            **options,
        },
    }


def some_image(seed=0):
    coarse = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


# Detection


def copy_detector(peer, ours):
    weights = {name.removeprefix("backbone."): one for name, one in peer.state_dict().items()}
    weights = {name: one for name, one in weights.items() if BOTTLENECK not in name}
    # Frozen batch norms do not count batches; everything else has its place.
    counters = {name for name in weights if name.endswith(".num_batches_tracked")}
    assert weights.keys() - counters == ours.state_dict().keys()
    ours.load_state_dict(weights)
    return ours.eval()


@pytest.fixture(scope="module")
def sc2bench_detector():
    detection = pytest.importorskip("sc2bench.models.detection.rcnn")
    pytest.importorskip("sc2bench.models.backbone")
    torch.manual_seed(0)
    peer = detection.faster_rcnn_model(
        splittable(),
        pretrained=False,
        num_classes=91,
        backbone_fpn_kwargs={
            "return_layer_dict": {
                "bottleneck_layer": "1",
                "layer2": "2",
                "layer3": "3",
                "layer4": "4",
            },
            "in_channels_list": [256, 512, 1024, 2048],
            "out_channels": 256,
            "analyzable_layer_key": "bottleneck_layer",
        },
        min_size=SIZE[0],
        max_size=SIZE[1],
    )
    # What sc2bench does after loading torchvision's weights for COCO; in vain, as none is frozen.
    overwrite_eps(peer, 0.0)
    return enliven_detector(peer)


@pytest.fixture(scope="module")
def torchvision_detector():
    torch.manual_seed(0)
    peer = fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=SIZE[0], max_size=SIZE[1]
    )
    # With its weights for COCO torchvision freezes the batch norms, and overwrites their epsilon.
    for layer in peer.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = 0.0
    return enliven_detector(peer)


@torch.no_grad()
def enliven_detector(peer):
    enliven(peer)
    # Ninety-one classes share the probability: few are sure but where logits lie far apart.
    peer.roi_heads.box_predictor.cls_score.weight *= 3
    return peer


def dense_of(peer, features):
    """Levels, objectness and deltas as the peer has them."""
    levels = peer.backbone.fpn(features)
    objectness, deltas = peer.rpn.head(list(levels.values()))
    flat = [one.permute(0, 2, 3, 1).reshape(1, -1) for one in objectness]
    moved = [one.unflatten(1, (3, 4)).permute(0, 3, 4, 1, 2).reshape(1, -1, 4) for one in deltas]
    return list(levels.values())[:-1], torch.cat(flat, 1), torch.cat(moved, 1)


def compare_detections(found, expected):
    """As :func:`compare`, of boxes, labels and scores in any order of nearly equal scores."""
    assert len(expected["boxes"]) >= 20
    assert len(expected["labels"].unique()) >= 3
    assert found["boxes"].shape == expected["boxes"].shape
    distance = (found["boxes"][:, None] - expected["boxes"]).abs().amax(2)
    distance[found["labels"][:, None] != expected["labels"]] = torch.inf
    least, like = distance.min(dim=1)
    assert sorted(like.tolist()) == list(range(len(like)))
    assert least.max() <= 1e-4 * max(SIZE)
    assert (found["scores"] - expected["scores"][like]).abs().max() <= 1e-4


@torch.no_grad()
def detections(ours, features):
    """What our tail finds, and what the steps outside of torch find with its two stages."""
    (found,) = ours(features)

    def run_boxes(tensors):
        return [one.numpy() for one in ours.boxes(*map(torch.from_numpy, tensors))]

    settings = read_strictly(DetectionSettings, ours.settings())
    boxes = detect([one.numpy() for one in ours.dense(features)], run_boxes, settings)
    outside = {name: torch.from_numpy(getattr(boxes, name)) for name in found}
    return found, outside


def assert_same_detector(peer, ours, given, images, image):
    """Compare the tail on what it is given, its dense outputs first, then what it finds."""
    levels, objectness, deltas = dense_of(peer, peer.backbone.body(images.tensors))
    expected = (*levels[: len(ours.dense_outputs) - 2], objectness, deltas)
    for found, wanted in zip(ours.dense(given), expected, strict=True):
        assert_close(found, wanted)
    (expected,) = peer([image[0]])
    for found in detections(ours, given):
        compare_detections(found, expected)
    assert peer.roi_heads.box_roi_pool.scales == ours.roi_heads.box_roi_pool.scales


@torch.no_grad()
def test_detection_is_sc2benchs(sc2bench_detector):
    peer = sc2bench_detector
    image = some_image()
    images, _ = peer.transform([image[0]])
    assert images.tensors.shape == (1, 3, *SIZE)
    features = peer.backbone.body.bottleneck_layer(images.tensors)
    ours = copy_detector(peer, DetectionTail("resnet50", "layer1", 91, SIZE))
    assert ours.dense_outputs == ("p2", "p3", "p4", "objectness", "deltas")
    assert_same_detector(peer, ours, features, images, image)
    # The peer's names of levels, "1" to "4", meet torchvision's "0" to "3" in three.
    assert len(ours.roi_heads.box_roi_pool.scales) == 3
    # It means its batch norms to be frozen, which they are not.
    norms = {type(module).__name__ for module in peer.modules() if "BatchNorm" in str(module)}
    assert "BatchNorm2d" in norms
    assert "FrozenBatchNorm2d" not in norms


@torch.no_grad()
def test_detection_without_a_cut_is_torchvisions(torchvision_detector):
    peer = torchvision_detector
    image = some_image(1)
    images, _ = peer.transform([image[0]])
    ours = copy_detector(peer, DetectionTail("resnet50", None, 91, SIZE))
    assert_same_detector(peer, ours, images.tensors, images, image)
    assert len(ours.roi_heads.box_roi_pool.scales) == 4


@torch.no_grad()
def test_losses_are_torchvisions(torchvision_detector):
    peer = torchvision_detector
    ours = copy_detector(peer, DetectionTail("resnet50", None, 91, SIZE))
    targets = [{"boxes": torch.tensor([[10.0, 10, 90, 80]]), "labels": torch.tensor([17])}]
    images, _ = peer.transform([some_image(2)[0]])
    pyramid = peer.backbone(images.tensors)
    for part in (peer.rpn, peer.roi_heads, ours):
        part.train()
    # Both choose the boxes that count at random.
    torch.manual_seed(3)
    proposals, expected = peer.rpn(images, pyramid, targets)
    expected |= peer.roi_heads(pyramid, proposals, images.image_sizes, targets)[1]
    torch.manual_seed(3)
    found = ours.losses(images.tensors, targets)
    peer.eval()
    assert found.keys() == expected.keys()
    assert len(expected) == 4
    for name, value in expected.items():
        assert value > 0
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=0)


# Segmentation


def copy_segmentation(peer, ours):
    weights = {
        name.replace("backbone.", "body.", 1) if name.startswith("backbone.") else name: one
        for name, one in peer.state_dict().items()
        if BOTTLENECK not in name
    }
    assert weights.keys() == ours.state_dict().keys()
    ours.load_state_dict(weights)
    return ours.eval()


def assert_same_segmentation(expected, ours, given):
    main, auxiliary = ours.forward_with_aux(given)
    assert_close(main, expected["out"])
    assert_close(auxiliary, expected["aux"])
    return main


# 129×161 as 513: features of 33×41, which 132×164 pixels would have too.
@pytest.mark.parametrize("size", [(128, 160), (129, 161)])
@torch.no_grad()
def test_segmentation_is_sc2benchs(size):
    segmentation = pytest.importorskip("sc2bench.models.segmentation.deeplabv3")
    pytest.importorskip("sc2bench.models.backbone")
    torch.manual_seed(0)
    peer = segmentation.deeplabv3_model(
        splittable(replace_stride_with_dilation=[False, True, True]),
        pretrained=False,
        uses_aux=True,
        return_layer_dict={"layer3": "aux", "layer4": "out"},
        analyzable_layer_key="bottleneck_layer",
    )
    enliven(peer)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = peer(image)
    features = peer.backbone.bottleneck_layer(image)
    assert features.shape == (1, 256, (size[0] + 3) // 4, (size[1] + 3) // 4)
    ours = copy_segmentation(peer, SegmentationTail("resnet50", "layer1", 21, size))
    main = assert_same_segmentation(expected, ours, features)
    assert torch.equal(ours(features), main)


@torch.no_grad()
def test_segmentation_without_a_cut_is_torchvisions():
    torch.manual_seed(0)
    peer = enliven(deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=True))
    image = torch.randn(1, 3, 129, 161, generator=torch.Generator().manual_seed(1))
    ours = copy_segmentation(peer, SegmentationTail("resnet50", None, 21, (129, 161)))
    main = assert_same_segmentation(peer(image), ours, image)
    assert np.unique(main.argmax(1)).size >= 3
