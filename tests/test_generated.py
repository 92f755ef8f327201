"""Generated files say what the registry, the reports and the carried weights say today.

Each failure names the command that writes the file again.
"""

import filecmp
import re
from pathlib import Path

import pytest

from benchmarks.matrix.carried_cards import FOLDER, facts_of
from benchmarks.matrix.results_tables import families, report_of
from benchmarks.matrix.zoo_table import names_to_measure, render_zoo
from splitzoo import zoo
from splitzoo.cards.card import render
from splitzoo.cards.curve import draw_curve
from splitzoo.cards.diagram import draw_split
from splitzoo.cards.record import CardRecord, read_record
from splitzoo.profile.accuracy_report import AccuracyReport, read_accuracy
from splitzoo.profile.paired import PairedScores
from splitzoo.profile.report import read_report
from splitzoo.zoo.encoder_rows import encoder_rows
from splitzoo.zoo.hub_push import DRAWINGS, SPLIT_NAME
from splitzoo.zoo.known_data import about
from splitzoo.zoo.measures import listed
from splitzoo.zoo.model_rows import package_rows
from splitzoo.zoo.packaged import packaged

ROOT = Path(__file__).parents[1]
AGAIN = {
    "cards": "python -m benchmarks.matrix cards",
    "family": "make family-cards",
    "results": "python -m benchmarks.matrix results",
    "zoo": "python -m benchmarks.matrix zoo -o cards/generated/zoo.md",
}


COST = re.compile(r"^## Cost on the device$.*?(?=^## )", re.MULTILINE | re.DOTALL)


def rows_of(page: Path) -> list[list[str]]:
    lines = page.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]


def test_the_page_of_the_zoo_is_of_the_rows_of_today() -> None:
    page = (FOLDER / "zoo.md").read_text(encoding="utf-8")
    assert page == render_zoo(encoder_rows().values(), command=AGAIN["zoo"]), AGAIN["zoo"]
    # Rows of each architecture, and of each size of encoder, are there.
    again = AGAIN["zoo"].replace(" zoo ", " zoo '*' ")
    assert list(encoder_rows()) == names_to_measure(), again


def test_what_lists_show_is_what_the_reports_say() -> None:
    for name in packaged():
        shown = listed(zoo.get_spec(name), weights_at_hand=True)
        report = read_accuracy(report_of(name))
        assert shown.measured.scores == report.scores, AGAIN["results"]
        assert shown.stream_bytes == f"{report.stream_bytes.mean:,.0f}", AGAIN["results"]


def test_cards_say_what_their_images_are() -> None:
    for name in packaged():
        text = (FOLDER / name / "README.md").read_text(encoding="utf-8")
        record = read_record(FOLDER / name)
        for sha256 in (record.accuracy.data.sha256, record.config.training.data_sha256):
            assert about(sha256), "zoo/data.csv"
            assert f"The images: {about(sha256)}." in text, AGAIN["cards"]


def test_the_tables_of_results_are_of_the_reports_of_today() -> None:
    rows = {
        (row.model, row.rate_set_by, row.coding, row.data_sha256): row for row in package_rows()
    }
    reports = [read_accuracy(path) for paths in families().values() for path in paths]
    assert len(reports) == len(rows) > 30, AGAIN["results"]
    for report in reports:
        key = report.spec.name, report.spec.strength, report.calibrated, report.data.sha256
        row = rows[key]
        said = row.score, row.model_id, row.images, row.encoder_bits, row.stream_bytes
        expected = report.score, report.model_id, report.data.images, report.encoder.encoder_bits
        assert said == (*expected, round(report.stream_bytes.mean, 1)), AGAIN["results"]
    for path in FOLDER.glob("*/profile.json"):
        profile = read_report(path)
        carried = [row for row in rows.values() if row.model_id == profile.model_id]
        for row in carried:
            assert row.device_macs == profile.compute.macs, AGAIN["results"]
            assert row.edge_macs == profile.edge_compute.macs, AGAIN["results"]


@pytest.mark.parametrize("name", packaged())
def test_the_cards_of_the_carried_models_are_of_today(name, tmp_path) -> None:
    facts = facts_of(name)
    assert facts.manifest is not None
    assert facts.spec == zoo.get_spec(name), AGAIN["family"]
    assert facts.manifest.provenance.model_id == facts.accuracy.model_id, AGAIN["family"]
    # The weights that the package carries are those that were measured.
    digest = zoo.load(name).digest().hex()
    assert facts.manifest.provenance.model_sha256 == digest, AGAIN["family"]
    written = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    if facts.profile is None:  # what was measured on the device is then not held against anything
        written = COST.sub("", written)
    assert written.split() == str(render(facts)).split(), AGAIN["cards"]
    if facts.profile is not None:
        record = read_record(FOLDER / name)
        assert record == CardRecord.of(facts), AGAIN["cards"]
        assert record.facts().measurements == facts.measurements
    draw_curve(facts.curve, facts.accuracy, tmp_path)
    draw_split(facts.spec, facts.profile, tmp_path, accuracy=facts.accuracy)
    for drawing in DRAWINGS:
        if facts.profile is not None or not drawing.startswith(SPLIT_NAME):
            same = filecmp.cmp(tmp_path / drawing, FOLDER / name / drawing, shallow=False)
            assert same, AGAIN["cards"]


def figures_of(report: AccuracyReport) -> tuple[str, str, str]:
    """Top-1, bytes and encoder bits as pages write them."""
    bytes_, bits = report.stream_bytes.mean, report.encoder.encoder_bits
    return f"{report.scores['top1']:.2%}", f"{bytes_:,.0f}", f"{bits:,}"


@pytest.mark.parametrize("page", ["README.md", "docs/figures.md"])
def test_the_figures_of_the_families_are_those_of_their_reports(page) -> None:
    found = [path for paths in families().values() for path in paths]
    reports = [path for path in found if "-calibrated" not in path.name]
    known = {}
    for path in reports:
        calibrated = report_of(path.stem)
        coded = "" if calibrated == path else figures_of(read_accuracy(calibrated))[1]
        known.setdefault(figures_of(read_accuracy(path)), set()).add(coded)
    measured = {figures_of(report): report.paired for report in map(read_accuracy, found)}
    checked = 0
    for label, *cells in rows_of(ROOT / page):
        percent = [bool(re.fullmatch(r"[\d.]+%", cell)) for cell in cells]
        if percent == [True, False, False, False]:
            top1, sent, coded, bits = cells
            assert (top1, sent, bits) in known, label
            assert coded.removeprefix("not measured") in known[top1, sent, bits], label
        elif percent == [True, False, False]:
            assert tuple(cells) in measured, label
        elif percent == [False, True, False]:
            sent, top1, beside = cells
            pairs = [said for (*both, _), said in measured.items() if both == [top1, sent]]
            assert pairs, label
            assert not beside or beside in {interval_of(pair) for pair in pairs if pair}, label
        else:
            continue
        checked += 1
    assert checked >= 7


def interval_of(paired: PairedScores) -> str:
    """A difference with its interval, as pages write it."""
    figures = (100 * figure for figure in (paired.difference, *paired.interval))
    return "{:+.1f} points, {:+.1f} to {:+.1f}".format(*figures)


def test_the_readme_s_figures_of_speed_are_those_of_the_page_of_figures() -> None:
    def timed(page: str) -> dict[str, list[str]]:
        rows = [row for row in rows_of(ROOT / page) if " ms" in " ".join(row)]
        return {row[0]: [cell for cell in row[1:] if " ms" in cell] for row in rows}

    readme, page = timed("README.md"), timed("docs/figures.md")
    assert len(readme) > 3
    assert {label: page[label] for label in readme} == readme
