"""Training from recipes: each method learns, stops, goes on, and gives a model that exports."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import safetensors.numpy
import torch
import yaml
from commands import start
from made_data import CLASSES, make_coco, make_folders, make_voc
from recipes_of_tests import METHODS, TASK, save, stage, write_recipe

from splitrun.errors import DatasetError, RecipeError, SpecError, TrainingError
from splitzoo import export, zoo
from splitzoo.progress import Silent
from splitzoo.zoo.train.checkpoint import NAME as CHECKPOINT
from splitzoo.zoo.train.data import Order, TrainingImages
from splitzoo.zoo.train.plan import Plan, with_epochs
from splitzoo.zoo.train.recipe import Augmentation, Schedule, find_recipe
from splitzoo.zoo.train.run import train


class Quiet(Silent):
    """Stops a run after some steps, or when validation begins."""

    def __init__(self, stop_after: int = -1, *, in_validation: bool = False) -> None:
        self.left, self.in_validation = stop_after, in_validation

    def step(self, text):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def track(self, items, title, *, total=None, done=0):
        if self.in_validation and title == "validation":
            raise KeyboardInterrupt
        return iter(items)


STEPS = 8
"""In an epoch: 48 images, six at a time."""


def changed_recipe(recipe: str, path: Path, **changes) -> str:
    """Write a recipe anew with some of its fields changed."""
    return str(save({**json.loads(Path(recipe).read_text()), **changes}, path))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("data") / "made", train=16, val=4)


def plan_of(recipe: str, data, run, **changes) -> Plan:
    name, found, spec = find_recipe(recipe)
    return Plan(name=name, recipe=found, spec=spec, data=data, run=run, workers=0, **changes)


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    return train(plan_of(write_recipe(folder, "teacher"), data, folder / "run"), Quiet())


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_teacher_is_a_whole_network_with_the_folders_classes(teacher, data):
    model = zoo.load(teacher)
    assert model.spec.cut is None
    assert model.spec.labels == CLASSES
    assert (model.spec.dataset, model.spec.num_classes) == ("custom", 3)
    record = model.training_record
    assert record is not None
    assert (record.recipe, record.teacher) == ("teacher", "")
    assert (record.training_images, record.validation_images) == (48, 12)
    assert model.random_seed is None


@pytest.mark.parametrize("method", METHODS)
def test_a_method_learns_and_its_model_exports(method, teacher, data, tmp_path, splitzoo):
    recipe = write_recipe(tmp_path, method, teacher)
    run = tmp_path / "run"
    code, out, err = splitzoo(
        "zoo", "train", recipe, "--data", data, "-o", run, "--workers", 0, "--seed", 1
    )
    assert code == 0, err
    assert out.strip() == str(run / "model")
    log = log_of(run)
    stages = METHODS[method][2]
    assert [(line["stage"], line["epoch"]) for line in log] == [
        (number, epoch) for number in range(1, len(stages) + 1) for epoch in (1, 2)
    ]
    for number in range(1, len(stages) + 1):
        first, last = (line["loss"] for line in log if line["stage"] == number)
        assert last < first
    if method != "channel-reduction":
        assert all(line["val_bits"] > 0 for line in log)

    model = zoo.load(run / "model")
    assert model.spec.labels == CLASSES
    record = model.training_record
    assert record is not None
    assert [one.epochs for one in record.stages] == [2] * len(stages)
    assert bool(record.teacher) == (method != "end-to-end")
    assert record.command.startswith("splitzoo zoo train ")
    bundle = tmp_path / "bundle"
    export.split(model, bundle)
    export.verify(bundle)


def test_a_frozen_part_stays_as_it_is(teacher, data, tmp_path):
    run = tmp_path / "run"
    recipe = write_recipe(tmp_path, "entropic-student-fp", teacher)
    # Stopped in the second stage: the checkpoint is of its first step.
    with pytest.raises(KeyboardInterrupt):
        train(plan_of(recipe, data, run, checkpoint_minutes=0.0), Quiet(STEPS * 2 + 2))
    state = torch.load(run / CHECKPOINT, weights_only=True)["model"]
    whole = zoo.load(teacher).decoder.get_submodule("tail").state_dict()
    folder = train(plan_of(recipe, data, run), Quiet(), resume=True)
    trained = zoo.load(folder).state_dict()
    device = [name for name in trained if name.startswith(("encoder.", "bottleneck."))]
    assert device
    for name in device:
        assert torch.equal(trained[name], state[name]), name
    prefix = "decoder.tail."
    tail = {name.removeprefix(prefix): one for name, one in trained.items() if prefix in name}
    assert any(not torch.equal(one, whole[name]) for name, one in tail.items())

    first = stage({"kind": "features"}, {"kind": "rate"}, frozen="decoder.tail", select="last")
    path = changed_recipe(recipe, tmp_path / "first.yaml", stages=[first])
    folder = train(plan_of(path, data, tmp_path / "first"), Quiet())
    trained = zoo.load(folder).decoder.get_submodule("tail").state_dict()
    for name, tensor in whole.items():
        if name in trained:
            assert torch.equal(trained[name], tensor), name


@pytest.fixture(scope="module")
def uninterrupted(teacher, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    recipe = write_recipe(folder, "entropic-student-fp", teacher)
    train(plan_of(recipe, data, folder / "run"), Quiet())
    return recipe, folder / "run"


# In the first step, in the middle of an epoch, after its last step, while images are validated,
# and in the second stage.
@pytest.mark.parametrize("where", [1, 3, STEPS, "validation", STEPS * 2 + 3])
def test_an_interrupted_run_goes_on_bit_for_bit(where, uninterrupted, data, tmp_path):
    recipe, whole = uninterrupted
    cut = tmp_path / "cut"
    stop = Quiet(in_validation=True) if where == "validation" else Quiet(where)
    with pytest.raises(KeyboardInterrupt):
        train(plan_of(recipe, data, cut, checkpoint_minutes=0.0), stop)
    assert (cut / CHECKPOINT).exists() == (where != 1)  # the first step was not over
    assert not (cut / "model").exists()
    train(plan_of(recipe, data, cut), Quiet(), resume=True)
    assert log_of(cut) == log_of(whole)
    ours, theirs = (
        safetensors.numpy.load_file(run / "model" / "model.safetensors") for run in (cut, whole)
    )
    assert ours.keys() == theirs.keys()
    for name, one in ours.items():
        assert one.tobytes() == theirs[name].tobytes(), name


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_ctrl_c_says_one_thing_and_the_run_goes_on(data, tmp_path) -> None:
    """A terminal sends it to every process: to those that read images too."""
    recipe, run = write_recipe(tmp_path, "teacher"), tmp_path / "run"
    words = ("zoo", "train", recipe, "--data", data, "-o", run, "--epochs", 2000, "--workers", 2)
    process = start(*words, start_new_session=True)
    log = run / "log.jsonl"
    deadline = time.monotonic() + 100
    while not log.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in err
    assert "Stopped." in err
    before = len(log_of(run))
    process = start(*words, "--resume", start_new_session=True)
    while len(log_of(run)) <= before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert len(log_of(run)) > before


def test_a_run_goes_on_with_the_same_alone(teacher, data, tmp_path):
    recipe = write_recipe(tmp_path, "end-to-end")
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(plan_of(recipe, data, run, checkpoint_minutes=0.0), Quiet(5))
    with pytest.raises(TrainingError, match="was begun with another"):
        train(plan_of(recipe, data, run, seed=1), Quiet(), resume=True)
    (run / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="damaged"):
        train(plan_of(recipe, data, run), Quiet(), resume=True)
    (run / CHECKPOINT).unlink()
    (run / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match=r"no checkpoint\.pt to go on from"):
        train(plan_of(recipe, data, run), Quiet(), resume=True)


def test_what_cannot_be_trained_is_said_before_it_begins(
    teacher, tiny_folder, data, tmp_path, splitzoo
):
    recipe = write_recipe(tmp_path, "entropic-student-fp", teacher)
    run = tmp_path / "run"

    def refused(*words) -> str:
        code, out, err = splitzoo("zoo", "train", *words, "--workers", 0)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        assert not run.exists()
        return err

    missing = tmp_path / "missing"
    assert "is not a folder" in refused(recipe, "--data", missing, "-o", run)
    (tmp_path / "empty").mkdir()
    assert "has no folder train" in refused(recipe, "--data", tmp_path / "empty", "-o", run)
    assert "Cannot read" in refused(missing / "a.yaml", "--data", data, "-o", run)
    assert "No recipe is named" in refused("splitable_resnet50", "--data", data, "-o", run)
    assert "made of published parts" in refused("resnet50-jpeg-q90", "--data", data, "-o", run)
    assert "3 numbers of epochs for 2 stages" in refused(
        recipe, "--data", data, "-o", run, *("--epochs", 1) * 3
    )
    assert "has classes that the model does not know: bars" in refused(
        "splittable_resnet50-fp-beta0.16", "--data", data, "-o", run
    )
    assert "cannot teach: it is cut" in refused(
        recipe, "--data", data, "-o", run, "--teacher", tiny_folder
    )


def test_a_finished_run_goes_on_where_its_recipe_has_gained_a_stage(data, tmp_path):
    recipe = write_recipe(tmp_path, "end-to-end")
    run = tmp_path / "run"
    folder = train(plan_of(recipe, data, run), Quiet())
    before = zoo.load(folder).digest()
    assert train(plan_of(recipe, data, run), Quiet(1), resume=True) == folder  # nothing to do
    stages = json.loads(Path(recipe).read_text())["stages"]
    longer = changed_recipe(recipe, tmp_path / "longer.yaml", stages=[*stages, stages[0]])
    assert train(plan_of(longer, data, run), Quiet(), resume=True) == folder
    model = zoo.load(folder)
    assert model.digest() != before
    assert len(model.training_record.stages) == 2
    assert len(yaml.safe_load((run / "recipe.yaml").read_text())["stages"]) == 2
    other = changed_recipe(recipe, tmp_path / "other.yaml", stages=[stage(TASK, rate=0.5)])
    with pytest.raises(TrainingError, match="was begun with another"):
        train(plan_of(other, data, run), Quiet(), resume=True)


def test_a_recipe_for_several_models_trains_the_one_that_is_named(data, tmp_path):
    names = [f"splittable_test_resnet-fp-beta{beta}" for beta in ("1e-5", "1e-4")]
    recipe = changed_recipe(
        write_recipe(tmp_path, "end-to-end"), tmp_path / "several.yaml", models=names
    )
    name, found, spec = find_recipe(recipe, names[1])
    small = spec.model_dump()["preprocessing"] | {"resize": 64, "crop": (64, 64)}
    spec = spec.model_validate({**spec.model_dump(), "preprocessing": small, "dataset": ""})
    run = tmp_path / "run"
    train(Plan(name, with_epochs(found, [1]), spec, data, run, workers=0), Quiet())
    assert yaml.safe_load((run / "recipe.yaml").read_text())["models"] == [names[1]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(workers, data, tmp_path, splitzoo):
    broken = make_folders(tmp_path / "data", train=3, val=1)
    (broken / "train" / "bars" / "bars1.png").write_bytes(b"no image")
    words = ("--data", broken, "-o", tmp_path / "run", "--workers", workers)
    code, out, err = splitzoo("zoo", "train", write_recipe(tmp_path, "teacher"), *words)
    assert (code, out) == (1, "")
    assert "Cannot use the image" in err
    assert "bars1.png" in err


WRONG = {
    "no such features": {"stages": [stage({"kind": "features", "layers": ["layer9"]})]},
    "is to be frozen": {"stages": [stage(TASK, frozen="encoder.nothing")]},
    "nothing to train": {"stages": [stage(TASK, frozen="encoder coder decoder")]},
    "no part that this stage trains": {
        "stages": [
            stage(
                TASK,
                optimizer={"kind": "adam", "learning_rate": 1, "rates": {"decoder.other": 1}},
            )
        ]
    },
    "is trained on image-folder, not on voc": {"dataset": "voc"},
}


@pytest.mark.parametrize("said", WRONG)
def test_a_recipe_that_does_not_fit_its_model_is_refused(said, teacher, data, tmp_path):
    recipe = write_recipe(tmp_path, "entropic-student-fp", teacher)
    path = changed_recipe(recipe, tmp_path / "wrong.yaml", **WRONG[said])
    with pytest.raises(RecipeError, match=said):
        train(plan_of(path, data, tmp_path / "run"), Quiet())


def test_a_loss_that_is_no_number_stops_the_run(data, tmp_path):
    recipe = yaml.safe_load(Path(write_recipe(tmp_path, "end-to-end")).read_text())
    recipe["stages"] = [stage(TASK, rate=1e30)]
    path = save(recipe, tmp_path / "wild.yaml")
    with pytest.raises(TrainingError, match="no longer a number"):
        train(plan_of(str(path), data, tmp_path / "run"), Quiet())


def test_a_teacher_of_another_network_is_refused(teacher, data, tmp_path):
    recipe = yaml.safe_load(
        Path(write_recipe(tmp_path, "entropic-student-fp", teacher)).read_text()
    )
    recipe["models"][0]["like"] = "splittable_test_efficientnet-fp-beta0.1"
    recipe["models"][0]["bottleneck"] = {}
    recipe["models"][0]["preprocessing"] |= {"mean": [0.5] * 3, "std": [0.5] * 3}
    path = save(recipe, tmp_path / "other.yaml")
    with pytest.raises(SpecError, match=r"tensors are missing there\s+or of another shape"):
        train(plan_of(str(path), data, tmp_path / "run"), Quiet())


def test_order_and_variation_hang_on_the_seed_alone():
    order = Order(10, 4, seed=3)
    assert order.steps == 2
    first, again = (list(order.batches(0)) for _ in range(2))
    assert first == again
    assert list(order.batches(0, begin=1)) == first[1:]
    assert list(order.batches(1)) != first
    assert len({index for batch in first for index, _ in batch}) == 8
    halves = [list(Order(10, 4, 3, rank, 2).batches(0)) for rank in range(2)]
    for whole, *shares in zip(first, *halves, strict=True):
        assert sorted(whole) == sorted(shares[0] + shares[1])
    assert Order(3, 4, 0).steps == 1


def test_a_image_is_varied_alike_by_any_worker(data):
    spec = zoo.get_spec("splittable_test_resnet-fp")
    from splitzoo.zoo.datasets import read_dataset

    samples = read_dataset("image-classification", data, "train").samples
    images = TrainingImages(samples, spec, Augmentation(size=32, jitter=0.3))
    torch.manual_seed(5)
    one = images[(2, 77)][0]
    torch.manual_seed(6)
    assert torch.equal(images[(2, 77)][0], one)
    assert not torch.equal(images[(2, 78)][0], one)
    assert tuple(one.shape) == (3, 32, 32)


def test_schedules():
    steps = Schedule(kind="steps", milestones=(5, 8))
    assert [steps.at(epoch, 10) for epoch in (0, 4.9, 5, 8)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = Schedule(kind="cosine", warmup=2)
    assert cosine.at(1, 10) == pytest.approx(0.5, abs=1e-3)
    assert [cosine.at(epoch, 10) for epoch in (2, 6, 10)] == pytest.approx([1, 0.5, 0])
    # Eq. 7 of the SC2 paper.
    assert Schedule(kind="polynomial").at(5, 10) == pytest.approx(0.5**0.9)


def test_other_epochs_scale_the_schedule():
    recipe = find_recipe("splittable_resnet50-fp-beta0.16")[1]
    first, second = with_epochs(recipe, [20, 4]).stages
    assert (first.epochs, first.schedule.milestones) == (20, (10, 16))
    assert (second.epochs, second.schedule.milestones) == (4, (2,))
    assert with_epochs(recipe, []) is recipe
    with pytest.raises(RecipeError, match="3 numbers of epochs"):
        with_epochs(recipe, [1, 2, 3])


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
        return Path(out.strip())

    teacher = trained(made("flowers-teacher"), "t")
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
    data = make(tmp_path / "data")
    small = {"resize": 64, "crop": [64, 64], "longest": 0}
    recipe = {
        "about": "A dense task.",
        "models": [{"name": "dense", "like": like, "preprocessing": small}],
        "dataset": dataset,
        "stages": [stage(TASK, batch_size=2, augmentation={"scale": [48, 80]}, rate=1e-3)],
    }
    path = save(recipe, tmp_path / "dense.yaml")
    name, found, spec = find_recipe(str(path))
    run = tmp_path / "run"
    folder = train(Plan(name, with_epochs(found, [4]), spec, data, run, workers=0), Quiet())
    log = log_of(run)
    assert log[-1]["loss"] < log[0]["loss"]
    assert zoo.load(folder).spec.task == task


@pytest.mark.slow
def test_several_processes_train_one_model(teacher, data, tmp_path):
    import subprocess
    import sys

    recipe = write_recipe(tmp_path, "entropic-student-fp", teacher)
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    words += ["splitzoo", "zoo", "train", recipe, "--data", str(data), "-o", str(tmp_path / "run")]
    done = subprocess.run([*words, "--workers", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "run" / "model")
    assert zoo.load(tmp_path / "run" / "model").training_record is not None


def test_a_data_set_needs_images(tmp_path):
    from splitzoo.zoo.datasets import read_dataset

    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no images"):
        read_dataset("image-classification", tmp_path, "train")
