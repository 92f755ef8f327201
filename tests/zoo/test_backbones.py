"""Backbones: the table, any network of timm, and pretrained weights."""

import copy
import math

import pytest
import torch
from safetensors.torch import save_file
from small_models import build_network, made_image

from splitrun.errors import SpecError, UnknownNameError, WeightsNotFoundError
from splitzoo.zoo.backbones import build, cut, derive, table, weights
from splitzoo.zoo.backbones.table import BACKBONES, Backbone, Stage

# Layer and channels at stride 4, sc2bench's layer; sides resized and cropped, interpolation.
RESNET = ("layer1", 256, "layer2", 256, 224, "bilinear")
DENSENET = ("features.denseblock1", 256, "features.transition2", 256, 224, "bilinear")
HYBRID = ("patch_embed.backbone.stages.0", 256, "", 248, 224, "bicubic")
PAPER = {
    **dict.fromkeys(("resnet50", "resnet101", "resnet152"), RESNET),
    "regnety6.4gf": ("s1", 144, "", 256, 224, "bicubic"),
    "hybrid_vit_small_r26_s32_224": HYBRID,
    **dict.fromkeys(("densenet169", "densenet201"), DENSENET),
    "inception_v3": ("", 0, "Pool2", 342, 299, "bilinear"),
    "tf_efficientnet_l2_ns": ("blocks.1", 104, "", 833, 800, "bicubic"),
    "tf_efficientnet_l2_ns_475": ("blocks.1", 104, "", 507, 475, "bicubic"),
}


# ── entries ──────────────────────────────────────────────────────────────────────────────────────


def test_the_papers_backbones_are_registered():
    lite = {f"tf_efficientnet_lite{number}" for number in range(3)}  # not in the paper
    assert set(BACKBONES.names()) == PAPER.keys() | lite
    assert table.find_backbone("regnety_064") is BACKBONES.get("regnety6.4gf")
    for name, (layer, channels, reduction, resize, crop, interpolation) in PAPER.items():
        entry = BACKBONES.get(name)
        given = entry.preprocessing
        assert (entry.name, entry.reduction) == (name, reduction)
        sizes = (given.resize, given.crop, given.interpolation)
        assert sizes == (resize, (crop, crop), interpolation)
        if layer:
            assert (entry.layer, entry.channels) == (layer, channels)


@pytest.mark.parametrize("name", PAPER)
def test_entries_say_what_timm_builds(name):
    entry = BACKBONES.get(name)
    with torch.device("meta"):
        model = build.build_whole(entry.timm_name).eval()
    from splitzoo.zoo.backbones.derive import output_shapes

    height, width = entry.preprocessing.crop
    shapes = output_shapes(model, (height, width))
    for stage in entry.stages:
        size = math.ceil(height / stage.stride), math.ceil(width / stage.stride)
        assert shapes[stage.layer] == (stage.channels, *size)
    layers = [stage.layer for stage in entry.stages]
    points = cut.cut_points(model, layers)
    assert [layer for layer in points if layer in layers] == layers
    if entry.reduction:
        assert entry.reduction in cut.cut_points(model, [entry.reduction])
    timm_name = weights.timm_weights_name(entry.base_model)
    assert timm_name.split(".")[0] == entry.timm_name
    if name in ("resnet50", "regnety6.4gf"):
        assert derive.any_timm(entry.timm_name).stages == entry.stages


def test_a_backbone_without_a_fitting_layer_says_so():
    for name in ("inception_v3", "vit_tiny_patch16_224"):
        entry = table.find_backbone(name)
        with pytest.raises(
            SpecError, match=rf"{name} cannot be cut at .* stride 4,.*\n.*{name}-jpeg-q90"
        ):
            _ = entry.layer
    with pytest.raises(SpecError, match=r"no channel-reduction network for regnety6\.4gf"):
        _ = BACKBONES.get("regnety6.4gf").reduction_layer
    assert BACKBONES.get("densenet201").reduction_layer == "features.transition2"


# ── any network of timm ──────────────────────────────────────────────────────────────────────────


def test_a_modern_network_that_the_paper_lacks():
    entry = table.find_backbone("convnext_atto")
    assert entry == Backbone(
        name="convnext_atto",
        timm_name="convnext_atto",
        stages=tuple(Stage(f"stages.{index}", 40 << index, 4 << index) for index in range(4)),
        preprocessing=entry.preprocessing,
        base_model="timm/convnext_atto.d2_in1k",
    )
    assert entry.preprocessing.resize == 256
    assert entry.preprocessing.interpolation == "bicubic"
    assert entry.preprocessing.mean == (0.485, 0.456, 0.406)
    # And one for microcontrollers.
    entry = table.find_backbone("tinynet_e")
    assert entry.stage_of(4) == Stage("blocks.1", 16, 4)
    assert entry.preprocessing.crop == (106, 106)
    assert entry.base_model == "timm/tinynet_e.in1k"
    # A tag picks the weights.
    entry = table.find_backbone("test_resnet.r160_in1k")
    assert (entry.name, entry.timm_name) == ("test_resnet.r160_in1k", "test_resnet")
    assert entry.base_model == "timm/test_resnet.r160_in1k"


def test_names_that_timm_does_not_know():
    close = {
        "convnext_ato": "convnext_atto",
        "test_resnet.r160_in1": "test_resnet.r160_in1k",
        "tf_efficientnet_l2_ns_jft": "tf_efficientnet_l2",
    }
    without = ("hf-hub:timm/resnet50.a1_in1k", "local-dir:/tmp", "timm/resnet50", "")
    for name in (*close, *without):
        with pytest.raises(UnknownNameError) as caught:
            table.find_backbone(name)
        assert caught.value.name == name
        assert name in without or close[name] in caught.value.matches


# ── building ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["test_resnet", "regnety_002", "convnext_atto", "poolformer_s12"])
def test_untrained_branches_take_part(name):
    import timm

    gates = ("bn3.weight", "bn2.weight", "bn.weight", "gamma", "scale")
    own = timm.create_model(name)
    asleep = {
        key
        for key, value in own.named_parameters()
        if key.endswith(gates) and value.abs().max() < 1e-3
    }
    assert asleep
    ours = dict(build_network(name).named_parameters())
    assert all(torch.equal(ours[key], torch.ones_like(ours[key])) for key in asleep)


def test_random_weights_are_timms_own_but_for_classifiers_of_zeros():
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = timm.create_model("test_resnet", zero_init_last=False).state_dict()
    built = build_network("test_resnet", seed=3).state_dict()
    assert built.keys() == expected.keys()
    assert all(torch.equal(built[key], expected[key]) for key in expected)
    name = "hiera_tiny_224"
    assert not timm.create_model(name, num_classes=4).head.fc.weight.any()
    assert 0.01 < build_network(name, num_classes=4).head.fc.weight.std() < 0.03


def test_networks_are_built_for_another_input_size_and_whole_without_a_layer():
    name, layer = "vit_tiny_r_s16_p8_224", "patch_embed.backbone"
    tail = build.build_tail(name, layer, 10, (64, 64)).eval()
    head = build.build_head(name, layer, (64, 64)).eval()
    whole = build.build_tail("test_resnet", None, num_classes=6).eval()
    image = made_image(1, 3, 64, 64)
    with torch.no_grad():
        assert tail(head(image)).shape == (1, 10)
        assert whole(image).shape == (1, 6)


def test_what_timm_does_not_build_is_a_spec_error():
    with pytest.raises(SpecError, match="with output_stride 8"):
        build.build_features("test_vit", None, ["blocks.0"], output_stride=8)
    with pytest.raises(UnknownNameError):
        build.build_tail("hf-hub:timm/resnet50.a1_in1k", "layer1")


# ── pretrained weights ───────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network and the file of its weights."""
    whole = build_network("test_resnet", seed=5)
    file = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(whole.state_dict(), file)
    return whole, file


def test_pretrained_weights_load_into_parts(trained):
    whole, file = trained
    image = made_image(1, 3, 64, 64)
    head = build.build_head("test_resnet", "layer2").eval()
    tail = build.build_tail("test_resnet", "layer2").eval()
    for part in (head, tail):
        weights.load_timm_weights(part, "timm/test_resnet.r160_in1k", file=file)
    with torch.no_grad():
        assert torch.equal(tail(head(image)), whole(image))


def test_pretrained_weights_that_do_not_fit_are_refused_and_never_unpickled(trained, tmp_path):
    _, file = trained
    name = "timm/test_resnet.r160_in1k"
    tail = build.build_tail("test_resnet", "layer2", num_classes=10)
    before = copy.deepcopy(tail.state_dict())
    said = r"2 tensors, .* fc.weight \(10×96 here, 1000×96"
    with pytest.raises(WeightsNotFoundError, match=said):
        weights.load_timm_weights(tail, name, file=file)
    assert all(torch.equal(tensor, before[key]) for key, tensor in tail.state_dict().items())
    other = build.build_tail("regnety_002", "s1")
    with pytest.raises(WeightsNotFoundError, match="do not fit"):
        weights.load_timm_weights(other, name, file=file)
    with pytest.raises(WeightsNotFoundError, match="is not a safetensors file"):
        weights.load_timm_weights(tail, name, file=tmp_path / "weights.pth")


def test_names_of_weights():
    import timm

    for name in ("", "resnet50.tv_in1k", "timm/resnet50.nothing", "a/b"):
        with pytest.raises(WeightsNotFoundError, match="timm knows no such weights"):
            weights.timm_weights_name(name)
    # Other owners than timm have some too.
    repositories = (timm.get_pretrained_cfg(name).hf_hub_id for name in timm.list_pretrained())
    owned = next(name for name in repositories if name and not name.startswith("timm/"))
    assert timm.get_pretrained_cfg(weights.timm_weights_name(owned)).hf_hub_id == owned
