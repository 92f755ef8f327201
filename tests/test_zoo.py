import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from splitzoo import zoo
from splitzoo.errors import (
    BitstreamError,
    ModelFolderError,
    OutputError,
    SpecError,
    SplitzooError,
    TablesError,
    UnknownNameError,
    WeightsNotFoundError,
)
from splitzoo.files import sha256_file
from splitzoo.zoo.coding import read_stream
from splitzoo.zoo.factorized_prior import analysis
from splitzoo.zoo.spec import FactorizedPriorBottleneck

BETAS = [0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12]
NAMES = [f"splittable_resnet50-fp-beta{beta}" for beta in BETAS]
BOTTLENECK = "coder.entropy_bottleneck."


def pictures(count, height, width, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    return zoo.save(tiny_model, tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a saved model, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change_config(folder, *path, value):
    config = json.loads((folder / "config.json").read_text())
    *parents, last = path
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder, **changes):
    """Replace tensors, or with None remove them, and correct the checksum."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for name, change in changes.items():
        if change is None:
            del tensors[name]
        else:
            tensors[name] = change(tensors.get(name)).contiguous()
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    checksum = sha256_file(folder / "model.safetensors")
    change_config(folder, "weights_sha256", value=checksum)


def test_list_models_gives_the_registered_names_in_order():
    assert zoo.list_models() == NAMES


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("beta0.08", NAMES[:1]),
        ("*beta0.*", NAMES[:4]),
        ("*-beta[12].*", NAMES[4:6]),
        ("resnet50", NAMES),
        ("resnet50*", []),
        ("nothing", []),
    ],
)
def test_list_models_takes_a_word_or_a_shell_pattern(pattern, expected):
    assert zoo.list_models(pattern) == expected


def test_list_models_filters_by_task_and_method():
    assert zoo.list_models(task="image-classification", method="entropic-student") == NAMES
    assert zoo.list_models(task="object-detection") == []
    assert zoo.list_models(method="other") == []
    assert zoo.list_models("beta5", task="image-classification") == NAMES[6:]


def test_the_default_model_is_registered():
    assert zoo.DEFAULT_MODEL in zoo.list_models()


def test_listing_models_loads_no_heavy_package():
    program = """
import sys
import splitzoo
from splitzoo import zoo
zoo.list_models()
zoo.get_spec(zoo.DEFAULT_MODEL)
heavy = {"torch", "torchvision", "timm", "compressai", "onnx", "onnxruntime"}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_names_that_the_package_does_not_offer_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = zoo.nothing
    assert [getattr(zoo, name) is not None for name in zoo.__all__] == [True] * len(zoo.__all__)


@pytest.mark.parametrize(("name", "beta"), list(zip(NAMES, BETAS, strict=True)))
def test_registered_specs_are_those_of_the_paper(name, beta):
    spec = zoo.get_spec(name)
    assert (spec.name, spec.beta) == (name, beta)
    assert spec.bottleneck.encoder_channels == (96, 48, 24)
    assert spec.bottleneck.decoder_channels == (512, 256, 256)
    assert (spec.task, spec.method) == ("image-classification", "entropic-student")
    assert (spec.backbone, spec.dataset, spec.num_classes) == ("resnet50", "imagenet-1k", 1000)
    assert (spec.input_shape, spec.latent_shape) == ((3, 224, 224), (24, 55, 55))
    assert spec.reference == f"ilsvrc2012-{name}_from_resnet50"


def test_the_encoder_has_the_parameters_of_the_papers(model):
    # 3·96·25 + 96·48·25 + 48·24·4 of the convolutions, 96² + 96 + 48² + 48 of GDN
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == 138_672


def test_an_unknown_name_is_answered_with_the_closest_ones():
    with pytest.raises(UnknownNameError) as caught:
        zoo.load("splittable_resnet50-fp-beta0.8")
    assert (caught.value.kind, caught.value.name) == ("model", "splittable_resnet50-fp-beta0.8")
    assert caught.value.matches[0] == "splittable_resnet50-fp-beta0.08"
    assert caught.value.next_step.endswith("See: splitzoo zoo list")


@pytest.mark.parametrize("path", ["no/such/folder", Path("nowhere")])
def test_a_path_to_nothing_is_an_unknown_folder(path):
    with pytest.raises(UnknownNameError) as caught:
        zoo.load(path)
    assert (caught.value.kind, caught.value.name) == ("model folder", str(path))


def test_an_alias_leads_to_the_model():
    assert zoo.get_spec(f"{NAMES[2]}_from_resnet50") is zoo.get_spec(NAMES[2])


def test_weights_that_cannot_be_had_are_an_error_that_says_what_to_do():
    with pytest.raises(WeightsNotFoundError) as caught:
        zoo.load(f"{NAMES[1]}_from_resnet50")
    assert caught.value.name == NAMES[1]
    assert "pretrained=False" in caught.value.next_step


def test_equal_seeds_give_equal_models_and_other_seeds_others(tiny_model):
    first, again, other = (zoo.build(tiny_model.spec, seed=seed) for seed in (7, 7, 8))
    assert first.digest() == again.digest()
    assert first.codec.model_id != other.codec.model_id
    different = [
        name
        for name, tensor in first.encoder.state_dict().items()
        if name.endswith("weight") and torch.equal(tensor, other.encoder.state_dict()[name])
    ]
    assert different == []


def test_building_leaves_the_global_random_state_alone(tiny_model):
    before = torch.get_rng_state()
    zoo.build(tiny_model.spec, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_built_model_is_in_evaluation_mode(model):
    assert [module for module in model.modules() if module.training] == []


def test_a_random_model_has_something_to_code(model, photo):
    symbols = model.symbols(torch.from_numpy(model.spec.preprocessing.load(photo)))
    assert symbols.dtype == np.int32
    assert symbols.shape == (1, 24, 55, 55)
    assert np.unique(symbols).size > 5


def test_forward_equals_what_goes_through_the_bytes(model, photo):
    image = torch.from_numpy(model.spec.preprocessing.load(photo))
    with torch.no_grad():
        expected = model(image)
    output = model.decompress(model.compress(image))
    assert output.shape == (1, 1000)
    # Exactly: the quantised latents are equal bit by bit, and so is all that follows.
    assert torch.equal(output, expected)


def test_a_stream_of_the_models_input_shape_sends_no_shape(model, photo):
    stream = model.compress(torch.from_numpy(model.spec.preprocessing.load(photo)))[0]
    frame = read_stream(stream)
    assert (frame.model_id, frame.shape) == (model.digest()[:4], None)
    assert len(stream) == len(frame.payload) + 12


def test_a_batch_gives_the_streams_of_its_images(tiny_model):
    # Small pictures: a convolution that added in another order for a batch could turn a tie.
    images = pictures(3, 64, 64)
    streams = tiny_model.compress(images)
    assert streams == [tiny_model.compress(image[None])[0] for image in images]
    assert len(set(streams)) == 3


def test_a_batch_of_streams_gives_a_batch_of_outputs(tiny_model):
    images = pictures(3, 64, 64)
    streams = tiny_model.compress(images)
    outputs = tiny_model.decompress(streams)
    assert outputs.shape == (3, 10)
    with torch.no_grad():
        assert torch.equal(outputs, tiny_model(images))
    for stream, output in zip(streams, outputs, strict=True):
        # Another batch size may add in another order: a few float32 roundings.
        torch.testing.assert_close(tiny_model.decompress([stream])[0], output, rtol=1e-5, atol=1e-6)


def test_another_input_size_sends_its_shape_and_comes_back(model):
    image = pictures(1, 256, 320)
    stream = model.compress(image)[0]
    frame = read_stream(stream)
    assert frame.shape == (63, 79)
    assert len(stream) == len(frame.payload) + 16
    np.testing.assert_array_equal(model.codec.decompress(stream), model.symbols(image)[0])
    with torch.no_grad():
        assert torch.equal(model.decompress([stream]), model(image))


def test_streams_of_different_shapes_make_no_batch(tiny_model):
    streams = tiny_model.compress(pictures(1, 64, 64)) + tiny_model.compress(pictures(1, 64, 96))
    with pytest.raises(BitstreamError, match="cannot make one batch"):
        tiny_model.decompress(streams)


def test_a_stream_of_other_weights_is_refused(tiny_model):
    other = zoo.build(tiny_model.spec, seed=1)
    with pytest.raises(BitstreamError) as caught:
        tiny_model.decompress(other.compress(pictures(1, 64, 64)))
    assert other.codec.model_id.hex() in caught.value.message
    assert tiny_model.codec.model_id.hex() in caught.value.message


def test_changed_weights_change_the_id_of_streams(tiny_model):
    changed = zoo.build(tiny_model.spec)
    assert changed.codec.model_id == tiny_model.codec.model_id
    changed.train()
    with torch.no_grad():
        changed.decoder.tail.fc.bias += 1
    changed.eval()
    assert changed.codec.model_id != tiny_model.codec.model_id


def test_loading_other_weights_changes_the_id_of_streams(tiny_model):
    changed = zoo.build(tiny_model.spec)
    before = changed.codec.model_id
    changed.load_state_dict(zoo.build(tiny_model.spec, seed=1).state_dict())
    assert changed.codec.model_id != before


@pytest.mark.parametrize("height", [5, 6, 7, 8, 9, 63, 64, 65, 66, 223, 224, 225, 226, 301])
def test_latent_size_is_that_of_the_encoder(height):
    sizes = FactorizedPriorBottleneck(encoder_channels=(2, 2, 3), decoder_channels=(2, 2, 2))
    encoder = analysis(sizes)
    for width in [*range(5, 25), 224, 320, 333]:
        with torch.no_grad():
            latent = encoder(torch.zeros(1, 3, height, width))
        assert (sizes.latent_channels, *sizes.latent_size(height, width)) == latent.shape[1:]


def test_a_saved_model_comes_back(tiny_model, saved):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    loaded = zoo.load(saved)
    image = pictures(2, 64, 64)
    assert loaded.spec == tiny_model.spec == zoo.get_spec(saved)
    assert loaded.digest() == tiny_model.digest()
    assert loaded.compress(image) == tiny_model.compress(image)
    assert torch.equal(loaded.decompress(loaded.compress(image)), tiny_model(image))
    assert not loaded.training


def test_the_entropy_tables_travel_with_the_weights(tiny_model, tmp_path):
    trained = zoo.build(tiny_model.spec)
    # A narrower density makes tables of another length than a fresh model has.
    trained.coder.entropy_bottleneck.quantiles.data[:, 0] = torch.tensor([-4.0, 0.25, 6.0])
    trained.make_tables()
    loaded = zoo.load(zoo.save(trained, tmp_path / "trained"))
    assert loaded.codec.tables.digest() == trained.codec.tables.digest()
    assert loaded.codec.tables.digest() != tiny_model.codec.tables.digest()
    assert loaded.codec.tables.cdf.shape != tiny_model.codec.tables.cdf.shape


def test_the_full_model_is_saved_and_loaded(model, tmp_path):
    loaded = zoo.load(str(zoo.save(model, tmp_path / "full")))
    assert loaded.digest() == model.digest()


def test_random_weights_can_be_had_for_a_folders_spec(saved, tiny_model):
    built = zoo.load(saved, pretrained=False, seed=5)
    assert built.spec == tiny_model.spec
    assert built.digest() == zoo.build(tiny_model.spec, seed=5).digest()


def test_a_folder_that_holds_something_is_not_overwritten(folder, tiny_model):
    before = (folder / "config.json").read_bytes()
    with pytest.raises(OutputError, match="not empty"):
        zoo.save(tiny_model, folder)
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"has no {name}"):
        zoo.load(folder)


@pytest.mark.parametrize("place", [0, 1000, -1])
def test_one_changed_byte_of_the_weights_is_found(folder, place):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[place] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFolderError, match="was changed or damaged: its SHA-256 is"):
        zoo.load(folder)


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 8 + b"{}", b"\2" + bytes(7) + b"{}"])
def test_weights_that_are_no_safetensors_file_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    checksum = sha256_file(folder / "model.safetensors")
    change_config(folder, "weights_sha256", value=checksum)
    with pytest.raises(ModelFolderError):
        zoo.load(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (1 << 20) + b"{}"]
)
def test_a_config_that_is_none_is_refused(folder, content):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelFolderError, match=r"config\.json"):
        zoo.load(folder)


def test_a_later_format_is_refused_with_the_way_to_read_it(folder):
    change_config(folder, "format_version", value=2)
    # What a later format holds besides is not this version's to judge.
    change_config(folder, "new_in_2", value=True)
    with pytest.raises(ModelFolderError, match=r"has format_version 2; .* reads up to 1") as caught:
        zoo.load(folder)
    assert caught.value.next_step == "pip install --upgrade splitzoo"


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("format_version",), 0, "format"),
        (("format_version",), "one", "format_version"),
        (("extra",), 1, "extra"),
        (("spec", "extra"), 1, r"spec\.extra"),
        (("spec", "bottleneck", "extra"), 1, r"spec\.bottleneck\.extra"),
        (("spec", "preprocessing", "extra"), 1, r"spec\.preprocessing\.extra"),
        (("spec", "name"), "../elsewhere", r"spec\.name"),
        (("spec", "name"), "", r"spec\.name"),
        (("spec", "task"), "cooking", r"spec\.task"),
        (("spec", "num_classes"), 0, r"spec\.num_classes"),
        (("spec", "num_classes"), 1 << 40, r"spec\.num_classes"),
        (("spec", "beta"), -1, r"spec\.beta"),
        (("spec", "bottleneck", "encoder_channels"), [8, 4], "encoder_channels"),
        (("spec", "bottleneck", "encoder_channels"), [-1, 8, 4], "config"),
        (("spec", "bottleneck", "encoder_channels"), [8, 8, 0], "config"),
        (("spec", "bottleneck", "encoder_channels"), [10**12, 8, 4], "config"),
        (("spec", "bottleneck", "kind"), "other", r"spec\.bottleneck"),
        (("spec", "preprocessing", "crop"), [300, 300], "crop"),
        (("spec", "preprocessing", "std"), [0, 1, 1], "std"),
        (("spec", "preprocessing", "mean"), [float("nan"), 0, 0], "mean"),
        (("spec", "preprocessing", "interpolation"), "nearest", "interpolation"),
        (("weights_sha256",), "0" * 63, "weights_sha256"),
    ],
)
def test_a_config_with_a_wrong_value_is_refused_with_its_name(folder, path, value, named):
    change_config(folder, *path, value=value)
    with pytest.raises(ModelFolderError, match=named):
        zoo.load(folder)


@pytest.mark.parametrize(
    "backbone",
    [
        "resnet51",
        "",
        "vit_tiny_patch16_224",
        # timm would look for these elsewhere, even on the network.
        "hf-hub:somebody/something",
        "local-dir:/nowhere",
    ],
)
def test_a_backbone_that_cannot_be_built_is_refused(folder, monkeypatch, backbone):
    def refuse(*args, **kwargs):
        pytest.fail("the network was asked")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    change_config(folder, "spec", "backbone", value=backbone)
    with pytest.raises(
        ModelFolderError,
        match=r"config\.json (describes a model that cannot be built|is no valid)",
    ):
        zoo.load(folder)


def test_an_unknown_method_is_answered_with_the_known_ones(folder):
    change_config(folder, "spec", "method", value="other")
    with pytest.raises(UnknownNameError) as caught:
        zoo.load(folder)
    assert caught.value.matches == ("entropic-student",)


def test_missing_unexpected_and_reshaped_tensors_are_all_named(folder):
    change_tensors(
        folder,
        **{
            "decoder.tail.fc.bias": None,
            "decoder.tail.fc.extra": lambda _: torch.zeros(1),
            "encoder.0.weight": lambda weight: weight[:, :2],
            "encoder.2.weight": lambda weight: weight.half(),
        },
    )
    with pytest.raises(ModelFolderError) as caught:
        zoo.load(folder)
    assert caught.value.message.endswith(
        "does not fit its config. missing: decoder.tail.fc.bias. "
        "unexpected: decoder.tail.fc.extra. "
        "of another shape or type: encoder.0.weight, encoder.2.weight."
    )


def test_weights_of_another_spec_are_refused(folder):
    change_config(folder, "spec", "num_classes", value=11)
    with pytest.raises(
        ModelFolderError, match=r"decoder\.tail\.fc\.bias, decoder\.tail\.fc\.weight"
    ):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"_quantized_cdf": torch.zeros_like}, TablesError, id="zeros"),
        pytest.param({"_quantized_cdf": lambda cdf: cdf.flip(1)}, TablesError, id="decreasing"),
        pytest.param({"_quantized_cdf": lambda cdf: cdf[None]}, TablesError, id="rank 3"),
        pytest.param({"_quantized_cdf": lambda cdf: cdf[0, :0]}, TablesError, id="empty"),
        pytest.param({"_cdf_length": lambda length: 100 * length}, TablesError, id="long"),
        pytest.param({"_cdf_length": lambda length: -length}, TablesError, id="negative length"),
        pytest.param({"_offset": lambda offset: offset + 2**31 - 1}, TablesError, id="far offset"),
        pytest.param({"_offset": lambda offset: offset[:2]}, TablesError, id="two offsets"),
        pytest.param(
            {"_quantized_cdf": lambda cdf: cdf.float()}, ModelFolderError, id="float table"
        ),
        pytest.param(
            dict.fromkeys(("_quantized_cdf", "_cdf_length", "_offset"), lambda table: table[:2]),
            SplitzooError,
            id="half of the channels",
        ),
    ],
)
def test_hostile_tables_are_refused_when_loaded(folder, changes, error):
    change_tensors(folder, **{BOTTLENECK + name: change for name, change in changes.items()})
    with pytest.raises(error):
        zoo.load(folder)


def test_a_copied_model_keeps_its_id(tiny_model):
    assert copy.deepcopy(tiny_model).codec.model_id == tiny_model.codec.model_id


def test_random_weights_are_known_as_such_until_they_are_trained(tiny_model, tmp_path):
    model = zoo.build(tiny_model.spec, seed=3)
    zoo.save(model, tmp_path / "model")
    loaded = zoo.load(tmp_path / "model")
    assert (model.random_seed, loaded.random_seed) == (3, 3)
    assert (model.source, loaded.source) == (model.spec.name, str(tmp_path / "model"))
    loaded.train()
    assert loaded.eval().random_seed is None
    model.load_state_dict(loaded.state_dict())
    assert model.random_seed is None


def test_tables_follow_the_weights_that_were_trained(tiny_model, tmp_path):
    model = zoo.build(tiny_model.spec, seed=3)
    before = model.codec.tables.digest(), model.codec.model_id
    model.train()
    with torch.no_grad():
        model.coder.entropy_bottleneck.quantiles[:, 0, 2] += 5
    model.eval()
    zoo.save(model, tmp_path / "model")
    after = model.codec.tables.digest(), model.codec.model_id
    assert before[0] != after[0]
    assert before[1] != after[1]
    loaded = zoo.load(tmp_path / "model")
    assert (loaded.codec.tables.digest(), loaded.codec.model_id) == after


def test_a_backbone_that_is_no_resnet_is_a_spec_error(tiny_model):
    spec = tiny_model.spec.model_copy(update={"backbone": "vit_tiny_patch16_224"})
    with pytest.raises(SpecError, match="tiny cannot be built"):
        zoo.build(spec)


def test_a_model_is_saved_under_an_ascii_locale(saved, tmp_path):
    code = "import sys; from splitzoo import zoo; zoo.save(zoo.load(sys.argv[1]), sys.argv[2])"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(saved), str(tmp_path / "again")],
        env=environment,
        check=True,
    )
    assert zoo.get_spec(tmp_path / "again") == zoo.get_spec(saved)
