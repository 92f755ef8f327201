"""The table of models and targets: what is measured, and how it is told."""

import json
from dataclasses import replace

import numpy as np
import pytest
from matrix_pages import TINY, table_of
from small_models import small_spec

from benchmarks.matrix import targets_cell, targets_matrix
from benchmarks.matrix.page import write_images
from benchmarks.matrix.targets_cell import Built, Cell, Column, measure_cell
from benchmarks.matrix.targets_matrix import (
    MODELS,
    NOT_TRIED,
    Job,
    Matrix,
    Row,
    list_columns,
    matching_models,
    matrix_spec,
    measure_row,
    put_into,
)
from benchmarks.matrix.targets_table import counted, render_targets
from splitrun.errors import (
    BitstreamError,
    BundleError,
    CalibrationError,
    DependencyError,
    ParityError,
    UnknownNameError,
)
from splitzoo import zoo
from splitzoo.export.recording import seeded_image

COMMAND = "python -m benchmarks.matrix targets -o targets.md"


def test_the_columns_are_targets_and_their_precisions() -> None:
    assert [one.title for one in list_columns()] == [
        *("cpu fp32", "cpu int8", "jetson fp32", "jetson fp16", "jetson int8"),
        *("openvino fp32", "openvino bf16", "openvino int8"),
        *("litert fp32", "litert int8", "executorch", "ncnn fp32", "ncnn fp16"),
        *("torchscript", "torch", "torch --aot"),
    ]
    assert list_columns(["raspberrypi"]) == [
        Column("raspberrypi", "fp32"),
        Column("raspberrypi", "int8"),
    ]
    with pytest.raises(UnknownNameError):
        list_columns(["jetsn"])


def test_the_models_are_of_every_kind_and_backbone_of_the_zoo() -> None:
    specs = [zoo.get_spec(name) for name in MODELS]
    registered = [zoo.get_spec(name) for name in zoo.list_models()]

    def kinds(which) -> set:
        return {
            (one.bottleneck.kind, getattr(one.bottleneck, "architecture", None)) for one in which
        }

    def families(which) -> set:
        return {one.backbone.strip("tf_")[:5] for one in which}

    assert kinds(specs) == kinds(registered)
    assert families(specs) == families(registered)
    assert {one.task for one in specs} == {one.task for one in registered}


def test_models_are_chosen_by_a_part_of_their_names_or_named() -> None:
    assert matching_models("*") == list(MODELS)
    assert matching_models("densenet") == ["splittable_densenet169-bq12ch_v0.1.1"]
    assert matching_models(TINY[0]) == [TINY[0]]
    with pytest.raises(UnknownNameError):
        matching_models("no-such-model")


def test_dense_tasks_take_smaller_images() -> None:
    spec = matrix_spec("faster_rcnn_splittable_resnet50-fp-beta0.16")
    assert spec.preprocessing.crop == (256, 320)
    assert spec.name == "faster_rcnn_splittable_resnet50-fp-beta0.16"
    name = "splittable_resnet50-fp-beta0.16"
    assert matrix_spec(name) == zoo.get_spec(name)


def test_a_row_has_a_cell_for_each_column() -> None:
    columns = (Column("torchscript", "fp32"), Column("torch", "fp32", aot=True))
    row = measure_row(Job(TINY[0], columns))
    assert (row.model, row.bottleneck, row.input) == (TINY[0], "factorized-prior", (160, 160))
    assert not row.trained
    exported, left_out = row.cells
    assert (exported.column, exported.state, exported.reason) == ("torchscript", "exported", "")
    assert exported.symbols == 3 * 24 * 39 * 39
    assert exported.symbols_differing <= 20
    assert exported.output_error <= 1e-4
    assert left_out == Cell("torch --aot", "not tried", NOT_TRIED)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (BundleError("tiny has none. Never."), "refused", "The model has none."),
        (CalibrationError("Too few."), "refused", "Too few."),
        (ParityError("2 of 3 differ; or 3."), "failed", "2 of 3 differ; or 3."),
        (BitstreamError("Not read."), "failed", "Not read."),
        (DependencyError("It is not installed."), "not tried", "It is not installed."),
        (KeyError("a|b"), "failed", "KeyError: 'a\\|b'"),
        (ValueError("x" * 999), "failed", f"ValueError: {'x' * 228}…"),
    ],
)
def test_what_is_not_exported_has_its_reason(
    tiny_model, monkeypatch, tmp_path, error, state, reason
) -> None:
    def refuse(*_, **__) -> None:
        raise error

    monkeypatch.setattr(targets_cell.export, "split", refuse)
    cell = measure_cell(tiny_model, Column("cpu", "fp32"), tmp_path)
    assert (cell.column, cell.state, cell.reason) == ("cpu fp32", state, reason)


def test_what_another_library_refuses_has_failed(tiny_model, monkeypatch, tmp_path) -> None:
    def refuse(_model, folder, **_) -> None:
        try:
            raise RuntimeError("no such operator")
        except RuntimeError as error:
            raise BundleError(f"It cannot write {folder}: {error}") from error

    monkeypatch.setattr(targets_cell.export, "split", refuse)
    cell = measure_cell(tiny_model, Column("cpu", "fp32"), tmp_path)
    assert (cell.state, cell.reason) == (
        "failed",
        "It cannot write BUNDLE: no such operator",
    )


def test_made_images_are_read_as_they_were_made(tmp_path) -> None:
    preprocessing = small_spec("semantic-segmentation", "fp").preprocessing
    write_images(preprocessing, tmp_path, 2)
    first, second = sorted(tmp_path.iterdir())
    assert first.read_bytes() != second.read_bytes()
    expected = seeded_image(preprocessing, 1 << 16)
    assert np.allclose(preprocessing.load(first), expected, atol=1e-6)


@pytest.mark.parametrize(("code", "said"), [(7, "exit code 7"), (-9, "signal SIGKILL")])
def test_a_model_whose_process_dies_has_failed_everywhere(code, said) -> None:
    row = targets_matrix._crashed(Job(TINY[0], tuple(list_columns())), code)
    assert row.model == TINY[0]
    assert {cell.state for cell in row.cells} == {"failed"}
    assert {cell.reason for cell in row.cells} == {
        f"The process that exported the model ended with {said}."
    }


CELLS = (
    Cell("cpu fp32", "exported", symbols=217_800, symbols_differing=3, output_error=2e-6),
    Cell(
        "cpu int8",
        "exported",
        symbols=9,
        flips=0.0123,
        largest_difference=5,
        rate_inflation=0.004,
        beyond=("much",),
    ),
    Cell("jetson fp32", "exported", symbols=9, built=(Built("device"), Built("edge"))),
    Cell(
        "jetson fp16",
        "exported",
        symbols=9,
        flips=0.0,
        rate_inflation=-1e-9,
        built=(Built("device", "It has no Foo."),),
    ),
    Cell("openvino bf16", "refused", "The model cannot."),
    Cell("torch", "failed", "Broken."),
    Cell("torch --aot", "not tried", NOT_TRIED),
)


def matrix(*rows: Row, rtx: str = "1.7.1") -> Matrix:
    return Matrix(tuple(cell.column for cell in CELLS), rows, True, rtx)


def row(name: str, cells=CELLS, **given) -> Row:
    return Row(name, "factorized-prior", "object-detection", (64, 96), False, cells, **given)


def test_a_cell_says_what_was_found() -> None:
    floats = Cell("cpu fp32", "exported", sent_tolerance=1e-4)
    text = render_targets(matrix(row("a"), row("b", (floats, *CELLS[1:]))), command=COMMAND)
    header, rule, first, second = table_of(text)
    assert header == ["model", "bottleneck", "task", "input", *(cell.column for cell in CELLS)]
    assert set(rule) == {"---"}
    assert first == [
        *("`a`", "factorized-prior", "detection", "64×96", "3 of 217,800"),
        *(
            "1.23% (≤ 5), bytes +0.4% †",
            "0 of 9, built",
            "0.00%, bytes +0.0%, device not built [1]",
        ),
        *("refused [2]", "**failed** [3]", "not tried [4]"),
    ]
    assert (second[0], second[4], second[5:]) == ("`b`", "floats within 1e-04", first[5:])
    notes = [line for line in text.splitlines() if line[:2] in ("1.", "2.", "3.", "4.", "5.")]
    assert notes == [
        "1. It has no Foo.",
        "2. The model cannot.",
        "3. Broken.",
        f"4. {NOT_TRIED}",
    ]


def test_the_head_says_what_was_and_was_not_done() -> None:
    found = matrix(row("a"))
    text = render_targets(found, command=COMMAND)
    assert counted(found) in text
    assert counted(found) == ("1 models × 7 columns: 4 exported, 1 refused, 1 failed, 1 not tried")
    assert "Over all cells in fp32, 3 of 217,809 differ" in text
    assert (
        "TensorRT-RTX 1.7.1 parsed and built 2 of 3 files ahead of time; none was run on a Jetson."
    ) in text
    assert "Weights are random; with untrained tables" in text
    assert f"Made by `{COMMAND}` with splitzoo " in text
    without = render_targets(matrix(row("a"), rtx=""), command=COMMAND)
    assert "TensorRT-RTX is not installed: no engine was built." in without


def test_the_command_writes_the_page(matrix_command, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(targets_matrix, "MODELS", TINY)
    path = tmp_path / "targets.md"
    words = ("--results", tmp_path / "r.json", "--target", "torchscript", "--json")
    out, err = matrix_command("targets", "-o", path, *words)
    found = json.loads(out)
    assert found["columns"] == ["torchscript"]
    (row,) = found["rows"]
    assert (row["model"], row["cells"][0]["state"]) == (TINY[0], "exported")
    text = path.read_text()
    assert [line[0] for line in table_of(text)[2:]] == [f"`{TINY[0]}`"]
    assert "1 models × 1 columns: 1 exported" in err
    assert str(tmp_path) not in text


def test_rows_measured_again_take_the_place_of_those_before(tmp_path) -> None:
    path = tmp_path / "rows.json"
    first, second = MODELS[:2]
    assert put_into(path, matrix(row(second), row("own"))) == matrix(row(second), row("own"))
    changed = replace(row(second), trained=True)
    whole = matrix(row(first), changed, row("own"))
    assert put_into(path, matrix(changed, row(first))) == whole
    # Rows of other columns do not stand in one table.
    other = replace(matrix(row(first)), columns=("cpu fp32",))
    assert put_into(path, other) == other
