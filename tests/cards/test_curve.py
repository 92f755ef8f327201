"""The R-D curve on a card: which points it has, where the model is, and what is refused."""

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from splitrun.errors import ReportError
from splitzoo import cards
from splitzoo.cards.curve import draw_curve, draw_figure
from splitzoo.cards.record import read_record
from splitzoo.profile.accuracy_report import read_accuracy
from splitzoo.profile.figures import LIGHT
from splitzoo.profile.rd_points import RdPoint

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MODEL = "flowers-splittable_regnetx_002-fp-beta3"
REPORT = RESULTS / "flowers" / f"{MODEL}-calibrated.json"
JPEG = RESULTS / "flowers" / "flowers-regnetx_002-jpeg-q10.json"
HOSTILE = '$x^2$ <script>alert("1")</script> & co'


def texts(path: Path) -> set[str]:
    return {text.strip() for text in ElementTree.parse(path).getroot().itertext()} - {""}


def test_a_card_shows_the_model_among_the_package_s_results(tmp_path) -> None:
    card = cards.build(tmp_path / "card", accuracy=REPORT)
    report = json.loads(REPORT.read_text())
    score, sent = report["scores"]["top1"], report["stream_bytes"]["mean"]
    for name in ("rd.svg", "rd-dark.svg"):
        said = texts(card.with_name(name))
        assert {"JPEG input", "WebP input", "AVIF input", "Entropic Student, FP"} <= said
        assert f"this model: {score:.1%}, {sent:,.0f} bytes" in said
        assert name in card.read_text()
    curve = read_record(card.parent).curve
    on_the_same = [
        path
        for path in (RESULTS / "flowers").glob("*.json")
        if json.loads(path.read_text())["data"]["sha256"] == report["data"]["sha256"]
    ]
    assert len(curve) == len(on_the_same) > 30
    (own,) = [one for one in curve if (one.model, one.coding) == (MODEL, report["calibrated"])]
    assert (own.score, own.stream_bytes) == (score, round(sent, 1))


def test_the_star_is_where_the_report_says() -> None:
    report = read_accuracy(REPORT)
    point = RdPoint(
        model="m", models="codec", coding="", setting="quality 1", score=0.5, stream_bytes=100
    )
    (axes,) = draw_figure([point], report, LIGHT).axes
    codec, star = axes.lines
    assert (list(codec.get_xdata()), list(codec.get_ydata())) == ([100], [50])
    assert star.get_marker() == "*"
    assert list(star.get_xdata()) == [report.stream_bytes.mean]
    assert list(star.get_ydata()) == [100 * report.score]


def test_a_family_of_one_s_own_is_drawn(tmp_path) -> None:
    family = tmp_path / "family"
    family.mkdir()
    shutil.copy(JPEG, family)
    card = cards.build(tmp_path / "card", accuracy=REPORT, family=family)
    (point,) = read_record(card.parent).curve
    expected = json.loads(JPEG.read_text())
    assert point.setting == "quality 10"
    assert (point.score, point.stream_bytes) == (
        expected["scores"]["top1"],
        expected["stream_bytes"]["mean"],
    )


def test_a_family_that_makes_no_curve_is_refused(tmp_path) -> None:
    other = next((RESULTS / "imagenet").glob("*-jpeg-q10.json"))
    with pytest.raises(ReportError, match=r"jpeg-q10 in .* was measured on other images than"):
        cards.gather(accuracy=REPORT, family=other)
    with pytest.raises(ReportError, match="where the model lies") as caught:
        cards.gather(family=JPEG)
    assert "--accuracy" in caught.value.next_step


def test_a_model_of_several_rates_has_a_table_of_them(tmp_path) -> None:
    text = str(cards.render(cards.gather(accuracy=REPORT)))
    assert "at each rate" not in text
    reports = sorted((RESULTS / "imagenet").glob("svbi_*-fp-variable*-calibrated.json"))
    of_the_model = next(path for path in reports if "-at-" not in path.name)
    text = str(cards.render(cards.gather(accuracy=of_the_model)))
    table = re.findall(r"^\| β ([\d.]+) of .*\| ([\d,]+) \| ([\d.]+)% \|$", text, re.MULTILINE)
    measured = [json.loads(path.read_text()) for path in reports]
    expected = sorted(
        (one["stream_bytes"]["mean"], f"{one['scores']['top1']:.2%}") for one in measured
    )
    assert [(sent, f"{score}%") for _, sent, score in table] == [
        (f"{round(sent, 1):,.0f}", score) for sent, score in expected
    ]
    assert text.count(", above |") == 1


def test_hostile_names_are_text_in_the_drawing(tmp_path) -> None:
    point = RdPoint(
        model=HOSTILE, models=HOSTILE, coding="", setting=HOSTILE, score=0.5, stream_bytes=100
    )
    draw_curve([point], read_accuracy(REPORT), tmp_path)
    root = ElementTree.parse(tmp_path / "rd.svg").getroot()
    assert HOSTILE in texts(tmp_path / "rd.svg")
    assert not [tag for tag in root.iter() if tag.tag.endswith("script")]
