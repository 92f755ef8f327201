"""Calibration: entropy tables fitted to photographs; the same answers in fewer bytes."""

import json
import shutil

import numpy as np
import pytest
import torch
from board import on_board
from commands import refused
from made_data import make_folders
from saved_folders import change_config, change_tensors

from splitzoo import zoo
from splitzoo.errors import ModelFolderError, SplitzooError
from splitzoo.zoo.calibration.rows import count_rows, tables_from_counts
from splitzoo.zoo.preprocessing import list_images

MODEL = zoo.DEFAULT_MODEL
IMAGES = 24


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("pictures"), train=IMAGES // 3) / "train"


@pytest.fixture(scope="module")
def calibrated(pictures, tmp_path_factory):
    """A calibrated copy of the default model, saved: its folder."""
    model = zoo.load(MODEL)
    model.calibration = None
    zoo.calibrate(model, pictures)
    return zoo.save(model, tmp_path_factory.mktemp("calibrated") / "model")


def static():
    model = zoo.load(MODEL)
    model.calibration = None
    return model


def streams_of(model, pictures):
    loaded = (model.spec.preprocessing.load(path) for path in list_images(pictures))
    return [model.compress(torch.from_numpy(image))[0] for image in loaded]


def test_calibrated_models_answer_alike_in_fewer_bytes(calibrated, pictures):
    before, after = static(), zoo.load(calibrated)
    assert after.calibration.record.fitted == IMAGES - IMAGES // 4
    old, new = streams_of(before, pictures), streams_of(after, pictures)
    assert sum(map(len, new)) < 0.8 * sum(map(len, old))
    for one, other in zip(old, new, strict=True):
        assert torch.equal(before.decompress([one]), after.decompress([other]))
        with pytest.raises(SplitzooError, match=r"The stream is of model"):
            after.decompress([one])


def test_what_is_kept_is_the_least_on_average(calibrated):
    record = zoo.load(calibrated).calibration.record
    assert record.payload_bytes.keys() == {"learned tables", "counted tables", "context coding"}
    assert record.kept == min(record.payload_bytes, key=record.payload_bytes.get)


def test_the_command_says_what_it_compared(splitzoo, pictures, tmp_path):
    code, out, err = splitzoo("zoo", "calibrate", MODEL, "--data", pictures, "-o", tmp_path / "m")
    assert code == 0
    assert "context coding, kept" in out
    assert "Next: splitzoo export split" in err
    taken = splitzoo("zoo", "calibrate", MODEL, "--data", pictures, "-o", tmp_path / "m")
    refused(taken, "exists and is not empty")
    words = ("zoo", "calibrate", MODEL, "--data", pictures, "-o", tmp_path / "n", "--json")
    record = json.loads(splitzoo(*words, "--images", 12)[1])
    assert (record["fitted"], record["held_out"]) == (9, 3)
    assert zoo.load(tmp_path / "n").calibration.record.model_dump(mode="json") == record


def test_a_bundle_of_calibrated_tables_runs_on_the_board(splitzoo, pictures, tmp_path):
    bundle = tmp_path / "bundle"
    words = ("export", "split", MODEL, "--calibration", pictures, "-o", bundle, "--json")
    code, out, err = splitzoo(*words)
    assert code == 0, err
    manifest = json.loads(out)
    assert manifest["coding"]["kind"] == "context"
    assert manifest["coding"]["calibration"]["kept"] == "context coding"
    assert "--calibration" in manifest["provenance"]["command"]

    photo = list_images(pictures)[0]
    for words in (("selftest",), ("encode", photo, "-o", tmp_path / "photo.sz")):
        done = on_board(bundle, *words)
        assert done.returncode == 0, done.stderr
    found = json.loads(on_board(bundle, "decode", tmp_path / "photo.sz", "--json").stdout)
    model = zoo.load(MODEL)
    (stream,) = model.compress(torch.from_numpy(model.spec.preprocessing.load(photo)))
    expected = model.decompress([stream]).softmax(1).topk(1)
    best = found["outputs"][0]["top"][0]
    assert best["label"] == model.spec.labels[int(expected.indices)]
    assert best["probability"] == pytest.approx(float(expected.values), abs=1e-3)


@pytest.mark.parametrize("name", ["splittable_resnet50-bq1ch", "splittable_resnet50-mshp-beta0.08"])
def test_models_of_other_kinds_are_calibrated(name, pictures):
    model = zoo.load(name, pretrained=False)
    done = zoo.calibrate(model, pictures, most=8)
    first, *_ = done.record.payload_bytes.values()
    assert done.record.payload_bytes["context coding"] < first
    image = model.spec.preprocessing.load(list_images(pictures)[0])
    sent = dict(zip(model.coder.sends, model.wire_tensors(torch.from_numpy(image)), strict=True))
    (stream,) = model.compress(torch.from_numpy(image))
    decoded = model.codec.decompress(stream, model.hyper)
    for name, one in zip(model.coder.receives, decoded, strict=True):
        if name in sent:
            np.testing.assert_array_equal(one, sent[name][0], strict=True)


def test_models_without_tables_are_refused(splitzoo, pictures, tmp_path):
    words = ("zoo", "calibrate", "flowers-regnetx_002-jpeg-q50", "--data", pictures)
    refused(splitzoo(*words, "-o", tmp_path / "m"), "has no tables to fit")


def test_folders_without_enough_pictures_are_refused(splitzoo, pictures, tmp_path):
    def run(folder):
        return splitzoo("zoo", "calibrate", MODEL, "--data", folder, "-o", tmp_path / "m")

    refused(run(tmp_path / "absent"), "is not a folder")
    (tmp_path / "empty").mkdir()
    refused(run(tmp_path / "empty"), "no file in it has the name of an image")
    few = tmp_path / "few"
    few.mkdir()
    for number, path in enumerate(list_images(pictures)[:9]):
        shutil.copyfile(path, few / f"{number}.png")
    for number in (0, 1):
        (few / f"{number}.png").write_bytes(b"no picture")
    refused(run(few), "9 images, 2 of them unusable", "8 at least")
    assert not (tmp_path / "m").exists()


def test_training_and_new_weights_make_it_void(calibrated):
    model = zoo.load(calibrated)
    assert model.codec.coder.kind == "context"
    assert model.train().eval().codec.coder.kind == "factorized"
    assert model.calibration is None
    model = zoo.load(calibrated)
    model.load_state_dict(static().state_dict())
    assert model.codec.coder.kind == "factorized"


def test_damaged_tables_are_refused(calibrated, tmp_path):
    def damaged(name):
        return shutil.copytree(calibrated, tmp_path / name)

    folder = damaged("missing")
    change_tensors(folder, **{"calibrated.spreads": None})
    with pytest.raises(SplitzooError, match="other tables"):
        zoo.load(folder)
    folder = damaged("hostile")
    change_tensors(folder, **{"calibrated.limit": lambda one: one * 0})
    with pytest.raises(SplitzooError, match="a limit of 0"):
        zoo.load(folder)
    folder = damaged("unknown")
    change_config(folder, "calibration", "kind", value="pixels")
    with pytest.raises(SplitzooError, match="is none of"):
        zoo.load(folder)
    folder = damaged("forgotten")
    change_config(folder, "calibration", value=None)
    with pytest.raises(ModelFolderError, match=r"unexpected: calibrated\.fractions"):
        zoo.load(folder)


def test_rows_have_what_was_seen_and_more():
    symbols = np.array([0, 0, 0, 1, -1, 0, 700])
    tables = tables_from_counts(count_rows(symbols, np.zeros(7, int), 2, 5))
    assert tables.channels == 2
    frequencies = np.diff(tables.cdf[0, : tables.length[0]])
    seen = dict(zip(range(int(tables.offset[0]), 99), frequencies[:-1], strict=False))
    assert seen[0] > seen[1] == seen[-1] > seen[2] > 0
    assert frequencies[-1] > 0.05 * (1 << 16)  # one in seven was beyond
