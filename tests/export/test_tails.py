"""One device half, several tails: models that share an encoder, in one bundle."""

import json
from dataclasses import replace

import pytest
import torch
from commands import finish, refused

from splitrun import Device, Edge, open_bundle
from splitrun.errors import SpecError
from splitzoo import export, zoo


def _sharing(first, **changes):
    """A model with the encoder and the bottleneck of another, and a decoder of its own."""
    other = zoo.build(first.spec.model_copy(update=changes), seed=7)
    for part in ("encoder", "bottleneck"):
        other.get_submodule(part).load_state_dict(first.get_submodule(part).state_dict())
    other.update()
    return other


@pytest.fixture(scope="module")
def models(tiny_model):
    return tiny_model, _sharing(tiny_model, name="tiny-three", num_classes=3)


@pytest.fixture(scope="module")
def bundle(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tails") / "bundle"
    export.split_tails(models[0], [("three", models[1])], folder)
    return open_bundle(folder)


def test_both_tails_read_one_stream_as_their_models_do(bundle, models):
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    (stream,) = Device(bundle).encode(image.numpy())
    for tail, model in zip(("classification", "three"), models, strict=True):
        found = Edge(bundle, tail=tail).decode(stream)
        expected = model.decompress(stream).detach().numpy()
        assert found[0] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_the_manifest_says_that_the_device_half_is_shared(bundle, models):
    manifest = bundle.manifest
    tail = manifest.edge.tails["three"]
    assert tail.provenance is not None
    assert tail.provenance.model_sha256 == models[1].digest().hex()
    assert tail.provenance.device_sha256 == manifest.provenance.device_sha256
    assert tail.graph.file.startswith("edge/three/")
    assert {name for name in manifest.files if "encoder" in name} == set(
        manifest.device.graph.files
    )


def test_other_encoders_and_other_inputs_are_refused(tiny_model, tmp_path):
    other = zoo.build(tiny_model.spec, seed=3)
    with pytest.raises(SpecError, match=r"its encoder or coder is another \(streams \w{8}, not"):
        export.split_tails(tiny_model, [("", other)], tmp_path / "no")
    size = replace(tiny_model.spec.preprocessing, resize=300)
    other = _sharing(tiny_model, preprocessing=size)
    with pytest.raises(SpecError, match=r"it takes images .*300.*, and tiny .*256"):
        export.split_tails(tiny_model, [("", other)], tmp_path / "no")
    light = replace(tiny_model.spec.preprocessing, mean=(0.5, 0.5, 0.25))
    other = _sharing(tiny_model, preprocessing=light)
    with pytest.raises(SpecError, match=r"padding 0\.5 0\.5 0\.25 .*, and tiny .* padding 0\.485"):
        export.split_tails(tiny_model, [("", other)], tmp_path / "no")
    for name, saying in (("Two Tails", "cannot be named"), ("classification", "Two tails")):
        with pytest.raises(SpecError, match=saying):
            export.split_tails(tiny_model, [(name, _sharing(tiny_model))], tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_from_the_command_line(models, tmp_path):
    first, second = (
        zoo.save(model, tmp_path / name) for model, name in zip(models, "ab", strict=True)
    )
    words = ("export", "split", first, "--with", f"three={second}", "-o", tmp_path / "bundle")
    code, output, errors = finish(*words, "--json")
    assert code == 0, errors
    assert set(json.loads(output)["edge"]["tails"]) == {"classification", "three"}
    code, _, errors = finish("export", "verify", tmp_path / "bundle")
    assert code == 0, errors
    refused(finish(*words, "--half", "edge", "--force"), "--half writes one half")
