"""The three tradeoffs: fronts, BD-rate, the CSV, the images."""

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from board import on_board
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from splitrun.errors import ReportError, UnknownNameError
from splitzoo import zoo
from splitzoo.profile.accuracy_report import AccuracyReport, DataFacts, EncoderFacts
from splitzoo.profile.costs import read_latencies
from splitzoo.profile.figures import LIGHT
from splitzoo.profile.report import Distribution
from splitzoo.profile.series import series_of
from splitzoo.profile.ticks import labels, round_values
from splitzoo.profile.tradeoff_plot import draw_figure, figure_styles
from splitzoo.profile.tradeoffs import Point, bd_rate, collect


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
    return [
        Point("s", "", "m", "", score, size, 0, 0, None, None, False, False)
        for size, score in pairs
    ]


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
    fewer = STUDENT[0].data.model_copy(update={"images": 3})
    with pytest.raises(ReportError, match=r"on other images than .* \(3 and 4\)"):
        collect([STUDENT[0], report_of("resnet50-jpeg-q90", 1, 0.5, data=fewer)])
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


def test_networks_that_differ_are_series_of_their_own():
    name = "splittable_resnet50-fp-beta0.08"
    stronger = "splittable_resnet50-fp-beta0.16"
    spec = zoo.get_spec(name)
    small = replace(spec.preprocessing, crop=(64, 64))
    at_64 = spec.model_copy(update={"preprocessing": small})
    flowers = spec.model_copy(update={"dataset": "flowers", "name": f"flowers-{name}"})
    mine = spec.model_copy(update={"name": "mine-splittable_resnet50-fp-beta0.08"})
    changed = {
        "random weights": {"weights": "random"},
        "int8": {"runtime": "onnxruntime 1.32.0, int8"},
        "64×64": {"spec": at_64},
        "flowers": {"spec": flowers},
        "mine-splittable_resnet50-fp": {"spec": mine},
        "onnxruntime": {"runtime": "onnxruntime 1.32.0"},
        "run 2": {"source": "another/model", "model_id": "00000001"},
    }
    for said, changes in changed.items():
        other = report_of(name, 900, 0.2, **changes)
        found = collect([report_of(name, 900, 0.8), report_of(stronger, 500, 0.7), other])
        named = {point.score: point.series for point in found.points}
        assert named[0.2] == f"Entropic Student, FP, {said}"
        assert named[0.2] not in (named[0.8], named[0.7])
        rows = [(point.series, point.setting) for point in found.points]
        assert len(set(rows)) == len(rows)
        if said in ("random weights", "int8", "run 2"):
            assert named[0.8] == named[0.7] == "Entropic Student, FP"


def test_backbones_are_named_where_there_are_several():
    other = report_of("splittable_resnet101-fp-beta0.08", 900, 0.2)
    assert list(collect([STUDENT[0], other, JPEG[0]]).series()) == [
        "Entropic Student, FP, resnet50",
        "Entropic Student, FP, resnet101",
        "JPEG input, resnet50",
    ]


def test_models_whose_channels_set_the_rate_are_one_series():
    reduced = [
        report_of(f"splittable_resnet50-bq{channels}ch", 900 * channels, 0.5, bits=channels)
        for channels in (1, 2, 3)
    ]
    assert list(collect(reduced).series()) == ["CR + BQ"]


def test_calibrated_models_are_a_series_of_their_own():
    found = collect([*STUDENT, *CALIBRATED])
    series = found.series()
    assert list(series) == ["Entropic Student, FP", "Entropic Student, FP, context coding"]
    assert {one.coding for one in series["Entropic Student, FP, context coding"]} == {
        "context coding"
    }
    (rate,) = found.bd_rates("Entropic Student, FP")
    assert rate.percent == pytest.approx(-50)


# What the encoder costs


def test_operations_of_the_encoder_are_a_cost():
    found = collect([*STUDENT, *JPEG, *REDUCED], cost="macs")
    series = found.series()
    # By hand: see test_flops.
    assert {one.cost for one in series["Entropic Student, FP"]} == {588_354_048}
    assert [one.exrd for one in series["Entropic Student, FP"]] == [
        588_354_048 * size for size in (1000, 2000, 4000)
    ]
    assert {one.cost for one in series["JPEG input"]} == {None}
    flops = collect(STUDENT, cost="flops").points[0].cost
    assert flops == 2 * 588_354_048 + 3 * (112**2 * 96 + 56**2 * 48) + 2 * 55**2 * 24
    with pytest.raises(UnknownNameError, match="encoder cost"):
        collect(STUDENT, cost="mac")
    with pytest.raises(ReportError, match="Profiles hold latencies"):
        collect(STUDENT, cost="macs", profiles=[Path("board.json")])


def bench_of(model_id: str, milliseconds: float, cpu: str = "Cortex-A72", **changes) -> dict:
    step = dict.fromkeys(("p50_ms", "p90_ms", "p99_ms", "mean_ms"), milliseconds)
    return {
        **{"half": "device", "engine": "onnxruntime 1.32.0", "precision": "fp32"},
        **{"model_id": model_id, "latency": {"encoder": step, "total": step}},
        **{"environment": {"cpu": cpu}, "model": "any", "target": "cpu"},
    } | changes


def test_latency_on_a_device_is_a_cost(tmp_path):
    reports = [
        report_of(one.spec.name, one.stream_bytes.mean, one.score, model_id=f"0000000{number}")
        for number, one in enumerate((*STUDENT, JPEG[0]))
    ]
    benches = [bench_of("00000000", 3.0, precision="int8")]
    benches += [bench_of(one.model_id, 10.0 + i) for i, one in enumerate(reports[:2])]
    benches.append(bench_of("00000003", 2.5))
    edge = bench_of("00000002", 1.0, half="edge")
    (tmp_path / "board.json").write_text(json.dumps([*benches, edge]))
    found = collect(reports, cost="latency", profiles=[tmp_path])
    assert {one.model: one.cost for one in found.points} == {
        STUDENT[0].spec.name: 10.0,
        STUDENT[1].spec.name: 11.0,
        STUDENT[2].spec.name: None,
        JPEG[0].spec.name: 2.5,
    }
    assert "onnxruntime 1.32.0 on Cortex-A72" in found.cost.what

    (tmp_path / "other.json").write_text(json.dumps([bench_of("00000002", 1.0, "Orin")]))
    with pytest.raises(ReportError, match=r"2 engines or machines: .*A72; .*Orin"):
        collect(reports, cost="latency", profiles=[tmp_path])
    with pytest.raises(ReportError, match="No profile holds the latency") as error:
        collect(STUDENT, cost="latency")
    assert "splitrun bench --json" in error.value.next_step
    (tmp_path / "other.json").write_text("[{}]")
    with pytest.raises(ReportError, match=r"other\.json holds no latencies"):
        collect(reports, cost="latency", profiles=[tmp_path])


def test_latencies_come_from_profiles_and_benches_alike(splitzoo, tiny_bundle, tmp_path):
    profile, bench = tmp_path / "profile.json", tmp_path / "bench.json"
    words = ("--iterations", "2", "--warmup", "0", "-o", profile)
    assert splitzoo("profile", "encoder", tiny_bundle, *words)[0] == 0
    ran = on_board(tiny_bundle, "bench", "--json", "--iterations=2", "--warmup=0")
    bench.write_text(ran.stdout)
    by_profile, by_bench, edge = read_latencies([profile, bench])
    assert (by_profile.half, by_bench.half, edge.half) == ("device", "device", "edge")
    assert edge.graph_ms == json.loads(ran.stdout)[1]["latency"]["decoder"]["p50_ms"]
    steps = json.loads(profile.read_text())["latency"]["steps"]
    assert by_profile.median_ms == steps["total"]["p50_ms"]
    assert by_bench.median_ms == json.loads(ran.stdout)[0]["latency"]["total"]["p50_ms"]
    assert by_bench.model_id == by_profile.model_id
    assert by_bench.machine == by_profile.machine
    assert by_bench.precision == by_profile.precision == "fp32"


# The figure


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.2, 100, ["0.3", "1", "3", "10", "30", "100"]),
        (1e5, 1e8, ["100k", "1M", "10M", "100M"]),
        (1.9e5, 4.2e5, ["200k", "300k"]),
        (1000, 1500, ["1,000", "1,100", "1,200", "1,300", "1,400", "1,500"]),
        (3, 8, ["3", "5", "7"]),
        (1e6, 1_000_011, ["1,000,000", "1,000,005", "1,000,010"]),
        (2e-3, 2e9, ["0.01", "1", "100", "10k", "1M", "100M"]),
    ],
)
def test_ticks_are_few_and_round(low, high, said):
    assert labels(round_values(low, high, 6)) == said


@example(-0.4734545277143516, 0.001, 3)
@given(st.floats(-6, 12), st.floats(0.001, 12), st.integers(3, 8))
def test_ticks_are_few_and_have_labels_of_their_own(exponent, span, most):
    low, high = 10.0**exponent, 10.0 ** (exponent + span)
    values = round_values(low, high, most)
    assert 1 <= len(values) <= most
    assert all(low <= value <= high for value in values)
    assert len(set(labels(values))) == len(values)


def many_reports() -> list[AccuracyReport]:
    """Eighteen series with long names, in a narrow range."""
    backbones = ("resnet50", "resnet101", "regnety6.4gf", "hybrid_vit_small_r26_s32_224")
    return [
        report_of(f"splittable_{backbone}-{prior}-beta0.16", 1100 + 20 * i, 0.6 + i / 99, 10**6 + i)
        for i, (backbone, prior) in enumerate(itertools.product(backbones, ("fp", "shp", "mshp")))
    ] + [
        report_of(f"{backbone}-{codec}-q50", 1500 + i, 0.5, 0)
        for i, (backbone, codec) in enumerate(
            itertools.product(("resnet50", "resnet101"), ("jpeg", "webp", "bpg"))
        )
    ]


@pytest.mark.parametrize(
    "reports",
    [[*STUDENT, *JPEG, *CALIBRATED, *REDUCED], CALIBRATED, JPEG, STUDENT[:1], many_reports()],
    ids=["all", "calibrated", "codec", "one", "many"],
)
def test_nothing_in_the_figure_overlaps_or_is_cut(reports):
    figure = draw_figure(collect(reports), LIGHT, "")
    figure.canvas.draw()
    canvas = figure.bbox
    for axes in figure.axes[:2]:
        boxes = [tick.get_window_extent() for tick in axes.get_xticklabels() if tick.get_text()]
        assert len(boxes) >= 2
        for left, right in itertools.pairwise(boxes):
            assert left.x1 < right.x0
    (legend,), (note,) = figure.legends, figure.texts
    for box in (legend.get_window_extent(), note.get_window_extent()):
        assert canvas.x0 <= box.x0 < box.x1 <= canvas.x1
        assert canvas.y0 <= box.y0 < box.y1 <= canvas.y1
    assert note.get_window_extent().y1 <= legend.get_window_extent().y0
    lowest = min(axes.xaxis.label.get_window_extent().y0 for axes in figure.axes)
    assert legend.get_window_extent().y1 <= lowest


def test_series_look_different_and_hollow_means_what_the_note_says():
    found = collect(many_reports())
    styles = figure_styles(found.points, LIGHT)
    looks = {(one["color"], one["marker"], one["linestyle"]) for one in styles.values()}
    assert len(looks) == len(styles) == 18

    both = collect([*STUDENT, *CALIBRATED])
    hollow = figure_styles(both.points, LIGHT)["Entropic Student, FP, context coding"]
    assert (hollow["markerfacecolor"], hollow["label"][0]) == (LIGHT.page, "_")
    note = draw_figure(both, LIGHT, "").texts[0].get_text()
    assert "hollow: the same models, context coding" in note
    alone = collect(CALIBRATED)
    (style,) = figure_styles(alone.points, LIGHT).values()
    assert style["markerfacecolor"] == style["color"]
    assert style["label"] == "Entropic Student, FP, context coding"
    assert "hollow" not in draw_figure(alone, LIGHT, "").texts[0].get_text()


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


def test_the_column_and_the_axis_are_those_of_the_cost(splitzoo, tmp_path):
    report_of("splittable_resnet50-fp-beta0.08", 900, 0.8).save(tmp_path / "a.json")
    words = ("profile", "tradeoff", tmp_path / "a.json", "-o", tmp_path / "figure", "--json")
    code, out, err = splitzoo(*words, "--cost", "macs")
    assert code == 0, err
    said = json.loads(out)
    assert (said["cost"], said["points"][0]["cost"]) == ("encoder_macs", 588_354_048)
    (row,) = csv.DictReader((tmp_path / "figure/tradeoff.csv").read_text().splitlines())
    assert row["encoder_macs"] == "588354048"
    assert "cost" not in row
    assert "encoder MACs × data size, KB" in (tmp_path / "figure/tradeoff.svg").read_text()


def test_a_result_that_is_none_is_refused(splitzoo, tmp_path):
    (tmp_path / "bad.json").write_text("{}")
    code, out, err = splitzoo("profile", "tradeoff", tmp_path / "bad.json", "-o", tmp_path / "f")
    assert (code, out) == (1, "")
    assert "no valid accuracy report" in err
    assert not (tmp_path / "f").exists()
