"""The three tradeoffs: fronts, BD-rate, the CSV, the images; and maps of bits."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from splitrun.errors import ReportError, SpecError, UnknownNameError
from splitzoo import zoo
from splitzoo.profile.accuracy_report import AccuracyReport, DataFacts, EncoderFacts
from splitzoo.profile.bit_maps import map_bits
from splitzoo.profile.report import Distribution
from splitzoo.profile.tradeoffs import Point, bd_rate, collect, series_of


def report_of(name: str, size: float, score: float, bits: int = 1000, **changes) -> AccuracyReport:
    fields = {
        "spec": zoo.get_spec(name),
        "subject": "model",
        "runtime": "none",
        "source": name,
        "weights": "trained",
        "seed": None,
        "model_id": "00000000",
        "data": DataFacts(folder="val", images=4, classes=2, sha256="0" * 64),
        "scores": {"top1": score, "top5": 1.0},
        "payload_bytes": Distribution.of([size]),
        "stream_bytes": Distribution.of([size]),
        "bits_per_pixel": Distribution.of([8 * size / 224**2]),
        "estimated_bits": None,
        "sc2bench_bytes": None,
        "encoder": EncoderFacts(parameters=1, encoder_bits=bits, sc2bench_encoder_bits=bits),
        "calibrated": "",
        "skipped": [],
        "not_measured": [],
        "environment": {},
        "date": "2026-01-01",
        "command": "none",
    }
    return AccuracyReport(**{**fields, **changes})


BETAS = ("0.08", "0.16", "0.32")
STUDENT = [
    report_of(f"splittable_resnet50-fp-beta{beta}", size, score)
    for beta, size, score in zip(BETAS, (4000, 2000, 1000), (0.9, 0.8, 0.7), strict=True)
]
JPEG = [
    report_of(f"resnet50-jpeg-q{quality}", size, score, bits=0)
    for quality, size, score in ((90, 8000, 0.9), (50, 4000, 0.8), (10, 2000, 0.7))
]
CALIBRATED = [
    report_of(one.spec.name, one.stream_bytes.mean / 2, one.score, calibrated="context coding")
    for one in STUDENT
]
REDUCED = [report_of("splittable_resnet50-bq3ch", 3000, 0.75, bits=200)]


def test_fronts_and_products():
    found = collect([*STUDENT, *JPEG, *REDUCED])
    series = found.series()
    assert list(series) == ["Entropic Student, FP", "JPEG input", "CR + BQ"]
    assert [one.data_bytes for one in series["Entropic Student, FP"]] == [1000, 2000, 4000]
    assert all(one.on_rd_front for one in series["Entropic Student, FP"])
    assert not any(one.on_rd_front for one in (*series["JPEG input"], *series["CR + BQ"]))
    assert [one.exrd for one in series["JPEG input"]] == [None] * 3
    (reduced,) = series["CR + BQ"]
    assert reduced.exrd == 200 * 3000
    assert reduced.on_exrd_front
    assert [one.on_exrd_front for one in series["Entropic Student, FP"]] == [False, True, True]


def test_bd_rate_of_known_curves():
    found = collect([*STUDENT, *JPEG, *REDUCED])
    compared = {one.series: one.percent for one in found.bd_rates("JPEG input")}
    assert compared["Entropic Student, FP"] == pytest.approx(-50)
    assert compared["CR + BQ"] is None  # one point
    back = {one.series: one.percent for one in found.bd_rates("Entropic Student, FP")}
    assert back["JPEG input"] == pytest.approx(100)
    with pytest.raises(UnknownNameError, match="No series is named 'JPEG'") as error:
        found.bd_rates("JPEG")
    assert "JPEG input" in error.value.next_step


def points(*pairs):
    return [Point("s", "", "m", "", score, size, 0, 0, None, False, False) for size, score in pairs]


def test_bd_rate_needs_a_common_range():
    low, high = points((1, 0.1), (2, 0.2)), points((1, 0.3), (2, 0.4))
    assert bd_rate(low, high) is None
    # A point that another beats has no part in it.
    curve = points((100, 0.1), (200, 0.2), (250, 0.15))
    assert bd_rate(curve, points((200, 0.1), (400, 0.2))) == pytest.approx(-50)


def test_what_cannot_be_compared_is_refused():
    other = DataFacts(folder="val", images=4, classes=2, sha256="1" * 64)
    with pytest.raises(ReportError, match="on other images"):
        collect([STUDENT[0], report_of("resnet50-jpeg-q90", 1, 0.5, data=other)])
    boxes = report_of("faster_rcnn_resnet50-jpeg-q90", 1, 0.5, scores={"map": 0.5, "map50": 0.6})
    with pytest.raises(ReportError, match="they make no tradeoff"):
        collect([STUDENT[0], boxes])
    with pytest.raises(ReportError, match="No accuracy report"):
        collect([])


def test_series_have_names_that_people_know():
    named = {
        "splittable_resnet50-mshp-beta0.16": "Entropic Student, MSHP",
        "splittable_resnet50-fp-beta1.28e-8-e2e": "end to end, FP",
        "resnet50-eb_after_layer2-beta1.0e-10": "EB after layer2",
        "resnet50-layer1-jpeg-q90": "JPEG after layer1",
        "resnet50-webp-q90": "WebP input",
        "resnet50-png": "PNG input",
    }
    assert {name: series_of(zoo.get_spec(name)) for name in named} == named
    assert series_of(zoo.get_spec("resnet50-webp-q1"), named=True) == "WebP input, resnet50"


def test_calibrated_models_are_a_series_of_their_own():
    found = collect([*STUDENT, *CALIBRATED])
    series = found.series()
    assert list(series) == ["Entropic Student, FP", "Entropic Student, FP, context coding"]
    assert {one.coding for one in series["Entropic Student, FP, context coding"]} == {
        "context coding"
    }
    (rate,) = found.bd_rates("Entropic Student, FP")
    assert rate.percent == pytest.approx(-50)


def test_the_figure_and_its_points(splitzoo, tmp_path):
    for number, one in enumerate([*STUDENT, *JPEG, *CALIBRATED, *REDUCED]):
        one.save(tmp_path / "results" / f"{number}.json")
    folder = tmp_path / "figure"
    words = ("profile", "tradeoff", tmp_path / "results", "--against", "JPEG input", "--json")
    code, out, err = splitzoo(*words, "-o", folder)
    assert code == 0, err
    said = json.loads(out)
    assert len(said["points"]) == 10
    assert said["bd_rates"][0]["percent"] == pytest.approx(-50)
    names = {f"tradeoff{theme}{form}" for theme in ("", "-dark") for form in (".svg", ".png")}
    assert {path.name for path in folder.iterdir()} == names | {"tradeoff.csv"}
    rows = list(csv.DictReader((folder / "tradeoff.csv").read_text().splitlines()))
    assert [float(row["data_bytes"]) for row in rows] == [
        one["data_bytes"] for one in said["points"]
    ]
    with Image.open(folder / "tradeoff.png") as opened:
        light = opened.convert("RGB")
    with Image.open(folder / "tradeoff-dark.png") as opened:
        dark = opened.convert("RGB")
    assert light.getpixel((2, 2)) == (255, 255, 255)
    assert max(dark.getpixel((2, 2))) < 64
    again = tmp_path / "again"
    assert splitzoo(*words, "-o", again)[0] == 0
    for name in (*names, "tradeoff.csv"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_result_that_is_none_is_refused(splitzoo, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    code, out, err = splitzoo("profile", "tradeoff", tmp_path / "bad.json", "-o", tmp_path / "f")
    assert (code, out) == (1, "")
    assert "no valid accuracy report" in err
    assert not (tmp_path / "f").exists()


# Maps of bits


@pytest.mark.parametrize("kind", ["fp", "mshp"])
def test_a_map_holds_all_bits_of_the_density(kind, tiny_model, photo):
    model = tiny_model
    if kind == "mshp":
        spec = zoo.get_spec("splittable_test_resnet-mshp")
        small = spec.model_dump()["preprocessing"] | {"resize": 64, "crop": (64, 64)}
        model = zoo.build(spec.model_validate({**spec.model_dump(), "preprocessing": small}))
    image = model.spec.preprocessing.load(photo)
    found = map_bits(model, image)
    assert found.bits.shape == image.shape[-2:]
    import torch

    with torch.no_grad():
        likelihoods = model.bottleneck.likelihoods(model.encoder(torch.from_numpy(image)))
    expected = -sum(float(one.log2().sum()) for one in likelihoods)
    assert found.total_bits == pytest.approx(expected, rel=1e-4)
    assert np.isfinite(found.bits).all()


def test_an_image_codecs_map_is_of_its_payload(photo):
    spec = zoo.get_spec("test_resnet-jpeg-q30")
    small = spec.model_dump()["preprocessing"] | {"resize": 64, "crop": (64, 64)}
    model = zoo.build(spec.model_validate({**spec.model_dump(), "preprocessing": small}))
    image = np.full((1, 3, 64, 64), 0.5, np.float32)
    random = np.random.default_rng(0)
    image[:, :, 16:32, 32:48] = random.random((1, 3, 16, 16))
    found = map_bits(model, image)
    assert found.total_bits == pytest.approx(8 * found.payload_bytes, rel=1e-3)
    # All of the content is in one block.
    assert found.bits[16:32, 32:48].sum() == pytest.approx(found.total_bits, rel=0.05)


def test_what_has_no_map_says_so(splitzoo, tmp_path, photo):
    model = zoo.build("splittable_test_resnet-bq3ch")
    with pytest.raises(SpecError, match="no learned density"):
        map_bits(model, model.spec.preprocessing.load(photo))
    code, _, err = splitzoo("profile", "bits", "resnet5", photo, "-o", tmp_path / "maps")
    assert code == 1
    assert "No model is named" in err


def test_maps_are_drawn_beside_those_of_a_codec(splitzoo, tmp_path, tiny_folder, photo):
    folder = tmp_path / "maps"
    words = ("profile", "bits", tiny_folder, photo, "-o", folder, "--random-weights", "--json")
    code, out, err = splitzoo(*words, "--against", "regnetx_002-jpeg-q20")
    assert code == 0, err
    (row,) = json.loads(out)
    assert math.isfinite(row["total_bits"])
    assert 0 < row["against_payload_bytes"] < 20_000
    with Image.open(folder / row["map"].rpartition("/")[2]) as drawn:
        assert drawn.size[0] > 800
    code, _, err = splitzoo(*words[:5], tmp_path / "c", *words[6:], "--against", "test_resnet-png")
    assert (code, (tmp_path / "c").exists()) == (2, False)
