"""A run of training that was stopped, or is to do more, continues."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from commands import start
from recipes_of_tests import METHODS, TASK, stage, write_recipe
from training_runs import STEPS, Stop, log_of, plan_of

from splitrun.errors import TrainingError
from splitzoo import zoo
from splitzoo.zoo.train.checkpoint import NAME as CHECKPOINT
from splitzoo.zoo.train.plan import Plan
from splitzoo.zoo.train.recipe_files import find_recipe
from splitzoo.zoo.train.run import train


def weights(run: Path) -> dict[str, torch.Tensor]:
    return zoo.load(run / "model").state_dict()


TIMES = ("seconds", "validation_seconds")


def assert_same_run(run: Path, other: Path) -> None:
    ours, theirs = (
        [{name: line[name] for name in line.keys() - TIMES} for line in log_of(folder)]
        for folder in (run, other)
    )
    assert ours == theirs
    ours, theirs = ((folder / "model/model.safetensors").read_bytes() for folder in (run, other))
    assert ours == theirs


def test_a_finished_run_gains_a_stage_and_frozen_parts_stay(
    trained_by, changed_recipe, teacher, data, tmp_path
):
    recipe, whole = trained_by("entropic-student-fp")
    run, stages = tmp_path / "run", METHODS["entropic-student-fp"][2]
    first = changed_recipe(stages=stages[:1])
    folder = train(plan_of(first, data, run))
    assert train(plan_of(first, data, run), Stop(1), resume=True) == folder  # nothing to do
    before = weights(run)
    tail = zoo.load(teacher).state_dict()
    frozen = [name for name in before if name.startswith("decoder.tail.")]
    assert frozen
    for name in frozen:  # in the first stage
        assert torch.equal(before[name], tail[name]), name

    train(plan_of(recipe, data, run), resume=True)
    assert_same_run(run, whole)
    after = weights(run)
    assert any(not torch.equal(after[name], before[name]) for name in frozen)
    for name in before.keys() - frozen:  # in the second stage
        if name.startswith(("encoder.", "bottleneck.")):
            assert torch.equal(after[name], before[name]), name
    assert len(zoo.load(folder).training_record.stages) == 2
    assert len(yaml.safe_load((run / "recipe.yaml").read_text())["stages"]) == 2
    other = changed_recipe(stages=[stages[0], stage(TASK, rate=0.5)])
    with pytest.raises(TrainingError, match="was started with another"):
        train(plan_of(other, data, run), resume=True)


# In the first step, in the middle of an epoch, after its last step, while images are validated,
# and in the second stage.
@pytest.mark.parametrize("where", [1, 3, STEPS, "validation", STEPS * 2 + 3])
def test_an_interrupted_run_continues_bit_for_bit(where, trained_by, data, tmp_path):
    recipe, whole = trained_by("entropic-student-fp")
    cut = tmp_path / "cut"
    stop = Stop(-1, in_validation=True) if where == "validation" else Stop(where)
    with pytest.raises(KeyboardInterrupt):
        train(plan_of(recipe, data, cut, checkpoint_minutes=0.0), stop)
    assert (cut / CHECKPOINT).exists() == (where != 1)  # the first step was not over
    assert not (cut / "model").exists()
    train(plan_of(recipe, data, cut), resume=True)
    assert_same_run(cut, whole)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_ctrl_c_says_one_thing_and_the_run_continues(data, tmp_path) -> None:
    """A terminal sends it to every process: to those that read images too."""
    recipe, run = write_recipe(tmp_path, "teacher"), tmp_path / "run"
    words = ("zoo", "train", recipe, "--data", data, "-o", run, "--epochs", 2000, "--workers", 2)
    process = start(*words, start_new_session=True)
    deadline = time.monotonic() + 100
    while not (run / CHECKPOINT).exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert "Stopped." in err
    before = len(log_of(run))
    name, found, spec = find_recipe(recipe)
    plan = Plan(name, found.with_epochs([2000]), spec, data, run, workers=0)
    with pytest.raises(KeyboardInterrupt):
        train(plan, Stop(STEPS + 1), resume=True)
    assert len(log_of(run)) > before


def test_a_run_continues_with_the_same_alone(data, tmp_path):
    recipe, run = write_recipe(tmp_path, "end-to-end"), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(plan_of(recipe, data, run, checkpoint_minutes=0.0), Stop(2))

    def refused(said: str, **changes) -> None:
        with pytest.raises(TrainingError, match=said):
            train(plan_of(recipe, data, run, **changes), resume=True)

    refused("was started with another seed[.]", seed=2)
    (run / CHECKPOINT).write_bytes(b"no checkpoint")
    refused("damaged")
    (run / CHECKPOINT).unlink()
    (run / "notes.txt").write_text("mine")
    refused(r"no checkpoint\.pt to continue from")
