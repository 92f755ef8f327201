"""What a run writes down of its epochs, and tells to trackers."""

import time
from dataclasses import replace

import pytest
from accelerate.utils import LoggerType
from recipes_of_tests import write_recipe
from training_runs import STEPS, log_of, plan_of

from splitzoo import zoo
from splitzoo.zoo.train.cli import Tracker
from splitzoo.zoo.train.run import train


@pytest.mark.parametrize("workers", [0, 2])
def test_the_log_tells_how_long_each_epoch_took(data, tmp_path, workers):
    plan = plan_of(write_recipe(tmp_path, "teacher"), data, tmp_path / "run")
    began = time.monotonic()
    train(replace(plan, workers=workers))
    whole = time.monotonic() - began
    log = log_of(tmp_path / "run")
    for line in log:
        assert 0 < line["validation_seconds"] < line["seconds"]
    assert sum(line["seconds"] for line in log) < whole
    record = zoo.load(tmp_path / "run/model").training_record
    assert sum(line["seconds"] for line in log) == pytest.approx(record.seconds, abs=1)


def test_a_tracker_is_told_what_the_log_is_told(data, tmp_path, splitzoo):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    words = ("zoo", "train", write_recipe(tmp_path, "teacher"), "--data", data, "-o", run)
    code, _, err = splitzoo(*words, "--tracker", "tensorboard")
    assert code == 0, err
    found = events.EventAccumulator(str(run / "trackers/made-teacher-png"))
    found.Reload()
    for name in ("loss", "val_top1", "seconds", "learning_rate"):
        told = [(event.step, event.value) for event in found.Scalars(f"epoch/{name}")]
        logged = [(STEPS * line["epoch"], line[name]) for line in log_of(run)]
        assert told == [(step, pytest.approx(value)) for step, value in logged]
    assert [event.step for event in found.Scalars("step/loss")] == [10]


def test_trackers_are_those_of_accelerate(data, tmp_path, splitzoo, monkeypatch):
    assert {str(one) for one in Tracker} == {str(one) for one in LoggerType} - {"all"}
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    words = ("zoo", "train", write_recipe(tmp_path, "teacher"), "--data", data)
    code, out, err = splitzoo(*words, "-o", tmp_path / "run", "--tracker", "wandb")
    assert (code, out) == (1, "")
    assert "pip install wandb" in err
