"""The target openvino: its two files, what it tells others, and what it needs."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from board import ABSENT

from splitrun.bundle import open_bundle
from splitrun.engines import open_session
from splitrun.errors import BundleError
from splitrun.halves import Device
from splitzoo.export.formats.base import Source
from splitzoo.export.formats.openvino_ir import OpenVinoFormat


def test_openvino_writes_its_weights_into_a_second_file_that_is_guarded(bundles, tmp_path) -> None:
    folder = bundles("openvino")
    info = open_bundle(folder).device.graph
    assert (info.file, info.weights) == ("device/encoder.xml", "device/encoder.bin")
    assert "rt_info" not in (folder / info.file).read_text()
    weights = folder / info.weights
    before = weights.read_bytes()
    try:
        weights.write_bytes(bytes(len(before)))
        with pytest.raises(BundleError, match=r"device/encoder\.bin was changed"):
            Device(open_bundle(folder))
    finally:
        weights.write_bytes(before)


def test_openvino_with_the_edge_in_onnx_runtime(bundles) -> None:
    bundle = open_bundle(bundles("openvino", edge="onnxruntime"))
    assert (bundle.device.graph.engine, bundle.tail().graph.engine) == ("openvino", "onnxruntime")
    pairs = json.loads((bundle.folder / "manifest.json").read_text())["parity"]["pairs"]
    assert [one["device"].partition(" ")[0] for one in pairs] == ["torch", "openvino"]
    assert all(one["edge"].startswith("onnxruntime ") for one in pairs)


def test_importing_openvino_tells_nobody(bundles, tmp_path) -> None:
    pytest.importorskip("openvino_telemetry", reason="what tells is not installed")
    bundle = bundles("openvino")
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("CI", None)
    words = [sys.executable, "-m", "splitrun", "selftest"]
    subprocess.run(words, cwd=bundle, env=environment, check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == []


def test_signals_arrive_after_openvino_has_come_and_gone(bundles) -> None:
    """A core of OpenVINO's that goes takes the stack that signals are handled on with it."""
    code = (
        "import faulthandler, os, signal, sys\n"
        "from pathlib import Path\n"
        "from splitrun.engines import open_session\n"
        "faulthandler.enable()\n"
        "first, second = (open_session('openvino', Path(sys.argv[1])) for _ in range(2))\n"
        "del first\n"
        "del second\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('arrived'))\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    path = bundles("openvino") / "device" / "encoder.xml"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "arrived\n")


def test_a_bundle_for_openvino_needs_neither_torch_nor_onnx_runtime(bundles) -> None:
    blocked = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {(*ABSENT, "onnxruntime")!r}:
            raise ModuleNotFoundError("absent: " + name, name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["splitrun", "selftest"]
runpy.run_module("splitrun", run_name="__main__")
"""
    words = [sys.executable, "-c", blocked]
    done = subprocess.run(words, cwd=bundles("openvino"), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("self-test passed\n")


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("<net>", "is not valid XML"),
        ("<net><layers/></net>", "is not a graph with an input and an output"),
        ('<!DOCTYPE net [<!ENTITY a "aa">]><net>&a;</net>', "is not what OpenVINO writes"),
        ("\ufeff<net/>", "is not what OpenVINO writes"),
        ("", "is not valid XML"),
    ],
)
def test_what_openvino_did_not_write_is_refused(text, saying, tmp_path) -> None:
    (tmp_path / "graph.xml").write_text(text)
    with pytest.raises(BundleError, match=saying):
        OpenVinoFormat().check(tmp_path / "graph.xml")


def test_openvino_runs_a_batch_norm_that_follows_no_convolution(tmp_path) -> None:
    pytest.importorskip("openvino")

    class Norm(torch.nn.BatchNorm2d):
        def forward(self, *tensors):
            return (super().forward(tensors[0].clamp(min=0)),)

    norm = Norm(3).eval()
    torch.nn.init.uniform_(norm.running_mean)
    given = torch.rand(1, 3, 4, 4)
    source = Source(norm, [given], ["image"], ["y"])
    OpenVinoFormat().write(source, tmp_path / "g.xml")  # and checks the operators
    (found,) = open_session("openvino", tmp_path / "g.xml").run({"image": given.numpy()}, ["y"])
    expected = norm(given)[0].detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
