"""Saved models: what comes back, and what is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from saved_folders import change_config, change_tensors

from splitrun.errors import ModelFolderError, OutputError, SplitzooError, TablesError
from splitrun.files import sha256_file
from splitzoo import zoo

BOTTLENECK = "bottleneck.entropy_bottleneck."


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    return zoo.save(tiny_model, tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a saved model, to be damaged."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_a_saved_model_comes_back(tiny_model, saved):
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]
    loaded = zoo.load(saved)
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert loaded.spec == tiny_model.spec == zoo.get_spec(saved)
    assert loaded.digest() == tiny_model.digest()
    assert loaded.compress(image) == tiny_model.compress(image)
    assert torch.equal(loaded.decompress(loaded.compress(image)), tiny_model(image))
    assert not loaded.training


def test_the_entropy_tables_travel_with_the_weights(tiny_model, tmp_path):
    trained = zoo.build(tiny_model.spec)
    # A narrower density makes tables of another length than a fresh model has.
    trained.bottleneck.entropy_bottleneck.quantiles.data[:, 0] = torch.tensor([-4.0, 0.25, 6.0])
    trained.update()
    loaded = zoo.load(zoo.save(trained, tmp_path / "trained"))
    assert loaded.codec.coder.digest() == trained.codec.coder.digest()
    assert loaded.codec.coder.digest() != tiny_model.codec.coder.digest()
    assert loaded.codec.coder.tables.cdf.shape != tiny_model.codec.coder.tables.cdf.shape


def test_a_folder_gives_random_weights_and_is_not_overwritten(folder, tiny_model):
    built = zoo.load(folder, pretrained=False, seed=5)
    assert built.spec == tiny_model.spec
    assert built.digest() == zoo.build(tiny_model.spec, seed=5).digest()
    before = (folder / "config.json").read_bytes()
    with pytest.raises(OutputError, match="not empty"):
        zoo.save(tiny_model, folder)
    assert (folder / "config.json").read_bytes() == before
    for name in ("model.safetensors", "config.json"):
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


@pytest.mark.parametrize(
    ("version", "advice"), [(6, "pip install --upgrade splitzoo"), (4, "save")]
)
def test_another_format_is_refused_by_its_number(folder, version, advice):
    change_config(folder, "format_version", value=version)
    # What another format holds besides is not this version's to judge.
    change_config(folder, "new_in_3", value=True)
    said = rf"has format_version {version}, .* reads format_version 5"
    with pytest.raises(ModelFolderError, match=said) as caught:
        zoo.load(folder)
    assert advice in caught.value.next_step


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("format_version", 0, "format"),
        ("format_version", "one", "format_version"),
        ("extra", 1, "extra"),
        ("spec.extra", 1, r"spec\.extra"),
        ("spec.bottleneck.extra", 1, r"spec\.bottleneck\.factorized-prior\.extra"),
        ("spec.preprocessing.extra", 1, r"spec\.preprocessing\.extra"),
        ("spec.name", "../elsewhere", r"spec\.name"),
        ("spec.task", "cooking", r"spec\.task"),
        ("spec.num_classes", 1 << 40, r"spec\.num_classes"),
        ("spec.beta", -1, r"spec\.beta"),
        ("spec.bottleneck.encoder_channels", [8, 4], "encoder_channels"),
        ("spec.bottleneck.encoder_channels", [8, 8, 0], "config"),
        ("spec.bottleneck.encoder_channels", [10**12, 8, 4], "config"),
        ("spec.bottleneck.kind", "other", r"spec\.bottleneck: .*'factorized-prior'"),
        ("spec.bottleneck", {}, r"spec\.bottleneck"),
        ("spec.bottleneck", None, r"spec\.bottleneck"),
        ("spec.method", "other", r"spec\.method: .*'entropic-student', "),
        ("spec.cut", "layer1()", r"spec\.cut"),
        ("spec.preprocessing.crop", [300, 300], "crop"),
        ("spec.preprocessing.std", [0, 1, 1], "std"),
        ("spec.preprocessing.mean", [float("nan"), 0, 0], "mean"),
        ("spec.preprocessing.interpolation", "nearest", "interpolation"),
        ("weights_sha256", "0" * 63, "weights_sha256"),
    ],
)
def test_a_config_with_a_wrong_value_is_refused_with_its_name(folder, path, value, named):
    change_config(folder, *path.split("."), value=value)
    with pytest.raises(ModelFolderError, match=named):
        zoo.load(folder)


# timm would look for two of them elsewhere, even on the network.
@pytest.mark.parametrize(
    "backbone",
    ["resnet51", "", "vit_tiny_patch16_224", "hf-hub:somebody/something", "local-dir:/nowhere"],
)
def test_a_backbone_that_cannot_be_built_is_refused(folder, monkeypatch, backbone):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    change_config(folder, "spec", "backbone", value=backbone)
    said = r"config\.json (describes a model that cannot be built|is no valid)"
    with pytest.raises(ModelFolderError, match=said):
        zoo.load(folder)


@pytest.mark.parametrize("cut", ["layer9", "layer1.1.conv1", "fc", "layer4", None])
def test_a_cut_that_does_not_fit_is_refused(folder, cut):
    change_config(folder, "spec", "cut", value=cut)
    with pytest.raises(ModelFolderError):
        zoo.load(folder)


def test_missing_unexpected_and_reshaped_tensors_are_all_named(folder):
    change_tensors(
        folder,
        **{
            "decoder.tail.fc.bias": None,
            "decoder.tail.fc.extra": lambda _: torch.zeros(1),
            "encoder.0.weight": lambda weight: weight[:, :2],
            "encoder.2.weight": lambda weight: weight.double(),
        },
    )
    with pytest.raises(ModelFolderError) as caught:
        zoo.load(folder)
    assert caught.value.message.endswith(
        "does not fit its config:\n"
        "  1 missing: decoder.tail.fc.bias\n"
        "  1 unexpected: decoder.tail.fc.extra\n"
        "  2 of another shape or type: encoder.0.weight, encoder.2.weight"
    )


HOSTILE = {
    "zeros": ({"_quantized_cdf": torch.zeros_like}, TablesError),
    "decreasing": ({"_quantized_cdf": lambda cdf: cdf.flip(1)}, TablesError),
    "rank 3": ({"_quantized_cdf": lambda cdf: cdf[None]}, TablesError),
    "empty": ({"_quantized_cdf": lambda cdf: cdf[0, :0]}, TablesError),
    "long": ({"_cdf_length": lambda length: 100 * length}, TablesError),
    "negative length": ({"_cdf_length": lambda length: -length}, TablesError),
    "far offset": ({"_offset": lambda offset: offset + 2**31 - 1}, TablesError),
    "two offsets": ({"_offset": lambda offset: offset[:2]}, TablesError),
    "float table": ({"_quantized_cdf": lambda cdf: cdf.float()}, ModelFolderError),
    "half of the channels": (
        dict.fromkeys(("_quantized_cdf", "_cdf_length", "_offset"), lambda table: table[:2]),
        SplitzooError,
    ),
}


@pytest.mark.parametrize(("changes", "error"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_tables_are_refused_when_loaded(folder, changes, error):
    change_tensors(folder, **{BOTTLENECK + name: change for name, change in changes.items()})
    with pytest.raises(error):
        zoo.load(folder)


@pytest.mark.slow
def test_a_model_is_saved_under_an_ascii_locale(saved, tmp_path):
    code = "import sys; from splitzoo import zoo; zoo.save(zoo.load(sys.argv[1]), sys.argv[2])"
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(saved), str(tmp_path / "again")],
        env=environment,
        check=True,
    )
    assert zoo.get_spec(tmp_path / "again") == zoo.get_spec(saved)
