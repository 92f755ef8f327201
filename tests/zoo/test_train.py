"""Training from recipes: each method learns, stops, continues, and gives a model that exports."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.utils import LoggerType
from commands import start
from made_data import CLASSES, made_image, make_coco, make_folders, make_voc
from recipes_of_tests import (
    DISTILLATION,
    FIRST,
    METHODS,
    RATE,
    TASK,
    save,
    stage,
    variant,
    write_recipe,
)

from splitrun.errors import DatasetError, RecipeError, SpecError, TrainingError
from splitzoo import export, zoo
from splitzoo.progress import Silent
from splitzoo.zoo.datasets import read_dataset
from splitzoo.zoo.train import readable
from splitzoo.zoo.train.checkpoint import NAME as CHECKPOINT
from splitzoo.zoo.train.cli import Tracker
from splitzoo.zoo.train.data import BatchOrder, TrainingImages
from splitzoo.zoo.train.plan import Plan
from splitzoo.zoo.train.recipe import Augmentation, Schedule
from splitzoo.zoo.train.recipe_files import find_recipe
from splitzoo.zoo.train.run import train

STEPS = 8
"""In an epoch: 48 images, six at a time."""


class Stop(Silent):
    """Stops a run after some steps, or when it validates."""

    def __init__(self, steps: int, *, in_validation: bool = False) -> None:
        self.left, self.in_validation = steps, in_validation

    def step(self, text):
        self.left -= not text.startswith("loading")
        if self.left == 0:
            raise KeyboardInterrupt

    def track(self, items, title, *, total=None, done=0):
        if self.in_validation and title == "validation":
            raise KeyboardInterrupt
        return iter(items)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("data") / "made", train=16, val=4)


def plan_of(recipe, data, run, *, seed=1, **changes) -> Plan:
    name, found, spec = find_recipe(recipe)
    return Plan(name, found, spec, data, run, seed=seed, workers=0, **changes)


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return train(plan_of(write_recipe(folder, "teacher"), data, folder / "run", seed=0))


@pytest.fixture(scope="module")
def trained(teacher, data, tmp_path_factory):
    """Train each method once: recipe and folder of the run."""
    done = {}

    def run(method: str) -> tuple[str, Path]:
        if method not in done:
            folder = tmp_path_factory.mktemp(method)
            done[method] = write_recipe(folder, method, teacher), folder / "run"
            train(plan_of(done[method][0], data, done[method][1]))
        return done[method]

    return run


@pytest.fixture
def changed(teacher, tmp_path):
    """Write the recipe of a method with some of its fields changed."""

    def write(method: str = "entropic-student-fp", **changes) -> Path:
        recipe = json.loads(Path(write_recipe(tmp_path, method, teacher)).read_text())
        return save(recipe | changes, tmp_path / "changed.yaml")

    return write


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


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


def test_a_teacher_is_a_whole_network_with_the_folders_classes(teacher):
    model = zoo.load(teacher)
    assert model.spec.cut is None
    assert model.spec.labels == CLASSES
    assert (model.spec.dataset, model.spec.num_classes) == ("custom", 3)
    record = model.training_record
    assert (record.recipe, record.teacher) == ("teacher", "")
    assert (record.training_images, record.validation_images) == (48, 12)
    assert model.random_seed is None


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_and_exports(method, trained, tmp_path):
    _, run = trained(method)
    log, stages = log_of(run), METHODS[method][2]
    assert [(line["stage"], line["epoch"]) for line in log] == [
        (number + 1, epoch) for number in range(len(stages)) for epoch in (1, 2)
    ]
    for first, last in zip(log[::2], log[1::2], strict=True):
        assert last["loss"] < first["loss"]
    assert all("val_bits" in line for line in log) == (method != "channel-reduction")
    model = zoo.load(run / "model")
    assert model.spec.labels == CLASSES
    assert [stage.epochs for stage in model.training_record.stages] == [2] * len(stages)
    assert bool(model.training_record.teacher) == (method != "end-to-end")
    if method == "entropic-student-mshp":
        export.split(model, tmp_path / "bundle")
        export.verify(tmp_path / "bundle")


def test_a_finished_run_gains_a_stage_and_frozen_parts_stay(
    trained, changed, teacher, data, tmp_path
):
    recipe, whole = trained("entropic-student-fp")
    run, stages = tmp_path / "run", METHODS["entropic-student-fp"][2]
    first = changed(stages=stages[:1])
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
    other = changed(stages=[stages[0], stage(TASK, rate=0.5)])
    with pytest.raises(TrainingError, match="was started with another"):
        train(plan_of(other, data, run), resume=True)


# In the first step, in the middle of an epoch, after its last step, while images are validated,
# and in the second stage.
def test_a_stage_with_integers_saves_bytes_and_leaves_the_rest(trained, data, tmp_path):
    """From a float model's weights: h_s learns, and real payloads are smaller than before."""
    _, run = trained("entropic-student-mshp")
    like, sizes, _ = METHODS["entropic-student-mshp"]
    tuned = stage(RATE, frozen="encoder decoder bottleneck.h_a bottleneck.entropy_bottleneck")
    parts = {name: name for name in ("encoder", "bottleneck", "decoder")}
    recipe = {
        "about": "The hyper-decoder, with its integers.",
        "models": [variant("made-tuned", like, **sizes)],
        "start": {"model": str(run / "model"), "parts": parts},
        "stages": [tuned | {"integers": True, "select": "last"}],
    }
    path = save(recipe, tmp_path / "tuned.yaml")
    before, after = zoo.load(run / "model"), zoo.load(train(plan_of(path, data, tmp_path / "run")))
    changed = {
        name
        for name, tensor in after.state_dict().items()
        if not torch.equal(tensor, before.state_dict()[name])
    }
    assert {name.rpartition(".")[0].partition(".synthesis")[0] for name in changed} <= {
        "bottleneck",
        *(f"bottleneck.h_s.{layer}" for layer in (0, 2, 4)),
    }
    assert "bottleneck.h_s.0.weight" in changed
    images = [before.spec.preprocessing.load(path) for path in sorted(data.rglob("*.png"))[:24]]
    old, new = (
        sum(len(stream) for image in images for stream in model.compress(image))
        for model in (before, after)
    )
    assert new < old


@pytest.mark.parametrize("where", [1, 3, STEPS, "validation", STEPS * 2 + 3])
def test_an_interrupted_run_continues_bit_for_bit(where, trained, data, tmp_path):
    recipe, whole = trained("entropic-student-fp")
    cut = tmp_path / "cut"
    stop = Stop(-1, in_validation=True) if where == "validation" else Stop(where)
    with pytest.raises(KeyboardInterrupt):
        train(plan_of(recipe, data, cut, checkpoint_minutes=0.0), stop)
    assert (cut / CHECKPOINT).exists() == (where != 1)  # the first step was not over
    assert not (cut / "model").exists()
    train(plan_of(recipe, data, cut), resume=True)
    assert_same_run(cut, whole)


def test_a_student_of_unlabelled_images_is_like_its_teacher(changed, teacher, data, tmp_path):
    """No class is read: the images lie in folders that name none."""
    folder = tmp_path / "images"
    for number, path in enumerate(sorted((data / "train").rglob("*.png"))):
        place = folder / str(number % 2) / f"{number}{path.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    imitate = {"kind": "distillation", "alpha": 0.0}
    recipe = changed(
        dataset="unlabelled", held_out=0.25, stages=[FIRST, stage(imitate, frozen="decoder.tail")]
    )
    run = tmp_path / "run"
    train(plan_of(recipe, folder, run))
    model = zoo.load(run / "model")
    assert (model.spec.labels, model.training_record.held_out) == (CLASSES, True)
    assert model.training_record.validation_images == 12
    # The score is agreement with the teacher, counted here by the two models themselves.
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.png")]
    names.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    images = [folder / name for name in names[:12]]
    batch = torch.cat([torch.from_numpy(model.spec.preprocessing.load(one)) for one in images])
    pixels = [zoo.load(teacher).spec.preprocessing.load(one) for one in images]
    theirs = zoo.load(teacher)(torch.cat([torch.from_numpy(one) for one in pixels])).argmax(1)
    agreed = (model(batch).argmax(1) == theirs).float().mean().item()
    assert log_of(run)[-1]["val_top1"] == pytest.approx(agreed)
    assert "val_top1" in log_of(run)[1]


UNLABELLED = {
    "unlabelled images have no classes for the task's loss": {"stages": [stage(TASK)]},
    "unlabelled images have no classes for distillation": {"stages": [stage(DISTILLATION)]},
    "need a teacher, and a share that is held_out": {"stages": [FIRST], "held_out": 0.0},
}


@pytest.mark.parametrize("said", UNLABELLED)
def test_a_recipe_that_needs_classes_is_refused_without_them(said, changed, tmp_path):
    recipe = changed(**{"dataset": "unlabelled", "held_out": 0.25} | UNLABELLED[said])
    with pytest.raises(RecipeError, match=said):
        find_recipe(str(recipe))


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


def test_what_cannot_be_trained_is_said_before_it_begins(
    teacher, tiny_folder, data, tmp_path, splitzoo
):
    recipe = write_recipe(tmp_path, "entropic-student-fp", teacher)
    run, missing, empty = (tmp_path / name for name in ("run", "missing", "empty"))
    empty.mkdir()

    def refused(said: str, recipe: str | Path, data: Path, *words) -> None:
        code, out, err = splitzoo("zoo", "train", recipe, "--data", data, "-o", run, *words)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        assert said in err
        assert not run.exists()

    refused("is not a folder", recipe, missing)
    refused("has no folder train", recipe, empty)
    refused("Cannot read", missing / "a.yaml", data)
    refused("No recipe is named", "splitable_resnet50", data)
    refused("made of published parts", "resnet50-jpeg-q90", data)
    refused("3 numbers of epochs for 2 stages", recipe, data, *("--epochs", 1) * 3)
    unknown = "has classes that the model does not know: bars"
    refused(unknown, "splittable_resnet50-fp-beta0.16", data)
    refused("cannot teach: it is cut", recipe, data, "--teacher", tiny_folder)
    (empty / "train" / "a").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no images"):
        read_dataset("image-classification", empty, "train")


def test_a_stage_that_makes_it_worse_is_not_kept(teacher, changed, data, tmp_path):
    """The second stage begins with what scores well, and a rate of 10 destroys it."""
    spoiling = {"kind": "sgd", "learning_rate": 10.0}
    clipped = {"optimizer": spoiling, "frozen": "encoder bottleneck", "clip_norm": 100.0}
    stages = [FIRST, stage(DISTILLATION, select="improved", **clipped)]
    folder = train(plan_of(changed(stages=stages), data, tmp_path / "run"))
    model = zoo.load(folder)
    first, second = model.training_record.stages
    assert second.kept_epoch == 0
    assert second.scores == first.scores
    before = train(plan_of(changed(stages=stages[:1]), data, tmp_path / "first"))
    ours, theirs = (zoo.load(one).state_dict() for one in (folder, before))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    last = stage(DISTILLATION, select="last", **clipped)
    worse = train(plan_of(changed(stages=[FIRST, last]), data, tmp_path / "last"))
    kept = zoo.load(worse).training_record.stages[1]
    assert kept.kept_epoch == 2
    assert kept.scores["top1"] < first.scores["top1"]


def test_held_out_images_are_not_trained_on(changed, data, tmp_path):
    ours = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(ours / "val")  # nobody looks at it
    folder = train(plan_of(changed(held_out=0.25), ours, tmp_path / "run"))
    record = zoo.load(folder).training_record
    assert record.held_out
    assert record.training_images + record.validation_images == 48
    assert 4 <= record.validation_images <= 20
    listed = (tmp_path / "run/images.tsv").read_text().splitlines()[1:]
    names = [line.split("\t")[0] for line in listed]
    assert sorted(names) == sorted(
        f"train/{image.relative_to(ours / 'train').as_posix()}"
        for image in (ours / "train").rglob("*.png")
    )


def test_a_batch_in_parts_trains_as_the_whole(changed, data, tmp_path):
    """Without noise or batch norms that learn, a batch of six is three of two."""
    still = {
        "frozen": "encoder bottleneck decoder.tail",
        "augmentation": {"crop": "none", "flip": 0},
        "optimizer": {"kind": "sgd", "learning_rate": 1e-5},
    }
    mean = {"kind": "features", "reduction": "mean"}
    logs = []
    for parts in (1, 3):
        run = tmp_path / f"run{parts}"
        train(plan_of(changed(stages=[stage(mean, parts=parts, **still)]), data, run))
        logs.append(log_of(run))
    for whole, in_parts in zip(*logs, strict=True):
        for name in ("loss", "features", "correct", "bits"):
            assert in_parts[name] == pytest.approx(whole[name], rel=1e-3)
    first, second = logs[0]
    assert second["loss"] < 0.9 * first["loss"]  # so another gradient would have shown


@pytest.fixture
def broken(tmp_path):
    """Eleven images of train and of val, of which two are none."""
    folder = make_folders(tmp_path / "data", train=3, val=1)
    whole = (folder / "train/bars/bars1.png").read_bytes()
    (folder / "train/bars/bars1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "val/discs/discs0.png").write_bytes(b"no image")
    (folder / "val/discs/notes.txt").touch()
    return folder


def test_images_that_cannot_be_read_are_all_told_before_training_or_left_out(
    broken, tmp_path, splitzoo
):
    recipe, run = write_recipe(tmp_path, "teacher"), tmp_path / "run"
    words = ("zoo", "train", recipe, "--data", broken, "-o", run, "--epochs", 1)
    code, out, err = splitzoo(*words)
    assert (code, out) == (1, "")
    damaged, unknown = "1 .png: it is damaged", "1 .png: it is not an image of a known format"
    assert f"2 of 12 images cannot be read ({damaged}; {unknown}):" in err
    assert "bars1.png: " in err
    assert "discs0.png: it is not an image" in err
    assert "--skip-unreadable" in err
    assert not run.exists()
    assert splitzoo(*words, "--skip-unreadable", "--workers", 1)[0] == 0
    record = zoo.load(run / "model").training_record
    assert (record.training_images, record.validation_images) == (8, 2)
    assert list(map(str, record.unread)) == [
        damaged,
        unknown,
        "1 .txt: no image format that is read",
    ]
    listed = (run / "images.tsv").read_text().splitlines()
    assert len(listed) == 11
    assert not any("bars1" in line for line in listed)


def test_what_was_read_once_is_not_read_again(data, monkeypatch):
    spec = zoo.get_spec("splittable_test_resnet-fp")
    samples = read_dataset("image-classification", data, "val").samples
    assert readable.find_unreadable(samples, spec) == {}
    read = []
    monkeypatch.setattr(readable, "read_rgb", lambda path: read.append(path.name))
    first = samples[0].path
    os.utime(first, (1, 1))  # as if it were another
    assert readable.find_unreadable(samples, spec) == {}
    assert read == [first.name]


def test_an_image_that_breaks_while_training_costs_no_step(data, tmp_path):
    ours, run = shutil.copytree(data, tmp_path / "data"), tmp_path / "run"
    plan = plan_of(write_recipe(tmp_path, "teacher"), ours, run)

    class Breaking(Silent):
        steps = 0

        def step(self, text):
            self.steps += 1
            if self.steps == STEPS + 2:
                for image in (ours / "train/bars").iterdir():
                    image.write_bytes(b"gone")

    with pytest.raises(TrainingError, match="What was trained is kept") as stopped:
        train(plan, Breaking())
    assert "--resume --skip-unreadable --accept-changed-data" in stopped.value.next_step
    state = torch.load(run / CHECKPOINT, weights_only=True)["position"]
    assert (state["epoch"], state["steps"]) == (1, STEPS + state["step"])
    assert state["step"] >= 2
    skipping = replace(plan, skip_unreadable=True)
    with pytest.raises(
        TrainingError, match=r"has changed since .* began: 16 removed \(train/bars/"
    ):
        train(skipping, resume=True)
    folder = train(replace(skipping, accept_changed_data=True), resume=True)
    record = zoo.load(folder).training_record
    assert record.data_changes[0].startswith("stage 1, epoch 2: 16 removed (train/bars/bars0.png, ")
    assert [count.files for count in record.unread] == [16]


def test_what_changed_in_the_data_is_named(data, tmp_path):
    ours, run = shutil.copytree(data, tmp_path / "data"), tmp_path / "run"
    plan = plan_of(write_recipe(tmp_path, "teacher"), ours, run, checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt):
        train(plan, Stop(STEPS + 3))
    (ours / "train/discs/discs3.png").unlink()
    made_image("bars", 77).save(ours / "train/bars/new.png")
    made_image("plain", 78, 80).save(ours / "val/plain/plain2.png")
    said = (
        r"1 added \(train/bars/new.png\), 1 removed \(train/discs/discs3.png\), "
        r"1 changed \(val/plain/plain2.png\)[.]"
    )
    with pytest.raises(TrainingError, match=said):
        train(plan, resume=True)
    folder = train(replace(plan, accept_changed_data=True), resume=True)
    assert [(line["stage"], line["epoch"]) for line in log_of(run)] == [(1, 1), (1, 2)]
    assert len(zoo.load(folder).training_record.data_changes) == 1
    # A class more is another model.
    shutil.copytree(ours / "train/bars", ours / "train/stars")
    with pytest.raises(TrainingError, match="another list of classes"):
        train(replace(plan, accept_changed_data=True), resume=True)


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


OWN_RATE = {"kind": "adam", "learning_rate": 1, "rates": {"decoder.other": 1}}
ANOTHER = {
    "name": "another",
    "like": "splittable_test_efficientnet-fp-beta0.1",
    "preprocessing": {"mean": [0.5] * 3, "std": [0.5] * 3},
}
WRONG = {
    "no such features": {"stages": [stage({"kind": "features", "layers": ["layer9"]})]},
    "is to be frozen": {"stages": [stage(TASK, frozen="encoder.nothing")]},
    "nothing to train": {"stages": [stage(TASK, frozen="encoder bottleneck decoder")]},
    "no part that this stage trains": {"stages": [stage(TASK, optimizer=OWN_RATE)]},
    "is trained on image-folder, not on voc": {"dataset": "voc"},
    r"tensors are missing there\s+or of another shape": {"models": [ANOTHER]},
    "no longer a number": {"stages": [stage(TASK, rate=1e30)]},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_recipe_that_cannot_be_followed_is_refused(said, changed, data, tmp_path):
    plan = plan_of(changed(**WRONG[said]), data, tmp_path / "run")
    with pytest.raises((RecipeError, SpecError, TrainingError), match=said):
        train(plan)


def test_order_and_augmentation_hang_on_the_seed_alone(data):
    order = BatchOrder(10, 4, seed=3)
    assert order.steps == 2
    first, again = (list(order.batches(0)) for _ in range(2))
    assert first == again
    assert list(order.batches(0, begin=1)) == first[1:]
    assert list(order.batches(1)) != first
    assert len({index for batch in first for index, _ in batch}) == 8
    halves = [list(BatchOrder(10, 4, 3, rank, 2).batches(0)) for rank in range(2)]
    for whole, *shares in zip(first, *halves, strict=True):
        assert sorted(whole) == sorted(shares[0] + shares[1])
    assert BatchOrder(3, 4, 0).steps == 1

    samples = read_dataset("image-classification", data, "train").samples
    spec = zoo.get_spec("splittable_test_resnet-fp")
    images = TrainingImages(samples, spec, Augmentation(size=32, jitter=0.3))
    torch.manual_seed(5)
    image = images[(2, 77)][0]
    torch.manual_seed(6)
    assert torch.equal(images[(2, 77)][0], image)
    assert not torch.equal(images[(2, 78)][0], image)
    assert tuple(image.shape) == (3, 32, 32)


def test_schedules():
    steps = Schedule(kind="steps", milestones=(5, 8))
    assert [steps.at(epoch, 10) for epoch in (0, 4.9, 5, 8)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = Schedule(kind="cosine", warmup=2)
    assert cosine.at(1, 10) == pytest.approx(0.5, abs=1e-3)
    assert [cosine.at(epoch, 10) for epoch in (2, 6, 10)] == pytest.approx([1, 0.5, 0])
    # Eq. 7 of the SC2 paper.
    assert Schedule(kind="polynomial").at(5, 10) == pytest.approx(0.5**0.9)
    # Other epochs scale a recipe's schedule.
    recipe = find_recipe("splittable_resnet50-fp-beta0.16")[1]
    first, second = recipe.with_epochs([20, 4]).stages
    assert (first.epochs, first.schedule.milestones) == (20, (10, 16))
    assert (second.epochs, second.schedule.milestones) == (4, (2,))
    assert recipe.with_epochs([]) is recipe


def test_the_readmes_way_to_train_ones_own(data, tmp_path, splitzoo):
    """README, "Train your own": recipes printed, changed in a few words, followed."""

    def made(name: str) -> Path:
        text = splitzoo("zoo", "recipe", name)[1]
        text = re.sub(r"\bsize: \d+", "size: 64", text.replace("regnetx_002", "test_resnet"))
        text = text.replace("batch_size: 32", "batch_size: 6").replace("[32, 24, 16]", "[8, 8, 4]")
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        return path

    def trained(recipe: Path, run: str) -> Path:
        words = ("--data", data, "-o", tmp_path / run, "--epochs", 1, "--workers", 0)
        code, out, err = splitzoo("zoo", "train", recipe, *words)
        assert code == 0, err
        assert out.strip() == str(tmp_path / run / "model")
        return Path(out.strip())

    teacher = trained(made("flowers-teacher"), "t")
    assert zoo.load(teacher).training_record.command.startswith("splitzoo zoo train ")
    student = made("flowers-entropic_student")
    text = student.read_text()
    assert "teacher: flowers-test_resnet-png\n" in text
    student.write_text(text.replace("teacher: flowers-test_resnet-png", f"teacher: {teacher}"))
    model = trained(student, "s")
    splitzoo("zoo", "calibrate", model, "--data", data / "train", "-o", tmp_path / "calibrated")
    model = tmp_path / "calibrated"
    report = tmp_path / "student.json"
    code, out, err = splitzoo("profile", "accuracy", model, "--data", data, "-o", report)
    assert code == 0, err
    assert "top-1" in out
    assert report.is_file()
    assert zoo.load(model).spec.labels == CLASSES


DENSE = {
    "object-detection": ("faster_rcnn_splittable_test_resnet-fp", make_coco, "coco"),
    "semantic-segmentation": ("deeplabv3_splittable_test_resnet-fp", make_voc, "voc"),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", DENSE)
def test_dense_tasks_learn(task, tmp_path):
    like, make, dataset = DENSE[task]
    small = {"resize": 64, "crop": [64, 64], "longest": 0}
    recipe = {
        "about": "A dense task.",
        "models": [{"name": "dense", "like": like, "preprocessing": small}],
        "dataset": dataset,
        "stages": [
            stage(TASK, epochs=4, batch_size=2, augmentation={"scale": [48, 80]}, rate=1e-3)
        ],
    }
    path, run = save(recipe, tmp_path / "dense.yaml"), tmp_path / "run"
    folder = train(plan_of(path, make(tmp_path / "data"), run))
    log = log_of(run)
    assert log[-1]["loss"] < log[0]["loss"]
    assert zoo.load(folder).spec.task == task


@pytest.mark.slow
def test_several_processes_train_one_model(teacher, data, tmp_path):
    recipe, run = write_recipe(tmp_path, "entropic-student-fp", teacher), tmp_path / "run"
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    words += ["splitzoo", "zoo", "train", recipe, "--data", str(data), "-o", str(run)]
    done = subprocess.run([*words, "--workers", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run / "model")
    assert zoo.load(run / "model").training_record is not None
