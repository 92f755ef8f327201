"""Evaluation by several processes: the results of one, and what goes wrong in another process."""

import functools
import json
import os

import pytest
from made_data import CLASSES, make_folders

from splitrun.errors import ReportError, UnknownNameError, UsageError
from splitzoo import export, profile, zoo
from splitzoo.profile.evaluate import evaluate
from splitzoo.profile.subjects import open_subject
from splitzoo.zoo.datasets import read_dataset
from splitzoo.zoo.resolve import ModelSource


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Nine images, and one that is none."""
    folder = make_folders(tmp_path_factory.mktemp("data") / "made", train=0, val=3) / "val"
    (folder / "bars" / "bad.png").write_bytes(b"no image")
    return folder


def saved(tiny_model, folder, seed=0):
    changes = {"num_classes": 3, "labels": CLASSES, "dataset": "custom"}
    model = zoo.build(tiny_model.spec.model_copy(update=changes), seed=seed)
    model.random_seed = None
    return zoo.save(model, folder)


@pytest.fixture(scope="module")
def labelled(tiny_model, tmp_path_factory):
    """The tiny model with the made data set's classes, saved."""
    return saved(tiny_model, tmp_path_factory.mktemp("labelled") / "model")


@pytest.fixture(scope="module")
def dataset(data):
    return read_dataset("image-classification", data, "val", CLASSES)


@pytest.fixture
def subject(labelled):
    return open_subject(ModelSource.of(labelled))


@pytest.mark.parametrize("kind", ["model", "bundle"])
def test_several_processes_find_what_one_does(kind, labelled, data, splitzoo, tmp_path) -> None:
    words = [labelled, "--against", labelled]
    if kind == "bundle":
        export.split(zoo.load(labelled), tmp_path / "bundle")
        words[0] = tmp_path / "bundle"
    found = []
    for number in (1, 2):
        table = tmp_path / f"{number}.csv"
        options = ("--data", data, "--json", "--processes", number, "-o", table)
        code, out, err = splitzoo("profile", "accuracy", *words, *options)
        assert code == 0, err
        report = json.loads(out)
        del report["command"], report["date"]
        found.append((report, table.read_text()))
    assert found[0] == found[1]
    assert len(found[0][0]["skipped"]) == 1
    assert len(found[0][1].splitlines()) == 1 + 9


def test_they_go_on_with_what_an_interrupted_evaluation_left(
    subject, dataset, data, tmp_path
) -> None:
    keep = tmp_path / "kept"
    whole, images = evaluate(subject, dataset, data, keep=keep)
    keep.write_text("".join(keep.read_text().splitlines(keepends=True)[:5]))
    again, same = evaluate(subject, dataset, data, keep=keep, processes=2)
    assert (again, same) == (whole, images)
    assert len(keep.read_text().splitlines()) == 1 + 9


@pytest.mark.parametrize("place", ["model", "against"])
def test_a_model_in_memory_is_refused_before_an_image_is_measured(
    place, labelled, data, tmp_path
) -> None:
    given = {"model": labelled, "against": labelled, place: zoo.load(labelled)}
    with pytest.raises(UsageError, match="in the memory of this process alone"):
        profile.accuracy(**given, data=data, processes=2, keep=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_what_another_process_says_is_heard(subject, dataset, data) -> None:
    subject.reopen = functools.partial(zoo.load, "resnet50-no-such-model")
    with pytest.raises(UnknownNameError) as here:
        subject.reopen()
    with pytest.raises(UnknownNameError) as there:
        evaluate(subject, dataset, data, processes=2)
    assert str(there.value) == str(here.value)


def test_other_weights_in_another_process_are_refused(
    subject, dataset, data, tiny_model, tmp_path
) -> None:
    other = saved(tiny_model, tmp_path / "other", seed=1)
    subject.reopen = functools.partial(open_subject, ModelSource.of(other))
    with pytest.raises(ReportError, match="was changed while it was measured"):
        evaluate(subject, dataset, data, processes=2)


def test_a_process_that_ends_is_an_error(subject, dataset, data) -> None:
    subject.reopen = functools.partial(os._exit, 9)
    with pytest.raises(ReportError, match="ended before its time"):
        evaluate(subject, dataset, data, processes=2)
