"""Training from recipes: each method learns, stage by stage, and gives a model that exports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from made_data import CLASSES, make_coco, make_voc
from recipes_of_tests import (
    DISTILLATION,
    FEATURES,
    FIRST,
    METHODS,
    RATE,
    TASK,
    save,
    stage,
    variant,
)
from training_runs import log_of, plan_of

from splitzoo import export, zoo
from splitzoo.zoo.train.run import train


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
def test_a_method_learns_and_exports(method, trained_by, tmp_path):
    _, run = trained_by(method)
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


def test_a_stage_with_integers_saves_bytes_and_leaves_the_rest(trained_by, data, tmp_path):
    """From a float model's weights: h_s learns, and real payloads are smaller than before."""
    _, run = trained_by("entropic-student-mshp")
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


def test_a_stage_that_makes_it_worse_is_not_kept(teacher, changed_recipe, data, tmp_path):
    """The second stage begins with what scores well, and a rate of 10 destroys it."""
    spoiling = {"kind": "sgd", "learning_rate": 10.0}
    clipped = {"optimizer": spoiling, "frozen": "encoder bottleneck", "clip_norm": 100.0}
    stages = [FIRST, stage(DISTILLATION, select="improved", **clipped)]
    folder = train(plan_of(changed_recipe(stages=stages), data, tmp_path / "run"))
    model = zoo.load(folder)
    first, second = model.training_record.stages
    assert second.kept_epoch == 0
    assert second.scores == first.scores
    before = train(plan_of(changed_recipe(stages=stages[:1]), data, tmp_path / "first"))
    ours, theirs = (zoo.load(one).state_dict() for one in (folder, before))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    last = stage(DISTILLATION, select="last", **clipped)
    worse = train(plan_of(changed_recipe(stages=[FIRST, last]), data, tmp_path / "last"))
    kept = zoo.load(worse).training_record.stages[1]
    assert kept.kept_epoch == 2
    assert kept.scores["top1"] < first.scores["top1"]


def test_a_batch_in_parts_trains_as_the_whole(changed_recipe, data, tmp_path):
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
        train(plan_of(changed_recipe(stages=[stage(mean, parts=parts, **still)]), data, run))
        logs.append(log_of(run))
    for whole, in_parts in zip(*logs, strict=True):
        for name in ("loss", "features", "correct", "bits"):
            assert in_parts[name] == pytest.approx(whole[name], rel=1e-3)
    first, second = logs[0]
    assert second["loss"] < 0.9 * first["loss"]  # so another gradient would have shown


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
def test_two_processes_find_the_weights_of_one(changed_recipe, data, tmp_path):
    """Each has half of every batch; without noise and batch norms, sums alone are reordered."""
    recipe = changed_recipe(stages=[stage(FEATURES, frozen="decoder.tail", rounded=True)])
    found = []
    for number in (1, 2):
        run = tmp_path / f"run-{number}"
        words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(number)]
        words += ["-m", "splitzoo", "zoo", "train", recipe, "--data", data, "-o", run]
        words = [*map(str, words), "--workers", "0"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(run / "model")
        found.append(zoo.load(run / "model"))
    one, two = found
    begun = zoo.build(one.spec, seed=0).state_dict()
    for name, weight in one.encoder.named_parameters():
        assert not torch.equal(weight, begun[f"encoder.{name}"])
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(two.get_parameter(name), parameter, rtol=1e-3, atol=1e-4)
    scores = [model.training_record.stages[0].scores for model in found]
    assert scores[0] == pytest.approx(scores[1])
