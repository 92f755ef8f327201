"""Engines: in another Python, with a damaged file, and not installed."""

import sys

import numpy as np
import pytest

from splitrun.bundle import open_bundle
from splitrun.engines import open_session
from splitrun.engines.apart import variable_of
from splitrun.errors import BundleError, DependencyError
from splitrun.halves import Device
from splitrun.record import DeviceRecord


def test_an_engine_apart_gives_what_it_gives_here(tiny_bundle, monkeypatch) -> None:
    bundle = open_bundle(tiny_bundle)
    image = DeviceRecord.load(bundle).image
    here = Device(bundle)
    monkeypatch.setenv("SPLITRUN_PYTHON_ONNXRUNTIME", sys.executable)
    apart = Device(bundle)
    assert apart.graph.engine == here.graph.engine
    assert np.array_equal(apart.wire_tensors(image)[0], here.wire_tensors(image)[0])
    session = apart.graph._session
    with pytest.raises(BundleError, match="ONNX Runtime failed"):
        session.run({"image": np.zeros((2, 2), np.float32)}, ["symbols"])
    session._process.kill()
    with pytest.raises(BundleError, match="ran onnxruntime ended, with code -9"):
        session.run({"image": image}, ["symbols"])


@pytest.mark.parametrize(
    ("python", "saying"),
    [(sys.executable, "ONNX Runtime cannot load"), ("/no/python", "cannot run in /no/python")],
)
def test_an_engine_apart_that_cannot_load_says_so(python, saying, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SPLITRUN_PYTHON_ONNXRUNTIME", python)
    (tmp_path / "g.onnx").write_bytes(b"nothing")
    with pytest.raises(BundleError, match=saying):
        open_session("onnxruntime", tmp_path / "g.onnx")


@pytest.mark.parametrize(
    "engine", ["onnxruntime", "openvino", "litert", "ncnn", "torchscript", "torch"]
)
def test_an_engine_refuses_a_damaged_file(engine, tmp_path) -> None:
    packages = {"torchscript": "torch", "litert": "ai_edge_litert"}
    pytest.importorskip(packages.get(engine, engine))
    path = tmp_path / "graph"
    path.write_bytes(b"nothing")
    with pytest.raises(BundleError, match=f"cannot load {path}"):
        open_session(engine, path)


@pytest.mark.parametrize(
    ("engine", "name", "install"),
    [
        ("onnxruntime", "ONNX Runtime", "pip install onnxruntime"),
        ("openvino", "OpenVINO", "pip install openvino"),
        ("litert", "LiteRT", "pip install ai-edge-litert"),
        ("executorch", "ExecuTorch", "pip install executorch"),
        ("ncnn", "ncnn", "pip install ncnn"),
        ("torch", "PyTorch", "pip install torch"),
    ],
)
def test_a_missing_engine_is_told_with_its_command(
    engine, name, install, monkeypatch, tmp_path
) -> None:
    package = {"litert": "ai_edge_litert"}.get(engine, engine)

    class Absent:
        def find_spec(self, asked, path=None, target=None):
            if asked == package:
                raise ModuleNotFoundError(name=package)

    # Set by an export in this process, where an environment has the engine.
    monkeypatch.delenv(variable_of("executorch"), raising=False)
    for module in [one for one in sys.modules if one.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(DependencyError, match=f"{name} is not installed") as caught:
        open_session(engine, tmp_path / "graph")
    assert caught.value.next_step == install
