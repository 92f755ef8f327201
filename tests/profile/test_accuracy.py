"""Evaluation: through the real bitstream, of a model, a bundle and predictions made elsewhere."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from made_data import CLASSES, make_coco, make_folders, make_voc
from PIL import Image

from splitrun.errors import BitstreamError, DatasetError
from splitzoo import export, zoo
from splitzoo.profile.accuracy_report import read_accuracy
from splitzoo.profile.evaluate import evaluate
from splitzoo.profile.subjects import ModelSubject
from splitzoo.zoo.datasets import Boxes, Sample, read_dataset
from splitzoo.zoo.metrics import ClassResult, detection_result, scores, segmentation_result


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("data") / "made", train=0, val=3) / "val"


@pytest.fixture(scope="module")
def labelled(tiny_model, tmp_path_factory):
    """The tiny model with the made data set's classes, saved."""
    changes = {"num_classes": 3, "labels": CLASSES, "dataset": "custom"}
    model = zoo.build(tiny_model.spec.model_copy(update=changes))
    model.random_seed = None
    return zoo.save(model, tmp_path_factory.mktemp("labelled") / "model")


@pytest.fixture(scope="module")
def labelled_bundle(labelled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "bundle"
    export.split(zoo.load(labelled), folder)
    return folder


def accuracy(splitzoo, *words):
    code, out, err = splitzoo("profile", "accuracy", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_model_is_scored_image_by_image(splitzoo, labelled, data, tmp_path):
    report_file, table = tmp_path / "report.json", tmp_path / "images.csv"
    words = ("--data", data, "-o", report_file, "-o", table)
    report = accuracy(splitzoo, labelled, *words, "--threads", torch.get_num_threads())
    assert read_accuracy(report_file).model_dump(mode="json") == report
    assert report["data"]["images"] == 9
    model = zoo.load(labelled)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["image"] for row in rows] == [
        f"{kind}/{kind}{number}.png" for kind in CLASSES for number in range(3)
    ]
    correct = 0
    for row in rows:
        image = model.spec.preprocessing.load(data / row["image"])
        (stream,) = model.compress(torch.from_numpy(image))
        prediction = int(model.decompress([stream]).argmax())
        label = CLASSES.index(row["image"].partition("/")[0])
        assert (int(row["prediction"]), int(row["label"])) == (prediction, label)
        assert int(row["stream_bytes"]) == len(stream)
        assert row["correct"] == str(prediction == label)
        correct += prediction == label
    assert report["scores"] == {"top1": correct / 9}
    sizes = [int(row["stream_bytes"]) for row in rows]
    assert report["stream_bytes"]["mean"] == pytest.approx(sum(sizes) / 9)
    assert report["bits_per_pixel"]["mean"] == pytest.approx(8 * sum(sizes) / 9 / 224**2)
    assert report["sc2bench_bytes"]["mean"] > report["payload_bytes"]["mean"]
    assert report["encoder"]["encoder_bits"] == 32 * report["encoder"]["parameters"]
    assert not list(tmp_path.glob(".*"))


def test_model_bundle_and_predictions_agree(splitzoo, labelled, labelled_bundle, data, tmp_path):
    of_model = accuracy(splitzoo, labelled, "--data", data)
    of_bundle = accuracy(splitzoo, labelled_bundle, "--data", data, "--workers", 2)
    # As on two machines: streams by one process, predictions by another.
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    runtime = [sys.executable, "-m", "splitrun"]
    images = [str(one) for one in sorted(data.rglob("*.png"))]
    subprocess.run(
        [*runtime, "encode", "-o", predictions, *images], cwd=labelled_bundle, check=True
    )
    streams = [str(one) for one in sorted(predictions.glob("*.sz"))]
    done = subprocess.run(
        [*runtime, "decode", "--json", *streams],
        cwd=labelled_bundle,
        check=True,
        capture_output=True,
        text=True,
    )
    (predictions / "predictions.json").write_text(done.stdout)
    of_predictions = accuracy(splitzoo, labelled, "--data", data, "--predictions", predictions)
    for other in (of_bundle, of_predictions):
        for field in ("scores", "stream_bytes", "payload_bytes", "model_id", "encoder"):
            if field != "encoder" or other is of_predictions:
                assert other[field] == of_model[field], field
    assert of_bundle["encoder"]["encoder_bits"] == of_model["encoder"]["encoder_bits"]
    assert [one["subject"] for one in (of_model, of_bundle, of_predictions)] == [
        *("model", "bundle", "predictions"),
    ]

    stream = predictions / "bars0.sz"
    stream.write_bytes(stream.read_bytes()[:-1])
    code, _, err = splitzoo(
        "profile", "accuracy", labelled, "--data", data, "--predictions", predictions
    )
    assert code == 1
    assert "bars0.sz" in err
    stream.unlink()
    code, _, err = splitzoo(
        "profile", "accuracy", labelled, "--data", data, "--predictions", predictions
    )
    assert (code, "bars0.sz is missing" in err) == (1, True)


def test_an_interrupted_evaluation_goes_on(labelled, data, tmp_path):
    dataset = read_dataset("image-classification", data, "val", CLASSES)
    keep = tmp_path / "kept"
    subject = ModelSubject(zoo.load(labelled))
    whole, images = evaluate(subject, dataset, data, workers=0)
    measured = []
    measure = subject.measure

    def stops(sample, image):
        measured.append(sample.name)
        if len(measured) == 5:
            raise KeyboardInterrupt
        return measure(sample, image)

    subject.measure = stops
    with pytest.raises(KeyboardInterrupt):
        evaluate(subject, dataset, data, workers=0, keep=keep)
    assert len(keep.read_text().splitlines()) == 5
    with keep.open("a") as file:
        file.write('{"rate": {"image": "cut')
    again, same = evaluate(subject, dataset, data, workers=0, keep=keep)
    assert len(measured) == 5 + 5
    assert again == whole
    assert same == images


def test_what_another_model_left_is_not_taken_up(labelled, data, tmp_path):
    dataset = read_dataset("image-classification", data, "val", CLASSES)
    keep = tmp_path / "kept"
    keep.write_text('{"of": "another"}\n{"rate": 1}\n')
    report, _ = evaluate(ModelSubject(zoo.load(labelled)), dataset, data, keep=keep)
    assert report.data.images == 9


def test_broken_images_are_counted_and_named(splitzoo, labelled, data, tmp_path):
    folder = tmp_path / "val"
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True)
        (folder / kind / "good.png").write_bytes((data / kind / f"{kind}0.png").read_bytes())
    (folder / "bars" / "bad.png").write_bytes(b"no image")
    for name in ("bars/a.svg", "bars/b.SVG", "notes.txt", ".DS_Store", "bars/._good.png"):
        (folder / name).write_bytes(b"no image")
    shutil.rmtree(folder / CLASSES[-1])
    (folder / CLASSES[-1]).mkdir()
    report = accuracy(splitzoo, labelled, "--data", folder)
    assert report["data"]["images"] == 2
    assert report["data"]["empty_classes"] == [CLASSES[-1]]
    names = [one["image"] for one in report["skipped"]]
    assert names == ["bars/bad.png", "notes.txt", "bars/a.svg", "bars/b.SVG"]
    unknown = "it is not an image of a known format"
    assert [(one["files"], one["suffix"], one["reason"]) for one in report["skipped_counts"]] == [
        (2, ".svg", "no image format that is read"),
        (1, ".txt", "in the folder of no class"),
        (1, ".png", unknown),
    ]
    code, out, _ = splitzoo("profile", "accuracy", labelled, "--data", folder)
    assert code == 0
    for said in (
        *("2 .svg: no image format that is read", f"1 .png: {unknown}", "bars/a.svg: no image"),
        f"in the folder {CLASSES[-1]}/",
    ):
        assert said in out
    written, card = tmp_path / "report.json", tmp_path / "card"
    written.write_text(json.dumps(report))
    assert splitzoo("cards", "build", labelled, "--accuracy", written, "-o", card)[0] == 0
    assert "decoded (4 other files were not read);" in (card / "README.md").read_text()


@pytest.mark.parametrize("suffix", ["avif", "gif", "jp2", "tga", "qoi"])
def test_images_of_other_formats_are_scored(splitzoo, labelled, data, tmp_path, suffix):
    for kind in CLASSES:
        (tmp_path / kind).mkdir()
        for number in range(3):
            with Image.open(data / kind / f"{kind}{number}.png") as image:
                image.save(tmp_path / kind / f"{number}.{suffix}")
    report = accuracy(splitzoo, labelled, "--data", tmp_path)
    assert (report["data"]["images"], report["skipped"]) == (9, [])


def test_what_cannot_be_evaluated_is_said(splitzoo, labelled, labelled_bundle, data, tmp_path):
    def refused(*words) -> str:
        code, out, err = splitzoo("profile", "accuracy", *words)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        return err

    assert "is not a folder" in refused(labelled, "--data", tmp_path / "missing")
    (tmp_path / "other" / "cats").mkdir(parents=True)
    assert "does not know: cats" in refused(labelled, "--data", tmp_path / "other")
    err = refused(labelled, "--data", data, "-o", tmp_path / "a.txt")
    assert "neither in .json" in err
    assert "holds no predictions" in refused(
        labelled, "--data", data, "--predictions", tmp_path / "other"
    )
    code, _, err = splitzoo(
        "profile", "accuracy", labelled_bundle, "--data", data, "--predictions", data
    )
    assert code == 2


# Scores


def test_top1_and_top5():
    results = [
        ClassResult(prediction=prediction, label=2)
        for prediction in ((2, 1, 0, 4, 5), (1, 2, 0, 4, 5), (1, 3, 0, 4, 5))
    ]
    assert scores("image-classification", results, 6) == {"top1": 1 / 3, "top5": 2 / 3}
    # The best five of five classes hold any: that says nothing.
    assert scores("image-classification", results, 5) == {"top1": 1 / 3}


def test_mean_intersection_over_union():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 255]])
    prediction = np.array([[0, 0, 1, 0], [0, 1, 1, 2]])
    found = scores("semantic-segmentation", [segmentation_result(prediction, truth, 3)], 3)
    # Class 0: 3 of 5; class 1: 2 of 4; class 2 occurs nowhere, as nothing is said of that pixel.
    assert found["miou"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert found["pixel_accuracy"] == pytest.approx(5 / 7)


def test_mean_average_precision():
    truth = Boxes(
        np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32),
        np.array([1, 2]),
        np.zeros(2, bool),
        np.array([100, 400], np.float32),
    )
    whole = {"boxes": truth.boxes, "labels": truth.labels, "scores": np.array([0.9, 0.8])}
    half = {name: one[:1] for name, one in whole.items()}
    assert scores("object-detection", [detection_result(whole, truth)], 3)["map"] == 1.0
    assert scores("object-detection", [detection_result(half, truth)], 3)["map"] == pytest.approx(
        0.5
    )


# Data sets


def test_coco_and_voc_are_read(tmp_path):
    coco = read_dataset("object-detection", make_coco(tmp_path / "coco"), "val")
    # Its classes are the categories, by their numbers; torchvision names those between N/A.
    assert coco.labels == ("__background__", "N/A", "N/A", "disc")
    assert [one.name for one in coco.samples] == [f"{number:012d}.jpg" for number in range(4)]
    target = coco.samples[1].target
    assert isinstance(target, Boxes)
    assert target.boxes.tolist() == [[9, 10, 35, 38]]
    assert (target.labels.tolist(), target.crowd.tolist()) == ([3], [False])
    voc = read_dataset("semantic-segmentation", make_voc(tmp_path / "voc"), "val")
    assert [one.name for one in voc.samples] == ["val_0.jpg", "val_1.jpg", "val_2.jpg"]
    inner = tmp_path / "root" / "VOCdevkit" / "VOC2012"
    assert len(read_dataset("semantic-segmentation", make_voc(inner).parents[1], "train").samples)


def test_hostile_lists_of_images_do_not_leave_the_folder(tmp_path):
    coco = make_coco(tmp_path / "coco")
    path = coco / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text().replace("000000000000.jpg", "../../secret.jpg"))
    with pytest.raises(DatasetError, match="lies outside"):
        read_dataset("object-detection", coco, "val")
    voc = make_voc(tmp_path / "voc")
    (voc / "ImageSets/Segmentation/val.txt").write_text("../../secret\n")
    with pytest.raises(DatasetError, match="outside its folder"):
        read_dataset("semantic-segmentation", voc, "val")
    text = path.read_text()
    for number in (0, 65536, 10**9):
        path.write_text(text.replace('"id": 3, "name"', f'"id": {number}, "name"'))
        with pytest.raises(DatasetError, match=f"category {number} is named 'disc'"):
            read_dataset("object-detection", coco, "val")
    path.write_text(text)
    with pytest.raises(
        DatasetError, match="category 3 is named 'disc', but the model knows 1 to 2"
    ):
        read_dataset("object-detection", coco, "val", ("__background__", "a", "b"))
    path.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(DatasetError, match="holds no annotations that can be read"):
        read_dataset("object-detection", coco, "val")


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("faster_rcnn_splittable_test_resnet-fp", make_coco),
        ("deeplabv3_splittable_test_resnet-fp", make_voc),
    ],
)
def test_dense_models_are_scored_through_the_bitstream(name, make, tmp_path):
    spec = zoo.get_spec(name)
    small = spec.model_dump()["preprocessing"] | {"resize": 64, "crop": (64, 64), "longest": 0}
    model = zoo.build(spec.model_validate({**spec.model_dump(), "preprocessing": small}))
    folder = make(tmp_path / "data")
    dataset = read_dataset(spec.task, folder, "val")
    report, images = evaluate(ModelSubject(model), dataset, folder)
    assert len(images) == len(dataset.samples)
    assert all(0 <= one <= 1 for one in report.scores.values())
    # A right prediction is worth 1, whatever the model says.
    sample = dataset.samples[0]
    if isinstance(sample.target, Boxes):
        found = {
            "boxes": sample.target.boxes,
            "labels": sample.target.labels,
            "scores": np.ones(1, np.float32),
        }
        perfect = detection_result(found, sample.target)
    else:
        with Image.open(sample.target) as opened:
            classes = np.asarray(opened)
        perfect = segmentation_result(np.where(classes == 255, 0, classes), classes, 21)
    assert scores(spec.task, [perfect], spec.num_classes)[report.metric] == pytest.approx(1.0)


def test_a_class_that_the_model_has_not_is_refused(labelled, data):
    model = zoo.load(labelled)
    path = next(data.rglob("*.png"))
    from splitzoo.zoo.outputs import result_of

    with pytest.raises(DatasetError, match="of class 7"):
        result_of(model.spec, np.zeros(3, np.float32), Sample(path, path.name, 7))
    with pytest.raises(BitstreamError):
        model.decompress([b"nothing"])
