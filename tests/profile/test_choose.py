"""Which model suits a link: times against hand counts, ranks, and where two ways are equal."""

import json
from pathlib import Path

import pytest

from splitrun.errors import ReportError, UnknownNameError
from splitrun.sending.links import LINKS, read_link
from splitzoo.profile.choosing.choose import choose
from splitzoo.profile.choosing.crossings import Course, crossing
from splitzoo.profile.choosing.devices import BOARDS, read_pace
from splitzoo.profile.choosing.plot import draw_choice
from splitzoo.profile.rows import read_reports
from splitzoo.zoo.csv_rows import read_rows, write_rows
from splitzoo.zoo.model_rows import ModelRow, package_rows

REPOSITORY = Path(__file__).parents[2]


def row(model: str, score: float, size: float, **changes) -> ModelRow:
    fields = {
        **{"model": model, "model_id": "0" * 8, "task": "image-classification"},
        **{"method": "entropic-student", "backbone": "resnet50", "series": "students"},
        **{"coding": "", "rate_set_by": "β 1", "data": "val", "data_sha256": "0" * 64},
        **{"images": 10, "metric": "top1", "score": score, "top5": None, "stream_bytes": size},
        **{"bits_per_pixel": 0.1, "encoder_bits": 1000, "device_macs": 2_000_000},
        **{"edge_macs": 8_000_000, "device_ms": 6.0, "device_graph_ms": 4.0, "edge_ms": None},
        **{"edge_graph_ms": None, "machine": "an engine on a board", "date": "2026-01-01"},
        "command": "none",
    }
    return ModelRow.model_validate(fields | changes)


CODEC = {"method": "input-compression", "series": "JPEG input", "encoder_bits": 0} | dict.fromkeys(
    ("device_ms", "device_graph_ms")
)
SPLIT = row("split", 0.8, 200)
ROWS = [
    SPLIT,
    row("better", 0.9, 640),
    row("jpeg-q50", 0.85, 3000, **CODEC, device_macs=0, edge_macs=10_000_000),
    row("jpeg-q20", 0.7, 1000, **CODEC, device_macs=0, edge_macs=10_000_000),
    row("whole-png", 0.95, 90_000, **CODEC, device_macs=0, edge_macs=10_000_000),
]


def test_times_are_those_of_device_link_and_edge() -> None:
    found = choose(ROWS, link=LINKS.get("lora"))
    (group,) = found.groups
    plans = {plan.model: plan for plan in group.plans if plan.way != "all on the device"}
    split, better = plans["split"], plans["better"]
    # One frame of 5,470 bit/s after 20.736 ms of preamble and header; 640 bytes are three.
    assert (split.frames, better.frames) == (1, 3)
    assert split.air_ms == pytest.approx(8 * 215 / 5.47 + 20.736)
    assert better.air_ms == pytest.approx(8 * (640 + 45) / 5.47 + 3 * 20.736)
    # Timed: 2 and 2 million MACs in 4 and 4 ms, which is 0.5 million a millisecond.
    assert (split.device_ms, split.device_measured) == (6.0, True)
    assert (split.edge_ms, split.edge_measured) == (16.0, False)
    assert split.total_ms == pytest.approx(6 + split.air_ms + 16)
    # 3.3 V · 29 mA, and 1% of an hour.
    assert split.millijoules == pytest.approx(95.7e-3 * split.air_ms)
    assert split.images_per_hour == pytest.approx(36e3 / split.air_ms)
    (alone,) = [plan for plan in group.plans if plan.way == "all on the device"]
    assert (alone.score, alone.device_ms, alone.edge_ms) == (0.95, 20.0, 0.0)


def test_what_fits_comes_first_and_by_accuracy() -> None:
    link = read_link("37.5kbps")
    found = choose(ROWS, link=link, max_bytes=1500, deadline_ms=200, min_accuracy=0.75)
    order = [(plan.model, plan.way, bool(plan.misses)) for plan in found.groups[0].plans]
    assert order == [
        ("whole-png", "all on the device", False),
        ("better", "split", False),
        ("split", "split", False),
        ("whole-png", "image codec", True),
        ("jpeg-q50", "image codec", True),
        ("jpeg-q20", "image codec", True),
    ]
    misses = {plan.model: plan.misses for plan in found.groups[0].plans[3:]}
    assert misses["jpeg-q50"] == ("3,000 bytes", "660 ms")
    assert misses["jpeg-q20"] == ("233 ms", "70.00%")
    assert choose(ROWS, link=link, max_bytes=1).groups[0].best is None


def test_where_two_ways_take_equally_long() -> None:
    split = Course("split", "split", 0.8, 1000, fixed_ms=10, air_bits=8000)
    jpeg = Course("jpeg", "image codec", 0.8, 4000, fixed_ms=4, air_bits=32_000)
    # 24,000 bits more in 6 ms.
    cross = crossing(split, jpeg)
    assert cross.bits_per_second == pytest.approx(4e6)
    assert cross.total_ms == pytest.approx(12) == pytest.approx(jpeg.total_ms(4e6))
    assert cross.faster_below == "split"
    alone = Course("whole", "all on the device", 0.8, 16, fixed_ms=5, air_bits=128)
    cross = crossing(split, alone)
    assert (cross.bits_per_second, cross.faster_below) == (None, "other")
    slow = Course("whole", "all on the device", 0.8, 16, fixed_ms=26, air_bits=128)
    cross = crossing(split, slow)
    assert cross.bits_per_second == pytest.approx(7872 / 16e-3)
    assert cross.faster_below == "other"


def test_codecs_are_compared_at_no_less_accuracy() -> None:
    (group,) = choose(ROWS[:1] + ROWS[2:], link=read_link("10kbps")).groups
    assert [cross.other for cross in group.crossings] == ["jpeg-q50", "whole-png"]
    (group,) = choose(ROWS, link=read_link("10kbps")).groups
    assert group.crossings[0].other == "jpeg-q50"  # none reaches 90%: the most accurate


def test_a_device_is_slower_or_faster_by_what_was_measured_on_it(tmp_path) -> None:
    steps = {name: {"p50_ms": 12, "p90_ms": 12, "p99_ms": 12, "mean_ms": 12} for name in "xyz"}
    steps = dict(zip(("encoder", "entropy coding", "framing"), steps.values(), strict=True))
    bench = {
        **{"model": "split", "model_id": "0" * 8, "half": "device", "precision": "fp32"},
        **{"engine": "an engine", "latency": steps | {"total": steps["encoder"] | {"p50_ms": 36}}},
        "environment": {"cpu": "Cortex"},
    }
    path = tmp_path / "bench.json"
    path.write_text(json.dumps([bench]))
    pace = read_pace(str(path), ROWS)
    assert (pace.name, pace.factor) == ("an engine on Cortex", 6.0)
    found = choose(ROWS, device=str(path)).groups[0].plans
    by_way = {(plan.model, plan.way): plan.device_ms for plan in found}
    assert by_way["split", "split"] == 36.0
    assert by_way["whole-png", "all on the device"] == 120.0
    path.write_text(json.dumps([bench | {"model_id": "1" * 8}]))
    with pytest.raises(ReportError, match=r"no latency of a model that is compared"):
        read_pace(str(path), ROWS)
    accuracy = next((REPOSITORY / "benchmarks" / "results").glob("*/*-calibrated.json"))
    with pytest.raises(ReportError, match="is a report of accuracy"):
        read_pace(str(accuracy), ROWS)
    # 1.81 GMACs in 19.84 ms, beside 0.5 million a millisecond.
    assert read_pace("raspberrypi-5", ROWS).factor == pytest.approx(0.5e6 / (1.81e9 / 19.84))
    assert all(BOARDS.get(name).source for name in BOARDS.names())
    with pytest.raises(UnknownNameError, match="raspbery"):
        read_pace("raspbery", ROWS)


def test_no_model_is_one_message() -> None:
    with pytest.raises(ReportError, match="no model to choose from"):
        choose([])
    with pytest.raises(ReportError, match="No graph of a model was timed"):
        choose([row("a", 0.5, 1, device_ms=None, device_graph_ms=None, machine="")])


# Tables


def test_rows_are_read_as_they_were_written(tmp_path) -> None:
    path = tmp_path / "rows.csv"
    odd = row('a|b <script> "q", `c`', 0.1, 1.5, top5=0.25)
    write_rows(ModelRow, [SPLIT, odd], path)
    assert read_rows(ModelRow, path) == [SPLIT, odd]
    text = path.read_text()
    for wrong in ("model\n", text.replace("0.8", "8"), text + "a,b\n", text + "x," * 40 + "\n"):
        path.write_text(wrong)
        with pytest.raises(ReportError, match=r"rows\.csv"):
            read_rows(ModelRow, path)
    path.write_text(text.replace("students", "\x1b[31m"))
    with pytest.raises(ReportError, match="control characters"):
        read_rows(ModelRow, path)


# The command


def test_choose_recommends_what_the_figures_support(splitzoo, tmp_path) -> None:
    words = ("profile", "choose", "--link", "lora", "--deadline", "500ms")
    code, out, _ = splitzoo(*words, "--json", "-o", tmp_path / "figure")
    assert code == 0
    found = json.loads(out)
    measured = {one.model: one for one in package_rows() if one.coding or not one.encoder_bits}
    for group in found["groups"]:
        fitting = [plan for plan in group["plans"] if not plan["misses"]]
        others = [plan for plan in group["plans"] if plan["misses"]]
        for plan in group["plans"]:
            total = plan["device_ms"] + plan["air_ms"] + plan["edge_ms"]
            assert (total <= 500) == (plan in fitting)
            if plan["way"] == "split" and plan["model"] in measured:
                one = measured[plan["model"]]
                assert (plan["score"], plan["stream_bytes"]) == (one.score, one.stream_bytes)
        assert [plan["score"] for plan in fitting] == sorted(
            (plan["score"] for plan in fitting), reverse=True
        )
        assert group["plans"] == [*fitting, *others]
    written = {path.name for path in (tmp_path / "figure").iterdir()}
    plots = {f"choice{theme}.{form}" for theme in ("", "-dark") for form in ("png", "svg")}
    assert written == plots | {"choice.json"}
    assert "rate of the link, bit/s" in (tmp_path / "figure" / "choice.svg").read_text()
    _, out, _ = splitzoo(*words)
    best = found["groups"][0]["plans"][0]
    assert f"Recommended: {best['model']}" in out
    assert "SX1276" in out


def test_local_reports_are_ranked_too(splitzoo) -> None:
    reports = REPOSITORY / "benchmarks" / "results" / "flowers"
    name = "flowers-splittable_regnetx_002-bq1ch"
    words = ("--report", reports / f"{name}.json", "--json")
    code, out, _ = splitzoo("profile", "choose", *words)
    assert code == 0
    plans = {plan["model"]: plan for group in json.loads(out)["groups"] for plan in group["plans"]}
    assert (
        plans[name]["score"] == json.loads((reports / f"{name}.json").read_text())["scores"]["top1"]
    )
    code, _, err = splitzoo("profile", "choose", "--deadline", "soon")
    assert code == 2
    assert "is no time such as 200ms" in err
    code, _, err = splitzoo("profile", "choose", "--link", "string")
    assert (code, "neither a link nor a rate" in err) == (1, True)


def test_reports_are_told_from_latencies() -> None:
    folder = REPOSITORY / "cards" / "generated"
    reports, latencies = read_reports(sorted(folder.glob("*/profile.json")))
    assert reports == []
    assert {one.half for one in latencies} == {"device"}


def test_a_figure_says_where_ways_are_equal(tmp_path) -> None:
    found = choose(ROWS, link=read_link("10kbps"))
    draw_choice(found, tmp_path)
    svg = (tmp_path / "choice.svg").read_text()
    # 2,360 bytes more in 22 - 20 ms.
    assert "jpeg-q50: 85.00%, 3,000 bytes; equal at 9,440 kbit/s" in svg
    assert "all on the device: 95.00%, 16 bytes; equal at" not in svg
