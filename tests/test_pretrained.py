"""Models made of published parts, with parts that are made here in place of downloads."""

import pytest
import safetensors.torch
import torch
import torchvision

from splitzoo import zoo
from splitzoo.errors import WeightsNotFoundError
from splitzoo.zoo import pretrained
from splitzoo.zoo.backbones import build_whole
from splitzoo.zoo.tasks.detection import DetectionTail
from splitzoo.zoo.tasks.segmentation import SegmentationTail


def old_spelling(name: str) -> str:
    """As the published file of Faster R-CNN has it."""
    name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
    for block in ("inner", "layer"):
        for number in range(4):
            stem = f"backbone.fpn.{block}_blocks.{number}"
            name = name.replace(f"{stem}.0.", f"{stem}.")
    return name


@pytest.mark.parametrize("spell", [str, old_spelling], ids=["today", "published"])
@torch.no_grad()
def test_torchvision_s_detector_goes_into_ours(spell) -> None:
    theirs = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=5
    ).eval()
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 0.0  # as torchvision sets it for the published weights
    tail = DetectionTail("resnet50", None, 5, (64, 64)).eval()
    state = {spell(name): tensor for name, tensor in theirs.state_dict().items()}
    pretrained.load_torchvision(tail, state)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = theirs.backbone(image)["0"]
    assert torch.allclose(tail.dense(image)[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_torchvision_s_segmentation_goes_into_ours() -> None:
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    ).eval()
    tail = SegmentationTail("resnet50", None, 5, (64, 64)).eval()
    pretrained.load_torchvision(tail, theirs.state_dict())
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tail(image), theirs(image)["out"], rtol=1e-4, atol=1e-5)


def test_a_state_of_another_network_is_refused() -> None:
    tail = SegmentationTail("resnet50", None, 5, (64, 64))
    with pytest.raises(WeightsNotFoundError, match="other tensors"):
        pretrained.load_torchvision(tail, {"backbone.conv1.weight": torch.zeros(1)})


def test_timm_s_weights_reach_both_sides_of_a_feature_codec(monkeypatch, tmp_path) -> None:
    spec = zoo.get_spec("resnet50-layer2-jpeg-q90")
    whole = build_whole("resnet50")
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(whole.state_dict(), file)
    load = pretrained.load_timm_weights
    monkeypatch.setattr(
        pretrained, "load_timm_weights", lambda part, name: load(part, name, file=file)
    )
    model = pretrained.assemble(zoo.build(spec))
    assert model.random_seed is None
    held = model.encoder.state_dict() | model.decoder.get_submodule("tail").state_dict()
    assert held.keys() == whole.state_dict().keys()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(held[name], tensor)


def test_weights_that_torchvision_does_not_publish_are_an_error() -> None:
    model = zoo.build("deeplabv3_resnet152-jpeg-q90")
    with pytest.raises(WeightsNotFoundError, match="torchvision publishes none for resnet152"):
        pretrained.assemble(model)
