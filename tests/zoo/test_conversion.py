"""Checkpoints of sc2-benchmark made into saved models, one and many, and the command."""

import json
from pathlib import Path

import pytest
import torch
from commands import refused
from sc2bench_names import TABLES, TINY, is_table, theirs

from splitrun.errors import CheckpointError, OutputError, UnknownNameError
from splitzoo import zoo
from splitzoo.zoo.conversion.convert import (
    Conversion,
    convert,
    convert_all,
    find_checkpoints,
    recognise,
)
from splitzoo.zoo.models import MODELS
from splitzoo.zoo.store import read_config

# sc2bench and what it imports use deprecated interfaces of other packages: theirs to fix.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def tiny():
    """A model of one of sc2bench's architectures on a tiny backbone. Shared."""
    return zoo.build(TINY, seed=1)


@pytest.fixture
def written(tiny, tmp_path):
    """A checkpoint of ``tiny``."""
    path = tmp_path / "tiny.pt"
    torch.save({"model": theirs(tiny), "optimizer": {}, "best_value": 0.5}, path)
    return path


@pytest.fixture
def experiments(monkeypatch):
    """Tiny models among the registered ones, under names as of experiments."""
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    monkeypatch.setattr(MODELS, "_aliases", dict(MODELS._aliases))
    for name, experiment in (
        (TINY, "ilsvrc2012-tiny_from_tiny"),
        ("splittable_test_resnet-mshp", "ilsvrc2012-tiny-mshp-beta1.0e-5"),
        ("splittable_test_resnet-shp", "ilsvrc2012-tiny-shp"),
    ):
        MODELS.register(name, zoo.get_spec(name), aliases=[experiment])


# Names of models


def test_a_name_that_is_given_goes_before_the_file_s():
    for name in (TINY, "splittable_resnet50-fp-beta0.08"):
        assert recognise(Path("coco2017-any.pt"), name).name == name
    for name in ("resnet50-jpeg-q90", "resnet50-layer2-webp-q90"):
        with pytest.raises(CheckpointError, match="made of published parts"):
            recognise(Path("any.pt"), name)


def test_an_unknown_file_name_is_an_error_that_asks_for_a_name():
    path = Path("ilsvrc2012-splittable_resnet50-fp-beta0.09_from_resnet50.pt")
    with pytest.raises(UnknownNameError) as caught:
        recognise(path)
    assert f"No experiment of sc2-benchmark is named {path.stem!r}" in str(caught.value)
    assert "ilsvrc2012-splittable_resnet50-fp-beta0.08_from_resnet50" in caught.value.matches
    assert "--name NAME" in caught.value.next_step


# Whole conversions


def test_a_checkpoint_becomes_a_model_that_loads(tiny, written, tmp_path):
    conversion = convert(written, tmp_path / "out", name=TINY)
    config = read_config(tmp_path / "out")
    assert config.spec == tiny.spec
    assert config.random_seed is None
    assert conversion.sha256 in config.origin
    assert "tiny.pt" in config.origin
    assert (conversion.name, conversion.folder) == (TINY, str(tmp_path / "out"))
    assert conversion.checkpoint == str(written)
    assert conversion.tensors == sum(not is_table(name) for name in tiny.state_dict())
    assert [(one.reason, len(one.names)) for one in conversion.left_out] == [(TABLES, 3)]
    assert conversion.beside == ("best_value", "optimizer")
    loaded = zoo.load(tmp_path / "out")
    assert loaded.state_dict().keys() == tiny.state_dict().keys()
    for name, tensor in tiny.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    image = torch.randn(1, *tiny.spec.input_shape, generator=torch.Generator().manual_seed(0))
    assert loaded.compress(image) == tiny.compress(image)


def test_tables_are_those_of_the_densities_whatever_the_checkpoint_has(tiny, tmp_path):
    checkpoint = theirs(tiny)
    for name in checkpoint:
        if is_table(name):
            checkpoint[name] = torch.full((3, 9), 12345, dtype=torch.int32)
    torch.save(checkpoint, tmp_path / "some.pt")
    convert(tmp_path / "some.pt", tmp_path / "out", name=TINY)
    tables = zoo.load(tmp_path / "out").bottleneck.entropy_coder().digest()
    assert tables == tiny.bottleneck.entropy_coder().digest()


QUANTILES, BIAS = "bottleneck_layer.entropy_bottleneck.quantiles", "fc.bias"


@pytest.mark.parametrize(
    ("name", "place", "value", "said"),
    [
        *((QUANTILES, (2, 0, 2), value, "quantiles") for value in (torch.nan, torch.inf, 1e6)),
        (BIAS, 3, torch.nan, r"decoder\.tail\.fc\.bias"),
    ],
)
def test_weights_that_make_no_model_are_refused(tiny, tmp_path, name, place, value, said):
    checkpoint = theirs(tiny)
    checkpoint[name] = checkpoint[name].clone()
    checkpoint[name][place] = value
    torch.save(checkpoint, tmp_path / "some.pt")
    with pytest.raises(CheckpointError, match=rf"some\.pt is damaged: .*{said}"):
        convert(tmp_path / "some.pt", tmp_path / "new" / "out", name=TINY)
    del checkpoint[name]
    torch.save({"model": checkpoint}, tmp_path / "some.pt")
    with pytest.raises(CheckpointError, match="missing"):
        convert(tmp_path / "some.pt", tmp_path / "new" / "out", name=TINY)
    # Nothing is left behind, and a folder that is taken is refused before anything is read.
    assert sorted(tmp_path.iterdir()) == [tmp_path / "some.pt"]
    with pytest.raises(OutputError, match="not empty"):
        convert(tmp_path / "none.pt", tmp_path)


# Many


@pytest.fixture
def tree(experiments, tmp_path):
    """Checkpoints of three models, one damaged, and two that are of no experiment."""
    folder = tmp_path / "resource" / "ckpt"
    (folder / "deep" / "er").mkdir(parents=True)
    for name, place in (
        (TINY, "deep/ilsvrc2012-tiny_from_tiny.pt"),
        ("splittable_test_resnet-mshp", "deep/er/ilsvrc2012-tiny-mshp-beta1.0e-5.pth"),
    ):
        torch.save({"model": theirs(zoo.build(name, seed=1))}, folder / place)
    (folder / "ilsvrc2012-tiny-shp.pt").write_bytes(b"damaged")
    (folder / "yolo.pt").write_bytes(b"other")
    (folder / "notes.txt").write_text("no checkpoint")
    return folder


def statuses(outcomes):
    return {Path(one.checkpoint).name: one.status for one in outcomes}


ALL = {
    "ilsvrc2012-tiny-mshp-beta1.0e-5.pth": "converted",
    "ilsvrc2012-tiny_from_tiny.pt": "converted",
    "ilsvrc2012-tiny-shp.pt": "failed",
    "yolo.pt": "skipped",
}


def test_one_bad_file_does_not_stop_the_others(tree, tmp_path):
    outcomes = {
        Path(outcome.checkpoint).name: outcome
        for outcome in convert_all(find_checkpoints(tree), tmp_path / "out")
    }
    assert statuses(outcomes.values()) == ALL
    assert "no zip file" in outcomes["ilsvrc2012-tiny-shp.pt"].reason
    assert "No experiment" in outcomes["yolo.pt"].reason
    assert outcomes["ilsvrc2012-tiny_from_tiny.pt"].conversion.name == TINY
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        TINY,
        "splittable_test_resnet-mshp",
    }
    assert zoo.load(tmp_path / "out" / TINY).spec.name == TINY
    # A folder of another checkpoint of the model is not taken for done.
    other = tree / "another" / "ilsvrc2012-tiny_from_tiny.pt"
    other.parent.mkdir()
    torch.save({"model": theirs(zoo.build(TINY, seed=2))}, other)
    (outcome,) = convert_all([other], tmp_path / "out")
    assert outcome.status == "failed"
    assert "a model of another checkpoint" in outcome.reason


def test_an_interrupted_run_is_taken_up(tree, tmp_path, monkeypatch):
    first = convert_all(find_checkpoints(tree), tmp_path / "out")
    done = next(first)
    first.close()
    assert done.status == "converted"
    kept = (Path(done.conversion.folder) / "config.json").stat().st_mtime_ns
    outcomes = list(convert_all(find_checkpoints(tree), tmp_path / "out"))
    again = outcomes[0]
    assert (again.status, again.conversion) == ("skipped", None)
    assert "converted before" in again.reason
    assert (Path(done.conversion.folder) / "config.json").stat().st_mtime_ns == kept
    rest = ALL | {Path(done.checkpoint).name: "skipped"}
    assert statuses(outcomes) == rest


def test_a_folder_without_checkpoints_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoints"):
        find_checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="is not a folder"):
        find_checkpoints(tmp_path / "none")


# The command


def test_the_command_says_what_it_did(splitzoo, written, tmp_path):
    words = ("zoo", "convert", written, "--name", TINY)
    code, out, err = splitzoo(*words, "-o", tmp_path / "out")
    assert code == 0
    for saying in (TINY, str(written), "3 entropy tables: made anew", "best_value, optimizer"):
        assert saying in out
    assert f"Next: splitzoo export split {tmp_path / 'out'}" in err.replace("\n", "")
    code, out, _ = splitzoo(*words, "-o", tmp_path / "again", "--json")
    said = json.loads(out)
    assert code == 0
    assert said.keys() == Conversion.__dataclass_fields__.keys()
    assert said["name"] == TINY
    assert [len(left["names"]) for left in said["left_out"]] == [3]
    assert said["beside"] == ["best_value", "optimizer"]


def test_the_command_refuses_what_is_no_file_and_a_name_for_many(splitzoo, tmp_path):
    words = ("-o", tmp_path / "out")
    for place in (tmp_path / "none.pt", tmp_path):
        refused(splitzoo("zoo", "convert", place, *words), str(tmp_path))
    code, out, err = splitzoo("zoo", "convert", "--all", tmp_path, *words, "--name", TINY)
    assert (code, out) == (2, "")
    assert "--name" in err


def test_the_command_converts_a_tree_and_fails_if_one_failed(splitzoo, tree, tmp_path):
    out_folder = tmp_path / "out"
    code, out, err = splitzoo("zoo", "convert", "--all", tree, "-o", out_folder)
    assert code == 1
    for name, status in ALL.items():
        (line,) = (line for line in out.splitlines() if name in line)
        assert status in line
    assert "2 converted, 1 skipped, 1 failed." in err
    (tree / "ilsvrc2012-tiny-shp.pt").unlink()
    code, out, err = splitzoo("zoo", "convert", "--all", tree, "-o", out_folder, "--json")
    assert code == 0
    assert {one["status"] for one in json.loads(out)} == {"skipped"}
