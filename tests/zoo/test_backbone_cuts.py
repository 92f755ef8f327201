"""Networks of timm, cut: the parts are the whole, or the cut is refused."""

import copy
import functools
import math

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import build_network, made_image
from torch import nn
from torch.nn import functional

from splitrun.errors import SpecError, UnknownNameError
from splitzoo.zoo.backbones import build, cut, table

# One of each way to be built: plain, dense, transformer, channels last, named only by looking.
SMALL = {
    "test_resnet": ("layer1", 32),
    "regnety_002": ("s1", 24),
    "densenet121": ("features.denseblock1", 256),
    "convnext_atto": ("stages.0", 40),
    "mobilenetv3_small_050": ("blocks.0", 8),
    "tinynet_e": ("blocks.1", 16),
    "vit_tiny_r_s16_p8_224": ("patch_embed.backbone", 64),
    "mambaout_femto": ("stages.0", 48),
    "levit_128s": ("stem.act2", 32),
}
OF_ONE_SIZE = ("vit_tiny_r_s16_p8_224", "levit_128s")


@functools.cache
def built(name):
    """A network of ten classes to be left as it is."""
    return build_network(name, num_classes=10)


@pytest.fixture(scope="module")
def resnet():
    return built("test_resnet")


# ── cuts ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SMALL)
def test_head_then_tail_is_the_whole(name):
    entry, whole = table.find_backbone(name), built(name)
    layer, channels = SMALL[name]
    assert (entry.layer, entry.channels) == (layer, channels)
    head, tail = cut.head(whole, layer), cut.tail(whole, layer)
    height, width = entry.preprocessing.crop if name in OF_ONE_SIZE else (64, 96)
    image = made_image(2, 3, height, width)
    with torch.no_grad():
        expected = whole(image)
        features = head(image)
        logits = tail(features)
    assert features.shape == (2, channels, math.ceil(height / 4), math.ceil(width / 4))
    assert logits.shape == (2, 10)
    assert torch.equal(logits, expected)
    assert not torch.equal(logits[0], logits[1])
    # The parts are the model's own modules under timm's names, and share no tensor.
    before, after = head.state_dict(), tail.state_dict()
    assert not before.keys() & after.keys()
    assert before.keys() | after.keys() == whole.state_dict().keys()
    assert any(key.startswith(f"{layer}.") for key in before) or name == "levit_128s"
    owned = {id(parameter) for parameter in whole.parameters()}
    assert {id(parameter) for parameter in tail.parameters()} <= owned


@pytest.mark.parametrize(
    ("name", "layer", "layout", "shape"),
    [
        # The tokens of 16×16 patches, with a class token or without; pooled features.
        ("vit_tiny_patch16_224", "blocks.3", "tokens", (192, 197, 1)),
        ("mixer_s32_224", "blocks.2", "tokens", (512, 49, 1)),
        ("test_resnet", "global_pool", "vector", (96, 1, 1)),
    ],
)
def test_tokens_and_vectors_are_handed_over_as_planes(name, layer, layout, shape):
    whole = built(name)
    head, tail = cut.head(whole, layer, layout), cut.tail(whole, layer, layout)
    image = made_image(2, 3, 224, 224)
    found = []
    hook = whole.get_submodule(layer).register_forward_hook(lambda *given: found.append(given[2]))
    with torch.no_grad():
        expected = whole(image)
        hook.remove()
        features = head(image)
        assert features.shape == (2, *shape)
        # timm's own: tokens (N, L, C), a vector (N, C).
        own = found[0][..., None] if layout == "vector" else found[0].transpose(1, 2)
        assert torch.equal(features, own[..., None])
        assert torch.equal(tail(features), expected)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_every_cut_point_divides_exactly(data):
    whole = built(data.draw(st.sampled_from(["test_resnet", "test_efficientnet", "test_convnext"])))
    named = [module for module, _ in whole.named_modules() if module]
    near = data.draw(st.sampled_from(named))
    points = cut.cut_points(whole, [near])
    assert points
    layer = data.draw(st.sampled_from(points))
    image = made_image(1, 3, 64, 64, seed=data.draw(st.integers(0, 99)))
    with torch.no_grad():
        logits = cut.tail(whole, layer)(cut.head(whole, layer)(image))
        assert torch.equal(logits, whole(image))


def test_layers_are_cut_points_or_refused(resnet):
    points = cut.cut_points(resnet, ["layer1.0.conv1"])
    within = [f"layer1.0.{name}" for name, _ in resnet.layer1[0].named_children()]
    inside = [layer for layer in within if layer not in (*points, "layer1.0.downsample")]
    for layer in (*inside, "layer2.0.conv1"):
        with pytest.raises(SpecError) as caught:
            cut.tail(resnet, layer)
        assert "test_resnet" in caught.value.message
    assert caught.value.message == (
        "test_resnet cannot be cut after layer2.0.conv1: later layers also need what was "
        "computed before it."
    )
    assert caught.value.next_step.startswith("It can be cut after conv1, bn1, ")
    assert "layer1" in caught.value.next_step
    # The head of such a layer is fine: feature extraction alone does not need the tail.
    with torch.no_grad():
        assert cut.head(resnet, "layer2.0.conv1")(made_image(1, 3, 32, 32)).ndim == 4
    with pytest.raises(SpecError, match=r"It can be cut after .*features\.denseblock1"):
        cut.tail(built("densenet121"), "features.denseblock2.denselayer3")
    with pytest.raises(UnknownNameError) as caught:
        cut.head(resnet, "layer7")
    assert caught.value.kind == "layer of test_resnet"
    assert caught.value.matches
    assert set(caught.value.matches) <= {"layer1", "layer2", "layer3", "layer4"}
    with pytest.raises(UnknownNameError):
        cut.tail(resnet, "")


class Odd(nn.Module):
    """Runs its layers in a way that makes a cut wrong."""

    def __init__(self, way="") -> None:
        super().__init__()
        self.way = way
        self.first = nn.Conv2d(3, 3, 3)
        self.second = nn.Conv2d(3, 3, 3)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.ReLU()

    def forward(self, image):
        features = self.first(image)
        if self.way == "mul_":
            features.mul_(2)
        elif self.way == "relu":
            self.relu(features)
        elif self.way == "value":
            features = features if features.sum() > 0 else -features
        else:
            features = self.first(features)
        return self.last(functional.conv2d(features, self.second.weight))


@pytest.mark.parametrize(
    ("cut", "way", "layer", "message"),
    [
        (cut.tail, "", "second", "second runs 0 times as a module in Odd"),
        (cut.head, "", "first", r"first runs 2 times .*\nIt can be cut after first, first,"),
        (cut.head, "value", "first", "Odd cannot be cut: its forward cannot be traced"),
        (cut.tail, "mul_", "first", r"changes features in place \(mul_\)"),
        (cut.tail, "relu", "first", r"changes features in place \(relu\)"),
    ],
)
def test_a_network_that_cannot_be_cut_is_refused_and_left_as_it_was(cut, way, layer, message):
    model = Odd(way)
    with pytest.raises(SpecError, match=message):
        cut(model, layer)
    assert model.training


def test_the_models_mode_is_left_as_it_was_and_parts_are_copied_and_trained():
    whole = build_network("test_resnet").train()
    whole.layer3.eval()
    tail = cut.tail(whole, "layer1")
    assert whole.training
    assert whole.layer2.training
    assert not any(module.training for module in whole.layer3.modules())
    twin = copy.deepcopy(tail).eval()
    features = made_image(2, 32, 8, 8)
    assert torch.equal(tail.eval()(features), twin(features))
    tail.train()(features).sum().backward()
    assert all(parameter.grad is not None for parameter in tail.parameters())
    assert all(parameter.grad is None for parameter in twin.parameters())


def test_parts_are_cut_on_the_meta_device():
    with torch.device("meta"):
        tail = build.build_tail("resnet50", "layer1").eval()
        assert tail(torch.empty(1, 256, 8, 8)).shape == (1, 1000)
    assert all(parameter.is_meta for parameter in tail.parameters())


# ── dense tasks ──────────────────────────────────────────────────────────────────────────────────


def test_features_of_several_layers():
    layers = ("layer1", "layer2", "layer3", "layer4")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        part = build.build_features("test_resnet", "layer1", layers).eval()
    with torch.no_grad():
        whole = build_network("test_resnet")
        expected = cut.features(whole, layers)(made_image(1, 3, 96, 64))
        given = part(expected["layer1"])
    assert list(given) == list(expected) == list(layers)
    shapes = [(32, 24, 16), (48, 12, 8), (192, 6, 4), (96, 3, 2)]
    assert [tuple(features.shape[1:]) for features in given.values()] == shapes
    assert all(torch.equal(given[layer], expected[layer]) for layer in layers)
    assert {key.split(".")[0] for key in part.state_dict()} == {"layer2", "layer3", "layer4"}
    with pytest.raises(SpecError, match="need what was computed before it"):
        build.build_features("test_resnet", "layer3", ("layer2",))
    with pytest.raises(SpecError, match=r"layer1 of test_resnet holds another"):
        build.build_features("test_resnet", None, ("layer1", "layer1.0"))


def test_dilated_features_equal_torchvisions():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dilated = [False, True, True]
        theirs = torchvision.models.resnet50(replace_stride_with_dilation=dilated).eval()
    layers = ("layer3", "layer4")
    part = build.build_features("resnet50", "layer1", layers, output_stride=8).eval()
    weights = theirs.state_dict()
    part.load_state_dict({key: weights[key] for key in part.state_dict()})
    features = made_image(1, 256, 17, 17)
    with torch.no_grad():
        third = theirs.layer3(theirs.layer2(features))
        fourth = theirs.layer4(third)
        given = part(features)
    assert given["layer3"].shape[2:] == (9, 9)
    torch.testing.assert_close(given["layer3"], third, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(given["layer4"], fourth, rtol=1e-5, atol=1e-5)


# ── export ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["test_resnet", "regnety_002", "vit_tiny_r_s16_p8_224", "convnext_atto"]
)
def test_parts_export_to_onnx(name, tmp_path):
    import onnxruntime

    entry = table.find_backbone(name)
    size = (64, 64)
    whole = build_network(name, num_classes=10, input_size=size)
    head, tail = (part(whole, entry.layer).eval() for part in (cut.head, cut.tail))
    image = made_image(1, 3, *size)
    with torch.no_grad():
        features = head(image)
        logits = tail(features)
    for part, source, expected in ((head, image, features), (tail, features, logits)):
        path = tmp_path / "part.onnx"
        torch.onnx.export(part, (source,), path, dynamo=True, opset_version=20, verbose=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (graph_input,) = session.get_inputs()
        (output,) = session.run(None, {graph_input.name: source.numpy()})
        assert abs(output - expected.numpy()).max() <= 1e-4 * expected.abs().max()
