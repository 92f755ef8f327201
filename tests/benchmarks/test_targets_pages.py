"""The table of models and targets, and that of runtimes: what is measured, and how it is told."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_spec

from benchmarks.matrix import comparison, crossings, targets_cell, targets_matrix
from benchmarks.matrix.__main__ import app
from benchmarks.matrix.comparison import (
    Crossing,
    Difference,
    Runtime,
    RuntimeComparison,
    compare_runtimes,
)
from benchmarks.matrix.crossings import device_setting, edge_setting
from benchmarks.matrix.page import write_images
from benchmarks.matrix.processes import run_apart
from benchmarks.matrix.runtimes_table import conclude, render_runtimes
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
from splitrun.coding import ans
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

TINY = ("splittable_test_resnet-fp",)
COMMAND = "python -m benchmarks.matrix targets -o targets.md"


def table_of(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def matrix_command(capsys):
    """Run a command of ``benchmarks.matrix`` in this process: standard output and error."""

    def run(*words: object) -> tuple[str, str]:
        app([str(word) for word in words], standalone_mode=False)
        return capsys.readouterr()

    return run


# What is exported to what


def test_the_columns_are_targets_and_their_precisions() -> None:
    assert [one.title for one in list_columns()] == [
        *("cpu fp32", "cpu int8", "jetson fp32", "jetson fp16", "jetson int8"),
        *("openvino fp32", "openvino bf16", "openvino int8"),
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


# Processes


def test_every_item_has_its_own_process() -> None:
    results = dict(run_apart(abs, [-3, 4, -5], jobs=2, crashed=lambda *_: None))
    assert results == {0: 3, 1: 4, 2: 5}


@pytest.mark.parametrize(
    ("work", "item", "code"), [(os._exit, 7, 7), (signal.raise_signal, signal.SIGKILL, -9)]
)
def test_a_process_that_dies_is_one_result(work, item, code) -> None:
    given = run_apart(work, [item], jobs=1, crashed=lambda item, code: (item, code))
    assert list(given) == [(0, (item, code))]


@pytest.mark.parametrize(("code", "said"), [(7, "exit code 7"), (-9, "signal SIGKILL")])
def test_a_model_whose_process_dies_has_failed_everywhere(code, said) -> None:
    row = targets_matrix._crashed(Job(TINY[0], tuple(list_columns())), code)
    assert row.model == TINY[0]
    assert {cell.state for cell in row.cells} == {"failed"}
    assert {cell.reason for cell in row.cells} == {
        f"The process that exported the model ended with {said}."
    }


# The page


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


# Runtimes


@pytest.fixture
def few(monkeypatch):
    """TorchScript alone beside torch, which takes least, and all in this process."""
    monkeypatch.setattr(comparison, "_EXPORTS", {("torchscript", "fp32"): "TorchScript"})

    def run_here(work, items, **_):
        backend, threads = ans.BACKEND, torch.get_num_threads()
        yield from enumerate(map(work, items))
        ans.BACKEND = backend
        torch.set_num_threads(threads)

    monkeypatch.setattr(comparison, "run_apart", run_here)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(small_spec("image-classification", "mshp").preprocessing, folder, 2)
    return sorted(folder.iterdir())


def test_groups_go_through_all_settings_and_never_are_plain_on_both_sides() -> None:
    """252 groups, 2,016 images: every batch and number of threads on one side with every other."""
    pairs = [(device_setting(group), edge_setting(group)) for group in range(252)]
    assert len({(one.threads, one.batch, two.threads, two.batch) for one, two in pairs}) == 36
    coders = Counter((one.coder, two.coder) for one, two in pairs)
    assert coders == {
        ("plain", "constriction"): 36,
        ("constriction", "plain"): 36,
        ("constriction", "constriction"): 180,
    }


def test_runtimes_are_held_against_each_other(few, images, tmp_path) -> None:
    model = zoo.build(small_spec("image-classification", "mshp"))
    found = compare_runtimes(model, images, tmp_path, calibration=tmp_path)
    assert [one.name for one in found.runtimes] == ["torch, eager", "TorchScript"]
    (z,) = found.symbols
    assert (z.tensor, z.count, z.differing <= 1) == ("hyper_symbols", 2 * 4 * 4 * 4, True)
    assert len(found.crossings) == 4
    assert not any(one.lost for one in found.crossings)
    # Streams of both devices, unless they are the same; the first group is run one by one.
    assert 2 <= found.read <= 4
    assert found.run == 1
    assert "any edge half may be mixed: all 4 pairs read all 2 images" in conclude(found)
    assert not found.trained


def test_a_hyper_decoder_in_floats_that_differs_loses_images(
    few, images, tmp_path, monkeypatch
) -> None:
    model = zoo.build(small_spec("image-classification", "mshp-float"))
    other = zoo.build(model.spec, seed=1)
    monkeypatch.setattr(
        crossings._Exported,
        "receive",
        lambda self, stream: self.codec.decompress(stream, other.hyper_decode),
    )
    found = compare_runtimes(model, images, tmp_path, calibration=tmp_path)
    lost = {(one.device, one.edge): one.lost for one in found.crossings}
    torch_, script = "torch, eager", "TorchScript"
    assert lost == {
        (torch_, torch_): 0,
        (torch_, script): 2,
        (script, torch_): 0,
        (script, script): 2,
    }
    said = conclude(found)
    assert "**do not mix**: of 4 pairs, 2 lose images" in said
    assert "torch, eager on the device with TorchScript on the edge 2 of 2" in said


def test_one_latent_that_is_another_is_lost(few, images, tmp_path, monkeypatch) -> None:
    """One value of one image in its last bit: the digest of what was sent sees it."""
    model = zoo.build(small_spec("image-classification", "mshp"))
    receive, seen = crossings._Exported.receive, []

    def changed(self, stream):
        (latent,) = receive(self, stream)
        seen.append(stream)
        if len(seen) == 1:
            latent = latent.copy()
            latent.flat[0] = np.nextafter(latent.flat[0], np.float32(np.inf))
        return (latent,)

    monkeypatch.setattr(crossings._Exported, "receive", changed)
    found = compare_runtimes(model, images, tmp_path, calibration=tmp_path)
    assert {one.lost for one in found.crossings if one.edge == "TorchScript"} == {1}
    assert not any(one.lost for one in found.crossings if one.edge == "torch, eager")


def test_edge_halves_run_below_fp32_too(images, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(comparison, "_EXPORTS", {("cpu", "int8"): "ONNX Runtime"})
    folder = tmp_path / "calibration"
    folder.mkdir()
    write_images(small_spec("image-classification", "mshp").preprocessing, folder, 8)
    model = zoo.build(small_spec("image-classification", "mshp"))
    found = compare_runtimes(model, images, tmp_path, calibration=folder)
    assert not found.not_compared
    assert {one.edge for one in found.crossings} == {"torch, eager", "ONNX Runtime int8"}
    assert not any(one.lost for one in found.crossings)
    assert b"QuantizeLinear" in (tmp_path / "edge-cpu.onnx").read_bytes()


def test_what_cannot_be_compared_is_said(monkeypatch, images, tmp_path) -> None:
    monkeypatch.setattr(comparison, "_EXPORTS", {("openvino", "bf16"): "OpenVINO"})
    model = zoo.build(small_spec("image-classification", "mshp-float"))
    found = compare_runtimes(model, images, tmp_path, calibration=tmp_path)
    assert list(found.not_compared) == ["OpenVINO bf16"]
    text = render_runtimes([found], synthetic=True, command=COMMAND)
    assert "- `small-mshp-float`: no other runtime could be compared." in text
    assert "OpenVINO bf16 is not compared. The hyperprior of The model is in floats" in text


def crossed(crossings: list[Crossing]) -> RuntimeComparison:
    names = ("A", "B")
    return RuntimeComparison(
        model="m",
        bottleneck="mean-scale-hyperprior",
        trained=True,
        side=(64, 64),
        images=90,
        runtimes=[
            *(Runtime(one, "fp32", f"{one} 1") for one in names),
            Runtime("B", "int8", "B 1"),
        ],
        symbols=[
            Difference("A", "B", "symbols", 1000, 2, 1, 1),
            Difference("A", "B int8", "symbols", 1000, 20, 3, 9),
            Difference("B", "B int8", "symbols", 1000, 21, 3, 9),
        ],
        crossings=crossings,
        read=200,
        run=30,
        not_compared={},
    )


SAME = [Crossing(device, edge, 0) for device in ("A", "B", "B int8") for edge in ("A", "B")]


@pytest.mark.parametrize(
    ("crossings", "said"),
    [
        (
            SAME,
            "`m`: any device half and any edge half may be mixed: all 6 pairs read all 90 images "
            "as they were sent; between fp32 runtimes 2 of 1,000 symbols differ, by up to 1.",
        ),
        (
            [*SAME[:1], Crossing("A", "B", 4), *SAME[2:]],
            "`m`: **do not mix**: of 6 pairs, 1 lose images, A on the device with B on the edge 4 "
            "of 90; between fp32 runtimes 2 of 1,000 symbols differ, by up to 1.",
        ),
    ],
)
def test_the_conclusion_follows_from_the_figures(crossings, said) -> None:
    assert conclude(crossed(crossings)) == said


def test_the_tables_hold_every_pair() -> None:
    text = render_runtimes([crossed(SAME)], synthetic=False, command=COMMAND)
    assert table_of(text) == [
        ["", "B", "B int8"],
        ["---", "---:", "---:"],
        ["A", "2", "20 (≤ 3)"],
        ["B", "", "21 (≤ 3)"],
        ["device ↓ edge →", "A", "B"],
        ["---", "---:", "---:"],
        ["A", "0", "0"],
        ["B", "0", "0"],
        ["B int8", "0", "0"],
    ]
    assert "mean-scale-hyperprior, trained weights, 90 images of 64×64." in text
    assert "Each edge half read 200 different streams, and ran its graph on 30 latents." in text
    assert ", A 1, B 1, on " in text


def test_the_command_writes_the_runtimes(few, matrix_command, tmp_path) -> None:
    path = tmp_path / "runtimes.md"
    words = ("--results", tmp_path / "r.json", "--most", 8, "--side", 0, "--json", TINY[0])
    out, _ = matrix_command("runtimes", "-o", path, *words)
    (found,) = json.loads(out)
    assert (found["model"], found["images"]) == (TINY[0], 8)
    assert [pair["lost"] for pair in found["crossings"]] == [0] * 4
    assert found["symbols"][0]["count"] == 8 * 24 * 39 * 39
    assert f"`{TINY[0]}`: any device half and any edge half may be mixed" in path.read_text()


def test_a_wrong_name_is_one_message(tmp_path) -> None:
    words = ["-m", "benchmarks.matrix", "runtimes", "nope", "-o", str(tmp_path / "page.md")]
    done = subprocess.run(
        [sys.executable, *words], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "error: No model is named 'nope'."
    assert "Traceback" not in done.stderr
