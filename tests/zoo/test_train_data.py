"""The data of a run: what is read, held out, broken or changed, and in which order."""

import hashlib
import os
import shutil
from dataclasses import replace

import pytest
import torch
from made_data import CLASSES, made_image, make_folders
from recipes_of_tests import FIRST, stage, write_recipe
from training_runs import STEPS, Stop, log_of, plan_of

from splitrun.errors import TrainingError
from splitzoo import zoo
from splitzoo.progress import Silent
from splitzoo.zoo.datasets import read_dataset
from splitzoo.zoo.train import readable
from splitzoo.zoo.train.checkpoint import NAME as CHECKPOINT
from splitzoo.zoo.train.data import BatchOrder, TrainingImages
from splitzoo.zoo.train.recipe import Augmentation
from splitzoo.zoo.train.run import train


def test_a_student_of_unlabelled_images_is_like_its_teacher(
    changed_recipe, teacher, data, tmp_path
):
    """No class is read: the images lie in folders that name none."""
    folder = tmp_path / "images"
    for number, path in enumerate(sorted((data / "train").rglob("*.png"))):
        place = folder / str(number % 2) / f"{number}{path.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    imitate = {"kind": "distillation", "alpha": 0.0}
    recipe = changed_recipe(
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


def test_held_out_images_are_not_trained_on(changed_recipe, data, tmp_path):
    ours = shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(ours / "val")  # nobody looks at it
    folder = train(plan_of(changed_recipe(held_out=0.25), ours, tmp_path / "run"))
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


def test_what_was_read_once_is_not_read_again(data, tmp_path, monkeypatch):
    spec = zoo.get_spec("splittable_test_resnet-fp")
    ours = shutil.copytree(data, tmp_path / "data")
    samples = read_dataset("image-classification", ours, "val").samples
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
