"""Models made of published parts, with parts that are made here in place of downloads."""

import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from splitrun.errors import HubError, SpecError, WeightsNotFoundError
from splitzoo import zoo
from splitzoo.zoo import pretrained
from splitzoo.zoo.backbones.build import build_whole
from splitzoo.zoo.bottlenecks.neural_codec import model_urls
from splitzoo.zoo.catalog import has_weights
from splitzoo.zoo.config import WEIGHTS_NAME
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
def test_torchvision_s_segmentation_goes_into_ours_and_another_network_s_does_not() -> None:
    theirs = torchvision.models.segmentation.deeplabv3_resnet50(
        weights=None, weights_backbone=None, num_classes=5, aux_loss=True
    ).eval()
    tail = SegmentationTail("resnet50", None, 5, (64, 64)).eval()
    pretrained.load_torchvision(tail, theirs.state_dict())
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tail(image), theirs(image)["out"], rtol=1e-4, atol=1e-5)
    with pytest.raises(WeightsNotFoundError, match="other tensors"):
        pretrained.load_torchvision(tail, {"backbone.conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("name", "backbone"),
    [("resnet50-layer2-jpeg-q90", "resnet50"), ("test_vit-blocks.2-webp-q50", "test_vit")],
)
def test_timm_s_weights_reach_both_sides_of_a_feature_codec(hub, name, backbone) -> None:
    spec = zoo.get_spec(name)
    whole = build_whole(backbone)
    hub.publish(spec.base_model, {WEIGHTS_NAME: safetensors.torch.save(whole.state_dict())})
    model = zoo.load(name)
    assert model.random_seed is None
    held = model.encoder.state_dict() | model.decoder.get_submodule("tail").state_dict()
    assert held.keys() == whole.state_dict().keys()
    for key, tensor in whole.state_dict().items():
        assert torch.equal(held[key], tensor)
    # What is at hand is taken where the Hub cannot be reached, and nobody waits for it.
    assert has_weights(name)
    hub.close()
    assert zoo.load(name).digest() == model.digest()
    assert hub.waits == []


def test_published_parts_that_cannot_be_reached_are_asked_for_once(hub) -> None:
    """timm asks for two files, five times each: a minute of waits without a network."""
    hub.fault("HEAD", "test_resnet", times=99, hang_up=True)
    for name in ("test_resnet-jpeg-q90", "test_resnet-layer2-webp-q9"):
        hub.requests.clear()
        with pytest.raises(HubError, match="Cannot fetch timm/test_resnet"):
            zoo.load(name)
        assert len(hub.seen()) == 1
    assert hub.waits == []
    hub.close()
    with pytest.raises(HubError, match="refuses connections"):
        zoo.load(name)
    assert hub.waits == []


def test_downloads_of_torch_hub_have_a_limit_of_time(monkeypatch) -> None:
    limits = []

    def slow(*_given, **_named):
        limits.append(socket.getdefaulttimeout())
        raise TimeoutError("timed out")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", slow)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", slow)
    for name in (CODEC, DETECTOR):
        model = zoo.build(name)
        monkeypatch.setattr(pretrained, "_load_classifier", lambda *_: None)
        with pytest.raises(WeightsNotFoundError, match="timed out"):
            pretrained.assemble(model)
    assert limits == [10, 10]
    assert socket.getdefaulttimeout() is None


# What is at hand, and what load was told

CODEC = "resnet50-factorized_prior-q8"
DETECTOR = "faster_rcnn_resnet50-jpeg-q90"


@pytest.fixture
def offline(hub, monkeypatch, tmp_path):
    """Empty caches, and a Hub that nobody may ask."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", pytest.fail)
    yield tmp_path
    assert hub.requests == []


def test_local_files_only_makes_no_request_and_says_what_is_missing(offline, monkeypatch) -> None:
    for name in ("test_resnet-jpeg-q90", DETECTOR):
        with pytest.raises(WeightsNotFoundError, match="local_files_only is set") as caught:
            zoo.load(name, local_files_only=True)
        assert "splitzoo zoo pull" in caught.value.next_step
    monkeypatch.setattr(pretrained, "_load_classifier", lambda *_: None)
    model = zoo.build("test_resnet-factorized_prior-q1")
    with pytest.raises(WeightsNotFoundError, match=r"torch/checkpoints/bmshj2018-factorized-"):
        pretrained.assemble(model, local_files_only=True)


def test_weights_that_nobody_publishes_are_an_error(offline) -> None:
    unpublished = zoo.get_spec("resnet50-jpeg-q90").model_copy(update={"base_model": ""})
    for model, said in (
        ("deeplabv3_resnet152-jpeg-q90", "torchvision publishes none for resnet152"),
        (unpublished, "timm publishes none for resnet50"),
    ):
        with pytest.raises(WeightsNotFoundError, match=said) as caught:
            pretrained.assemble(zoo.build(model))
    assert "pretrained=False" in caught.value.next_step


def published(cache, repo, state):
    """Put a network's weights into a cache as the Hub's own client does."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    safetensors.torch.save_file(state, folder / "snapshots" / ("0" * 40) / "model.safetensors")


def test_published_parts_are_found_in_a_cache_of_ones_own(offline) -> None:
    spec = zoo.get_spec("test_resnet-jpeg-q90")
    whole = build_whole("test_resnet", spec.num_classes)
    published(offline / "mine", spec.base_model, whole.state_dict())
    model = zoo.load(spec.name, cache_dir=offline / "mine", local_files_only=True)
    held = model.decoder.get_submodule("tail").state_dict()
    assert all(torch.equal(held[name], one) for name, one in whole.state_dict().items())
    with pytest.raises(WeightsNotFoundError):
        zoo.load(spec.name, local_files_only=True)


def test_models_of_published_parts_are_at_hand_with_their_files(offline) -> None:
    from huggingface_hub import constants

    assert not any(map(has_weights, ("resnet50-jpeg-q90", CODEC, DETECTOR)))
    spec = zoo.get_spec("resnet50-jpeg-q90")
    published(Path(constants.HF_HUB_CACHE), spec.base_model, {"one": torch.zeros(1)})
    assert has_weights("resnet50-jpeg-q90")
    assert not has_weights(CODEC)
    checkpoints = offline / "torch" / "checkpoints"
    checkpoints.mkdir(parents=True)
    codec = zoo.get_spec(CODEC).bottleneck
    url = model_urls[codec.architecture][codec.metric][codec.quality]
    (checkpoints / url.rpartition("/")[2]).touch()
    assert has_weights(CODEC)
    (checkpoints / "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth").touch()
    assert has_weights(DETECTOR)
    assert not has_weights("faster_rcnn_resnet101-jpeg-q90")


def test_published_parts_have_no_repository_and_no_revision(offline) -> None:
    with pytest.raises(WeightsNotFoundError, match="made of published parts") as caught:
        zoo.fetch("resnet50-jpeg-q90")
    assert "splitzoo zoo pull resnet50-jpeg-q90" in caught.value.next_step
    with pytest.raises(SpecError, match="has no revisions"):
        zoo.load("resnet50-jpeg-q90", revision="v1")


def test_pull_of_published_parts_says_what_it_does_not_use(splitzoo, monkeypatch, tmp_path) -> None:
    loaded = []
    monkeypatch.setattr("splitzoo.zoo.resolve.ModelSource.load", lambda self: loaded.append(self))
    code, out, err = splitzoo(
        *("zoo", "pull", "resnet50-jpeg-q90", "--cache-dir", tmp_path, "--token", "hf_secretsecret")
    )
    assert (code, out, [source.cache_dir for source in loaded]) == (0, "", [tmp_path])
    assert "--token was not used" in err
    assert "hf_secret" not in err


def test_a_config_is_fetched_as_load_was_told(hub, tiny_folder, tmp_path) -> None:
    told = {"pretrained": False, "cache_dir": tmp_path / "mine"}
    with pytest.raises(WeightsNotFoundError, match="local_files_only"):
        zoo.load("org/tiny", local_files_only=True, revision="v2", **told)
    assert hub.requests == []
    sha = hub.publish("org/tiny", tiny_folder)
    assert zoo.load("org/tiny", revision=sha, **told).random_seed == 0
    assert all(f"/resolve/{sha}/" in request for request in hub.seen())
    hub.requests.clear()
    zoo.load("org/tiny", local_files_only=True, revision=sha, **told)
    assert hub.requests == []
