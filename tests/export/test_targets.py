"""Targets: what each writes, what runs it, and what is refused."""

import importlib.util
import json
import os
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from board import ABSENT
from commands import refused

from splitrun.bundle import open_bundle
from splitrun.engines import ENGINES, open_session
from splitrun.engines.apart import variable_of
from splitrun.errors import BundleError, DependencyError, UnknownNameError
from splitrun.halves import Device
from splitrun.record import DeviceRecord
from splitzoo import export
from splitzoo.export import environments
from splitzoo.export.environments import Environment
from splitzoo.export.formats import tflite
from splitzoo.export.formats.base import Source
from splitzoo.export.formats.executorch_program import ExecuTorchFormat
from splitzoo.export.formats.ncnn_files import NcnnFormat
from splitzoo.export.formats.openvino_ir import OpenVinoFormat
from splitzoo.export.formats.torch_files import AotInductorFormat, ExportedFormat, TorchScriptFormat
from splitzoo.export.formats.torch_tensorrt import TorchTensorRTFormat
from splitzoo.export.targets import TARGETS

HERE = ("cpu", "openvino", "litert", "executorch", "ncnn", "torchscript", "torch")


def needs(target: str) -> None:
    for one in (TARGETS.get(target).device, TARGETS.get(target).edges[0]):
        for package in one.packages:
            pytest.importorskip(package, reason=f"the target {target} needs {package}")
    if missing := TARGETS.get(target).missing():
        pytest.skip(f"the target {target} needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def bundles(tiny_model, tiny_bundle, tmp_path_factory):
    """A bundle of the tiny model for each target, made once."""
    folder, made = tmp_path_factory.mktemp("targets"), {("cpu",): tiny_bundle}

    def bundle(target: str, **options) -> Path:
        needs(target)
        key = (target, *sorted(options.items()))
        if key not in made:
            made[key] = folder / f"{len(made)}"
            export.split(tiny_model, made[key], target=target, **options)
        return made[key]

    return bundle


def test_every_engine_that_a_target_names_is_one_of_the_runtime() -> None:
    named = {engine for target in TARGETS for engine in target.formats}
    assert named == set(ENGINES)


@pytest.mark.parametrize("target", HERE)
def test_symbols_of_every_target_are_pytorchs(bundles, tiny_model, target) -> None:
    bundle = open_bundle(bundles(target))
    record = DeviceRecord.load(bundle)
    (symbols,) = Device(bundle).wire_tensors(record.image)
    differ = symbols != record.wire["symbols"]
    assert not np.any(differ & ~record.ties["symbols"])
    assert (bundle.manifest.target, bundle.precision) == (target, "fp32")
    selftest = export.verify(bundle.folder, trust=True).selftest
    assert selftest.edge["classification"].output_relative_error <= 1e-4


# Those of the CPU: see test_export.py.
@pytest.mark.parametrize("target", ["openvino", "torchscript", "torch"])
def test_graphs_of_any_batch(bundles, target) -> None:
    bundle = open_bundle(bundles(target, dynamic_batch=True))
    image = DeviceRecord.load(bundle).image
    device = Device(bundle)
    (one,), (three,) = device.wire_tensors(image), device.wire_tensors(np.concatenate([image] * 3))
    assert three.shape == (3, *one.shape[1:])
    assert np.abs(three - one).max() <= 1


def test_the_pi_has_four_threads_on_the_device_alone(tiny_model, copied_graphs, tmp_path) -> None:
    export.split(tiny_model, tmp_path / "b", target="raspberrypi")
    bundle = open_bundle(tmp_path / "b")
    assert bundle.manifest.target == "raspberrypi"
    assert (bundle.device.graph.threads, bundle.tail().graph.threads) == (4, 0)


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


# ncnn


def test_ncnn_runs_both_halves_and_halves_the_weights_in_fp16(bundles) -> None:
    fp32 = open_bundle(bundles("ncnn", edge="ncnn"))
    fp16 = open_bundle(bundles("ncnn", precision="fp16"))
    assert (fp32.tail().graph.engine, fp16.tail().graph.engine) == ("ncnn", "onnxruntime")
    assert fp32.manifest.parity.output_max_relative_error < 1e-5
    sizes = [(one.folder / "device/encoder.bin").stat().st_size for one in (fp16, fp32)]
    assert 0.5 <= sizes[0] / sizes[1] < 0.6


class _Runs(torch.nn.Module):
    def forward(self, *tensors):
        return (torch.unique_consecutive(torch.relu(tensors[0])),)


def test_what_ncnn_has_no_layer_for_is_told(tmp_path) -> None:
    needs("ncnn")
    source = Source(_Runs(), [torch.zeros(1, 3, 8, 8)], ["image"], ["y"])
    with pytest.raises(BundleError, match="no layer for aten::unique_consecutive, "):
        NcnnFormat().write(source, tmp_path / "g.param")


def test_an_output_that_pnnx_drops_is_told(tmp_path) -> None:
    (tmp_path / "g.param").write_text("7767517\n2 2\nInput a 0 1 in0\nReLU b 1 1 in0 out0\n")
    source = Source(_Runs(), [torch.zeros(1, 3, 8, 8)], ["image"], ["y", "z"])
    with pytest.raises(BundleError, match="dropped out1 of g"):
        NcnnFormat()._check_whole(source, tmp_path / "g.param")


@pytest.mark.parametrize(
    ("text", "saying"),
    [
        ("7767517\n2 2\nInput a 0 1 in0\nMemoryData b 0 1 out0", "depends on its input"),
        ("7767518\n2 2\n", "begins with '7767518'"),
        ("7767517\n2 2\nInput a 0 x in0", "is not what pnnx writes"),
        ("", "is not what pnnx writes"),
    ],
)
def test_what_pnnx_did_not_write_is_refused(text, saying, tmp_path) -> None:
    path = tmp_path / "g.param"
    path.write_text(text)
    with pytest.raises(BundleError, match=saying):
        NcnnFormat().check(path)


def test_ncnn_takes_one_image(tiny_model, tmp_path) -> None:
    needs("ncnn")
    with pytest.raises(BundleError, match="ncnn takes one image at a time"):
        export.split(tiny_model, tmp_path / "b", target="ncnn", dynamic_batch=True)
    assert list(tmp_path.iterdir()) == []


# LiteRT, whose converter has an environment of its own


def test_litert_computes_in_int8_on_what_it_saw(bundles, photos) -> None:
    bundle = open_bundle(
        # The limit of one image is for models that were trained; this one is random and small.
        bundles(
            "litert",
            precision="int8",
            calibration=photos[0].parent,
            keep_tables=True,
            accept=True,
        )
    )
    report = bundle.manifest.precision_report
    assert report is not None
    assert 0 < report.flips < 0.2
    assert report.kept_fp32
    assert (bundle.manifest.device.graph.engine, bundle.tail().graph.engine) == (
        "litert",
        "onnxruntime",
    )


def test_an_environment_that_is_not_made_is_told_with_its_command(
    tiny_model, monkeypatch, tmp_path
) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setattr(environments, "user_cache_path", lambda name: tmp_path / name)
    with pytest.raises(DependencyError, match="an environment of its own") as caught:
        export.split(tiny_model, tmp_path / "b", target="litert")
    assert caught.value.next_step == "splitzoo export prepare litert"
    assert list(tmp_path.iterdir()) == []
    assert TARGETS.get("litert").missing() == ("litert (splitzoo export prepare litert)",)


@pytest.mark.slow
def test_what_cannot_be_installed_leaves_no_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(environments, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    apart = Environment("litert", ("splitzoo-has-no-such-package==1",), (3, 11))
    with pytest.raises(DependencyError, match=r"litert cannot be made: .*splitzoo-has-no-such"):
        apart.make()
    assert not apart.folder.exists()
    assert not apart.is_made


def test_no_python_is_new_enough(monkeypatch) -> None:
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    with pytest.raises(DependencyError, match=r"needs Python 3\.99 or later") as caught:
        Environment("litert", (), (3, 99))._steps()
    assert "pip install uv" in caught.value.next_step


def test_a_converter_that_fails_is_told_by_its_last_line(monkeypatch, tmp_path) -> None:
    apart = Environment("litert", (), (3, 11))
    monkeypatch.setattr(Environment, "is_made", True)
    monkeypatch.setattr(Environment, "_python", Path(sys.executable))
    (tmp_path / "convert.py").write_text("import sys; sys.exit('Conv is unknown')")
    monkeypatch.setattr(environments, "_CONVERTERS", tmp_path)
    with pytest.raises(BundleError, match=r"convert cannot convert graph: Conv is unknown"):
        apart.run("convert", "graph.onnx")


@pytest.mark.parametrize(
    ("inputs", "outputs", "saying"),
    [
        ({"image": (1, 8, 8, 3)}, ("y",), r"changed the input image of g from \(1, 3, 8, 8\)"),
        ({"image": (1, 3, 8, 8)}, ("z",), "dropped the output y of g"),
    ],
)
def test_what_onnx2tf_turns_or_drops_is_told(monkeypatch, inputs, outputs, saying) -> None:
    found = types.SimpleNamespace(
        inputs={name: {"shape": shape} for name, shape in inputs.items()},
        outputs=dict.fromkeys(outputs),
    )
    monkeypatch.setattr(tflite, "LiteRtSession", lambda path: found)
    source = Source(torch.nn.Identity(), [torch.zeros(1, 3, 8, 8)], ["image"], ["y"])
    with pytest.raises(BundleError, match=saying):
        tflite._check_tensors(source, Path("g.tflite"))


def test_what_is_not_litert_s_is_refused(tmp_path) -> None:
    (tmp_path / "g.tflite").write_bytes(b"nothing at all")
    with pytest.raises(BundleError, match="is not a file of LiteRT"):
        tflite.LiteRtFormat().check(tmp_path / "g.tflite")


# An engine in another Python


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


def test_what_is_not_executorchs_is_refused(tmp_path) -> None:
    (tmp_path / "g.pte").write_bytes(b"nothing at all")
    with pytest.raises(BundleError, match="is not a program of ExecuTorch"):
        ExecuTorchFormat().check(tmp_path / "g.pte")


# What nobody checks is not run for strangers


@pytest.mark.parametrize(
    ("target", "risk"),
    [
        ("torchscript", "can hold code"),
        ("torch", "can hold code"),
        ("ncnn", "can have sizes that lead the engine out of its memory"),
    ],
)
def test_graphs_that_nobody_checks_are_run_for_the_trusting_alone(
    bundles, photo, splitzoo, target, risk
) -> None:
    bundle = bundles(target)
    for command in (
        ("export", "verify", bundle),
        ("export", "run", bundle, photo),
        ("profile", "encoder", bundle, "--iterations", 1),
    ):
        refused(splitzoo(*command), f"device graph, for {target}, {risk}", "--trust")
    code, out, _ = splitzoo("export", "run", "--trust", bundle, photo, "--json")
    assert code == 0
    assert json.loads(out)[0]["engine"].startswith(f"{target.removesuffix('script')} ")


@pytest.mark.parametrize(
    ("format", "part"),
    [(TorchScriptFormat(), "code/"), (ExportedFormat(), "models/"), (AotInductorFormat(), "data/")],
)
def test_what_pytorch_did_not_write_is_refused_unread(format, part, tmp_path) -> None:
    path = tmp_path / f"graph{format.suffix}"
    path.write_bytes(b"nothing")
    with pytest.raises(BundleError, match="is not what PyTorch writes"):
        format.check(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("graph/other", "x")
    with pytest.raises(BundleError, match=f"{part}.* is missing"):
        format.check(path)


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


# Refused before any work


def test_a_missing_extra_is_told_with_its_command(monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name)
    )
    with pytest.raises(DependencyError, match="needs openvino, which") as caught:
        TARGETS.get("openvino").halves()
    assert caught.value.next_step == "pip install 'splitzoo[openvino]'"
    assert TARGETS.get("openvino").missing() == ("openvino",)


def test_torch_tensorrt_is_given_graph_and_examples_on_one_device(monkeypatch, tmp_path) -> None:
    """PyTorch's device without memory stands in for the GPU, and a stand-in compiles."""
    given = {}

    def compiled(program, *, arg_inputs, disable_tf32):
        given.update(program=program, inputs=arg_inputs, tf32=not disable_tf32)

    fake = types.SimpleNamespace(
        dynamo=types.SimpleNamespace(compile=compiled),
        save=lambda compiled, path, **_: Path(path).write_bytes(b"engines"),
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", fake)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for kind in (torch.Tensor, torch.nn.Module):
        monkeypatch.setattr(kind, "cuda", lambda self: self.to("meta"))
    monkeypatch.setattr(torch.nn.Module, "cpu", lambda self: self)

    class Convolution(torch.nn.Conv2d):
        def forward(self, *tensors):
            return (super().forward(*tensors),)

    source = Source(Convolution(3, 4, 1).eval(), [torch.zeros(1, 3, 8, 8)], ["image"], ["y"])
    TorchTensorRTFormat().write(source, tmp_path / "g.pt2")
    assert (tmp_path / "g.pt2").read_bytes() == b"engines"
    assert given["tf32"] is False
    assert [one.device.type for one in given["inputs"]] == ["meta"]
    assert {one.device.type for one in given["program"].state_dict.values()} == {"meta"}


def test_torch_tensorrt_without_it_is_told_with_its_command() -> None:
    if importlib.util.find_spec("torch_tensorrt"):
        pytest.skip("Torch-TensorRT is installed")
    with pytest.raises(DependencyError, match="needs torch_tensorrt, which") as caught:
        TARGETS.get("torch-tensorrt").halves()
    assert caught.value.next_step == "pip install 'splitzoo[torch-tensorrt]'"


@pytest.mark.parametrize(
    ("options", "kind", "matches"),
    [
        ({"target": "openvno"}, "target", ("openvino",)),
        ({"precision": "fp16"}, "precision of the target cpu", ("fp32", "int8")),
        ({"target": "cpu", "edge": "openvino"}, "edge of the target cpu", ("onnxruntime",)),
    ],
)
def test_what_a_target_has_not_is_answered_with_what_it_has(
    tiny_model, tmp_path, options, kind, matches
) -> None:
    with pytest.raises(UnknownNameError) as caught:
        export.split(tiny_model, tmp_path / "b", **options)
    assert (caught.value.kind, caught.value.matches) == (kind, matches)
    assert list(tmp_path.iterdir()) == []


def test_ahead_of_time_is_for_torch(tiny_model, tmp_path) -> None:
    with pytest.raises(BundleError, match="cpu cannot be compiled ahead of time"):
        export.split(tiny_model, tmp_path / "b", aot=True)


def test_the_targets_are_listed(splitzoo) -> None:
    code, out, _ = splitzoo("export", "targets", "--json")
    assert code == 0
    listed = {one["name"]: one for one in json.loads(out)}
    assert set(listed) == {
        *("cpu", "raspberrypi", "jetson", "openvino", "litert", "executorch", "ncnn"),
        *("torchscript", "torch", "torch-tensorrt"),
    }
    assert listed["jetson"]["precisions"] == ["fp32", "fp16", "int8"]
    assert listed["jetson"]["edges"] == ["onnxruntime", "tensorrt"]


@pytest.mark.slow
def test_a_library_compiled_ahead_of_time(bundles, photo) -> None:
    bundle = bundles("torch", aot=True)
    assert open_bundle(bundle).device.graph.engine == "aotinductor"
    assert export.verify(bundle, trust=True).selftest.device.symbols == 4 * 55 * 55
    assert export.run(bundle, [photo], trust=True)[0].stream_bytes > 0


@pytest.mark.slow
@pytest.mark.parametrize("target", ["openvino", "litert", "ncnn"])
def test_a_bundle_runs_with_its_requirements_alone(bundles, tmp_path, target) -> None:
    bundle = bundles(target)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "-q", "-r", bundle / "requirements.txt"]
    if subprocess.run(pip, capture_output=True).returncode:
        pytest.skip("the requirements cannot be installed here")
    done = subprocess.run(
        [python, "-m", "splitrun", "selftest"], cwd=bundle, capture_output=True, text=True
    )
    assert done.stdout.endswith("self-test passed\n"), done.stderr
