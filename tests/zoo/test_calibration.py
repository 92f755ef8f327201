"""Calibration: entropy tables fitted to photos; the same predictions in fewer bytes."""

import json
import shutil

import numpy as np
import pytest
import torch
from board import on_board
from commands import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from made_data import make_folders
from saved_folders import change_config, change_tensors
from small_models import small_spec
from strategies import INT32

from splitrun.coding import FactorizedTables
from splitrun.coding.factorized import ContextCoder
from splitrun.errors import ParityError, SplitzooError
from splitrun.image_files import list_images
from splitzoo import cards, zoo
from splitzoo.export.recording import record_run
from splitzoo.profile.rate import model_rates
from splitzoo.zoo.calibration import calibrate as calibrating
from splitzoo.zoo.calibration.images import parted
from splitzoo.zoo.calibration.record import Calibration
from splitzoo.zoo.calibration.rows import count_rows, tables_from_counts
from splitzoo.zoo.calibration.sparse import fit_sparse
from splitzoo.zoo.parts import in_floats

MODEL = "flowers-splittable_regnetx_002-fp-beta3"
IMAGES = 24


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("images"), train=IMAGES // 3) / "train"


@pytest.fixture(scope="module")
def calibrated(images, tmp_path_factory):
    """A calibrated copy of a carried model, saved: its folder."""
    model = zoo.load(MODEL)
    model.calibration = None
    zoo.calibrate(model, images)
    return zoo.save(model, tmp_path_factory.mktemp("calibrated") / "model")


def static():
    model = zoo.load(MODEL)
    model.calibration = None
    return model


def streams_of(model, images):
    loaded = (model.spec.preprocessing.load(path) for path in list_images(images))
    return [model.compress(torch.from_numpy(image))[0] for image in loaded]


def test_calibrated_models_predict_alike_in_fewer_bytes(calibrated, images):
    before, after = static(), zoo.load(calibrated)
    record = after.calibration.record
    assert record.fitted == IMAGES - IMAGES // 4
    assert record.payload_bytes.keys() == {"learned tables", "counted tables", "context coding"}
    assert record.kept == min(record.payload_bytes, key=record.payload_bytes.get)
    old, new = streams_of(before, images), streams_of(after, images)
    assert sum(map(len, new)) < 0.8 * sum(map(len, old))
    for stream, other in zip(old, new, strict=True):
        assert torch.equal(before.decompress([stream]), after.decompress([other]))
        with pytest.raises(SplitzooError, match=r"The stream is of model"):
            after.decompress([stream])
    rate = model_rates(after, list_images(images)[:4])
    assert rate.estimated_by == "calibrated tables"
    for image in rate.images:
        estimate = image.estimated_bits / 8
        assert estimate - 1 <= image.payload_bytes <= estimate * 1.01 + 16
        assert image.sc2bench_bytes is None
    card = str(cards.render(cards.gather(calibrated)))
    assert "## Entropy coding" in card
    assert "| context coding (this model's) |" in card
    assert record.warnings
    assert f"**Warning**: {record.warnings[0]}." in card


def test_the_command_says_what_it_compared(splitzoo, images, tmp_path):
    words = ("zoo", "calibrate", MODEL, "--data", images, "-o")
    code, out, err = splitzoo(*words, tmp_path / "m")
    assert code == 0
    assert "context coding, kept" in out
    assert "Next: splitzoo export split" in err
    refused(splitzoo(*words, tmp_path / "m"), "exists and is not empty")
    code, out, err = splitzoo(*words, tmp_path / "n", "--json", "--images", 12)
    record = json.loads(out)
    assert (record["fitted"], record["held_out"]) == (9, 3)
    assert "12 images are few: 100 or more" in record["warnings"][0]
    assert record["warnings"][0] in err
    assert zoo.load(tmp_path / "n").calibration.record.model_dump(mode="json") == record


def test_a_bundle_of_calibrated_tables_runs_on_the_board(splitzoo, images, tmp_path):
    bundle = tmp_path / "bundle"
    words = ("export", "split", MODEL, "--calibration", images, "-o", bundle, "--json")
    code, out, err = splitzoo(*words)
    assert code == 0, err
    manifest = json.loads(out)
    assert manifest["coding"]["kind"] == "context"
    report = json.loads(splitzoo("profile", "encoder", bundle, "--json")[1])
    assert report["size"]["sc2bench_encoder_bits"] is None
    assert manifest["coding"]["calibration"]["kept"] == "context coding"
    assert "--calibration" in manifest["provenance"]["command"]

    photo = list_images(images)[0]
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
def test_models_of_other_kinds_are_calibrated(name, images):
    model = zoo.load(name, pretrained=False)
    done = zoo.calibrate(model, images, most=8)
    first, *_ = done.record.payload_bytes.values()
    assert done.record.payload_bytes["context coding"] < first
    image = model.spec.preprocessing.load(list_images(images)[0])
    tensors = (one[0] for one in model.wire_tensors(torch.from_numpy(image)))
    sent = dict(zip(model.bottleneck.wire_names, model.codec.coder.decoded(*tensors), strict=True))
    (stream,) = model.compress(torch.from_numpy(image))
    decoded = model.codec.decompress(stream, model.hyper_decode)
    for name, one in zip(model.bottleneck.edge_inputs, decoded, strict=True):
        if name in sent:
            np.testing.assert_array_equal(one, sent[name], strict=True)
    prediction = model.decompress([stream])
    model.calibration = None
    assert torch.equal(prediction, model.decompress(model.compress(torch.from_numpy(image))))


def test_what_integers_cost_is_counted(images):
    """Against the float model's own streams of the images held out, less their frames."""
    model = zoo.build(small_spec("image-classification", "mshp"))
    floats = in_floats(model)
    _, held_out = parted(list(calibrating.draw_sent(model, images, most=12).used))
    record = zoo.calibrate(model, images, most=12).record
    loaded = (model.spec.preprocessing.load(path) for path in held_out)
    payloads = [floats.codec.unframe(floats.compress(image)[0])[0] for image in loaded]
    assert len(payloads) == record.held_out == 3
    assert record.float_payload_bytes == sum(map(len, payloads)) / 3
    assert record.integers_cost == record.before / record.float_payload_bytes - 1
    assert abs(record.integers_cost) < 0.02
    factorized = zoo.build(small_spec("image-classification", "fp"))
    assert zoo.calibrate(factorized, images, most=12).record.integers_cost is None


def test_a_calibrated_model_keeps_what_is_better(calibrated, images):
    """Tables fitted to few photos are worse than those fitted to these among many."""
    model = zoo.load(calibrated)
    before = model.codec.stream_id
    done = zoo.calibrate(model, images, most=8)
    if done is None:
        assert model.codec.stream_id == before
    else:
        assert done.record.after < done.record.payload_bytes["present tables"]


def test_learned_tables_stay_where_nothing_is_better(monkeypatch, splitzoo, images, tmp_path):
    def worse(symbols, **_):
        return fit_sparse(np.full_like(symbols, 9), limit=15)

    monkeypatch.setattr(calibrating, "fit_sparse", worse)
    monkeypatch.setattr(calibrating, "tables_from_counts", lambda counts: flat(len(counts)))
    plain = zoo.save(static(), tmp_path / "plain")
    words = ("zoo", "calibrate", plain, "--data", images, "-o", tmp_path / "m")
    code, out, err = splitzoo(*words)
    assert (code, out) == (0, "")
    assert "No new tables send less" in err
    assert zoo.load(tmp_path / "m").calibration is None
    assert zoo.load(tmp_path / "m").digest() == static().digest()


def flat(channels):
    cdf = np.tile(np.arange(0, 65537, 1024), (channels, 1))
    return FactorizedTables(cdf, np.full(channels, 65), np.full(channels, -32), 16)


def test_no_coding_is_kept_that_makes_a_image_grow(monkeypatch, images):
    """One whose symbols nothing foretells, neither counts nor neighbours."""
    sent = calibrating.sent_tensors
    odd = np.random.default_rng(0).integers(-60, 60, static().spec.latent_shape).astype(np.int32)
    # The first is held out.
    changed = lambda *words, **more: [(odd,), *sent(*words, **more)[1:]]  # noqa: E731
    monkeypatch.setattr(calibrating, "sent_tensors", changed)
    model = static()
    before = len(model.codec.coder.encode(odd))
    zoo.calibrate(model, images)
    assert len(model.codec.coder.encode(odd)) <= 1.02 * before + 16


def test_models_without_tables_and_folders_without_enough_images_are_refused(
    splitzoo, images, tmp_path
):
    def run(folder, model=MODEL):
        return splitzoo("zoo", "calibrate", model, "--data", folder, "-o", tmp_path / "m")

    refused(run(images, "flowers-regnetx_002-jpeg-q50"), "has no tables to fit")
    refused(run(tmp_path / "absent"), "is not a folder")
    few = tmp_path / "few"
    few.mkdir()
    refused(run(few), "no file in it has the name of an image")
    for number, path in enumerate(list_images(images)[:9]):
        shutil.copyfile(path, few / f"{number}.png")
    for number in (0, 1):
        (few / f"{number}.png").write_bytes(b"no image")
    refused(run(few), "9 images, 2 of them unusable", "8 at least")
    assert not (tmp_path / "m").exists()


def test_what_is_not_read_is_counted(splitzoo, images, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    for number, path in enumerate(list_images(images)[:12]):
        shutil.copyfile(path, few / f"{number}{path.suffix}")
    for name in ("a.png", "b.png", "c.svg", "._1.png", ".DS_Store"):
        (few / name).write_bytes(b"no image")
    words = ("--data", few, "-o", tmp_path / "m")
    code, out, err = splitzoo("zoo", "calibrate", MODEL, *words, "--json")
    assert code == 0, err
    said = {
        (2, ".png", "it is not an image of a known format"),
        (1, ".svg", "no image format that is read"),
    }
    assert {f"not read: {files} {suffix}: {reason}" for files, suffix, reason in said} <= set(
        err.splitlines()
    )
    record = json.loads(out)
    assert {(one["files"], one["suffix"], one["reason"]) for one in record["unread"]} == said
    assert zoo.load(tmp_path / "m").calibration.record.model_dump(mode="json") == record


def test_training_and_new_weights_make_it_void(calibrated):
    model = zoo.load(calibrated)
    assert model.codec.coder.kind == "context"
    assert model.train().calibration is None
    assert model.eval().codec.coder.kind == "factorized"
    model = zoo.load(calibrated)
    model.load_state_dict(static().state_dict())
    assert model.codec.coder.kind == "factorized"


DAMAGED_ARRAYS = [
    ({"spreads": None}, "other tables"),
    ({"limit": lambda array: array * 0}, "a limit of 0"),
    (dict.fromkeys(("weights", "side_weights"), lambda array: array[..., 1:]), "not for what"),
    ({"weights": lambda array: array.bfloat16()}, "not int32"),
]
DAMAGED_RECORD = [
    (("kind",), "pixels", "is none of"),
    (("kind",), "quantised-relu", "other tables"),
    (("payload_bytes",), {}, "calibration"),
    (("kept",), "nothing", "calibration"),
    (("fitted",), 0, "calibration"),
    ((), None, r"unexpected: .*calibrated\.fractions"),
]


def test_damaged_tables_are_refused(calibrated, tmp_path):
    folders = (tmp_path / str(number) for number in range(99))
    for changes, said in DAMAGED_ARRAYS:
        folder = shutil.copytree(calibrated, next(folders))
        change_tensors(folder, **{f"calibrated.{name}": way for name, way in changes.items()})
        with pytest.raises(SplitzooError, match=said):
            zoo.load(folder)
    for path, value, said in DAMAGED_RECORD:
        folder = shutil.copytree(calibrated, next(folders))
        change_config(folder, "calibration", *path, value=value)
        with pytest.raises(SplitzooError, match=said):
            zoo.load(folder)


@settings(max_examples=60, deadline=None)
@given(
    numpy_strategies.arrays(
        np.int32,
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
        elements=st.integers(-3, 3) | st.integers(INT32.min, INT32.max),
        fill=st.just(0) | st.just(600),
    ),
    st.integers(1, 255),
)
def test_tables_of_any_symbols_code_them(symbols, limit):
    coder = ContextCoder(fit_sparse(symbols, limit=limit))
    for one in symbols:
        (decoded,) = coder.decode(coder.encode(one), *one.shape[1:])
        np.testing.assert_array_equal(decoded, one, strict=True)


def test_rows_have_what_was_seen_and_more():
    symbols = np.array([0, 0, 0, 1, -1, 0, 700])
    tables = tables_from_counts(count_rows(symbols, np.zeros(7, int), 2, 5))
    assert tables.channels == 2
    frequencies = np.diff(tables.cdf[0, : tables.length[0]])
    seen = dict(zip(range(int(tables.offset[0]), 99), frequencies[:-1], strict=False))
    assert seen[0] > seen[1] == seen[-1] > seen[2] > 0
    assert frequencies[-1] > 0.05 * (1 << 16)  # one in seven was beyond


def test_a_live_range_of_other_weights_is_not_exported(images, tmp_path):
    """What is left out of the stream must be what the edge makes 0 of."""
    model = zoo.load("splittable_resnet50-bq1ch", pretrained=False)
    done = zoo.calibrate(model, images, most=8)
    assert done.record.kind == "quantised-relu"
    arrays = done.arrays | {"live": np.array([[1e9], [np.inf]], np.float32)}
    model.calibration = Calibration(arrays, done.record)
    with pytest.raises(ParityError, match="fitted to other weights"):
        record_run(model, 0)
