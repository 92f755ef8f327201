"""Targets: what each writes, what runs it, and what is refused."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from commands import refused

from splitrun.bundle import open_bundle
from splitrun.engines import ENGINES
from splitrun.errors import BundleError, DependencyError, UnknownNameError
from splitrun.halves import Device
from splitrun.record import DeviceRecord
from splitzoo import export
from splitzoo.export.targets import TARGETS

HERE = ("cpu", "openvino", "litert", "executorch", "ncnn", "torchscript", "torch")


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


def test_a_missing_extra_is_told_with_its_command(monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name)
    )
    with pytest.raises(DependencyError, match="needs openvino, which") as caught:
        TARGETS.get("openvino").halves()
    assert caught.value.next_step == "pip install 'splitzoo[openvino]'"
    assert TARGETS.get("openvino").missing() == ("openvino",)


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
    assert listed["jetson"]["edges"] == {
        "onnxruntime": ["fp32", "int8", "fp16-weights", "int8-weights"],
        "tensorrt": ["fp32", "fp16", "int8"],
    }


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
