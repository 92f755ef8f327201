"""A sweep over β: runs, reports and the figure, and what continues it."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from commands import finish, refused, start
from made_data import make_folders
from recipes_of_tests import FEATURES, RATE, SIZES, save, stage, variant, write_recipe

from splitrun.errors import RecipeError, SpecError
from splitzoo import zoo
from splitzoo.sweep import with_betas
from splitzoo.zoo.train.recipe_files import read_recipe

NAME = "made-splittable-fp-beta0.05"
PACKAGED = "splittable_resnet50-fp-beta0.16"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of one stage, and its data."""
    folder = tmp_path_factory.mktemp("sweep")
    data = make_folders(folder / "data", train=6, val=4)
    run = folder / "teacher"
    code, _, err = finish(
        "zoo", "train", write_recipe(folder, "teacher"), "--data", data, "-o", run, "--epochs", 1
    )
    assert code == 0, err
    document = {
        "about": "One stage.",
        "models": [variant(NAME, "splittable_test_resnet-fp-beta0.05", **SIZES) | {"beta": 0.05}],
        "teacher": str(run / "model"),
        "stages": [stage(FEATURES, RATE, frozen="decoder.tail", select="last", epochs=1)],
    }
    return save(document, folder / "one.yaml"), data


def test_a_sweep_trains_scores_and_draws_and_goes_on_where_it_stopped(recipe, tmp_path) -> None:
    path, data = recipe
    words = ("zoo", "sweep", path, "--beta", "0.05,5", "--data", data, "-o", tmp_path, "--json")
    code, out, err = finish(*words)
    assert code == 0, err
    names = [NAME, "made-splittable-fp-beta5"]
    points = {point["model"]: point for point in json.loads(out)["points"]}
    assert set(points) == set(names)
    assert [zoo.load(tmp_path / "runs" / name / "model").spec.beta for name in names] == [0.05, 5]
    for name in names:
        report = json.loads((tmp_path / "results" / f"{name}.json").read_text())
        assert report["stream_bytes"]["mean"] == points[name]["data_bytes"]
        log = (tmp_path / "runs" / f"{name}.log").read_text()
        assert log.startswith("$ splitzoo zoo train") and f"--model {name}" in log
    assert (tmp_path / "figure" / "tradeoff.svg").is_file()
    # Only what is missing is made again.
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    (tmp_path / "results" / f"{NAME}.json").unlink()
    code, again, err = finish(*words[:-1])
    assert code == 0, err
    for name, point in points.items():
        assert name in again and f"{point['data_bytes']:,.0f}" in again
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")} == before


def test_a_run_that_fails_is_named_with_its_log(recipe, tmp_path) -> None:
    path, data = recipe
    broken = json.loads(Path(path).read_text())
    broken["stages"][0]["optimizer"]["learning_rate"] = 1e30
    words = ("zoo", "sweep", save(broken, tmp_path / "broken.yaml"), "--beta", "1", "--data", data)
    refused(
        finish(*words, "-o", tmp_path / "out"),
        "1 of 1 models were not trained",
        "no longer a number",
        "beta1.log",
    )


def test_what_cannot_be_varied_is_refused() -> None:
    from splitzoo.zoo.train.recipe_files import find_recipe

    found = find_recipe(PACKAGED)[1]
    varied = with_betas(found, PACKAGED, ["0.5", "1"])
    assert varied.names() == ["splittable_resnet50-fp-beta0.5", "splittable_resnet50-fp-beta1"]
    assert varied.spec(varied.names()[1]).beta == 1
    with pytest.raises(RecipeError, match="twice"):
        with_betas(found, PACKAGED, ["1", "1"])
    with pytest.raises(SpecError, match="is a number from 0"):
        with_betas(found, PACKAGED, ["fast"])
    reduced = "splittable_resnet50-bq3ch"
    with pytest.raises(SpecError, match="has no β to vary"):
        with_betas(find_recipe(reduced)[1], reduced, ["1"])


def test_what_cannot_be_scored_is_said_before_anything_is_trained(recipe, tmp_path) -> None:
    path, data = recipe
    words = ("zoo", "sweep", path, "--beta", "1", "--data", data, "-o", tmp_path / "out")
    refused(finish(*words, "--score", tmp_path / "none"), "is not a folder")
    document = json.loads(Path(path).read_text()) | {"dataset": "unlabelled", "held_out": 0.25}
    unlabelled = save(document, tmp_path / "unlabelled.yaml")
    refused(finish("zoo", "sweep", unlabelled, *words[3:]), "score nothing", "--score DIR")
    assert not (tmp_path / "out").exists()


def test_the_recipe_of_a_sweep_is_one_file_for_all_its_models(tmp_path) -> None:
    from splitzoo.zoo.train.recipe_files import find_recipe

    varied = with_betas(find_recipe(PACKAGED)[1], PACKAGED, ["0.5", "1"])
    path = tmp_path / "varied.yaml"
    path.write_text(varied.to_yaml())
    assert read_recipe(path) == varied


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM between processes")
def test_a_sweep_that_is_stopped_stops_its_runs_and_begins_no_other(recipe, tmp_path) -> None:
    """Only the sweep is told, as by ``kill``: a terminal would tell all processes."""
    path, data = recipe
    words = ("zoo", "sweep", path, "--beta", "1,2", "--data", data, "-o", tmp_path / "out")
    process = start(*words, "--epochs", 2000, "--workers", 0)
    first = tmp_path / "out" / "runs" / "made-splittable-fp-beta1"
    deadline = time.monotonic() + 200
    while not (first / "checkpoint.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Runs are kept: the same command goes on with them." in err
    assert "--resume continues it" in Path(f"{first}.log").read_text()
    assert [one.name for one in (tmp_path / "out" / "runs").iterdir() if one.is_dir()] == [
        first.name
    ]
