"""The table of runtimes: which halves may be mixed, how that is measured, and how it is told."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from matrix_pages import TINY, table_of
from small_models import small_spec

from benchmarks.matrix import comparison, crossings
from benchmarks.matrix.comparison import (
    Crossing,
    Difference,
    Runtime,
    RuntimeComparison,
    compare_runtimes,
)
from benchmarks.matrix.crossings import device_setting, edge_setting
from benchmarks.matrix.page import write_images
from benchmarks.matrix.runtimes_table import conclude, render_runtimes
from splitrun.coding import ans
from splitzoo import zoo

COMMAND = "python -m benchmarks.matrix runtimes -o runtimes.md"


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
            Runtime("B", "int8", ""),  # its edge half ended early
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
