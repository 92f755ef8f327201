"""``build_engine.py`` and the engines' session, step by step, with stand-ins for TensorRT and CUDA.

See ``fake_tensorrt.py`` for what that shows. Not executed on a Jetson.
"""

import json
import shutil
import sys
import types

import numpy as np
import pytest
from commands import refused
from fake_tensorrt import FakeRuntime, FakeTensorRT

from splitrun.bundle import open_bundle
from splitrun.cli import main as splitrun
from splitrun.engines import open_session
from splitrun.errors import BundleError, DependencyError
from splitrun.halves import Device
from splitrun.record import DeviceRecord
from splitrun.tensorrt import board
from splitrun.tensorrt.cuda import open_cuda
from splitrun.tensorrt.library import import_tensorrt
from splitrun.tensorrt.session import TensorRTSession

GRAPHS = ["device/encoder.onnx", "edge/decoder.onnx"]


@pytest.fixture
def jetson(jetson_bundle, tmp_path):
    return shutil.copytree(jetson_bundle, tmp_path / "jetson")


@pytest.fixture
def install(monkeypatch):
    """Put the stand-ins where TensorRT and cuda-python are imported from."""

    def put(failing: str = "", shift: int = 0) -> FakeTensorRT:
        cuda = FakeRuntime(failing)
        trt = FakeTensorRT(cuda, failing, shift)
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        return trt

    monkeypatch.setattr(board, "_WARMUP", 1)
    monkeypatch.setattr(board, "_ITERATIONS", 3)
    return put


@pytest.fixture
def build(capsys, jetson):
    """Run ``build_engine.py`` in this process: exit code, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        code = board.main(jetson, list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


# What build_engine.py does


def test_engines_are_built_compared_timed_and_written_down(install, build, jetson) -> None:
    trt = install()
    code, out, _ = build("--json")
    assert code == 0
    assert trt.built_with_tf32 == [False, False]
    document = json.loads(out)
    assert document == json.loads((jetson / "engines" / "engine.json").read_text())
    assert list(document["graphs"]) == GRAPHS
    device, edge = document["graphs"].values()
    assert (device["symbols"], device["symbols_differing"]) == (4 * 55 * 55, 0)
    assert edge["output_relative_error"] <= 1e-4
    for entry in (device, edge):
        key = entry["key"]
        assert (key["tensorrt"], key["capability"], key["gpu"]) == ("10.3.0", "8.7", "Orin, 16 SMs")
        times = [entry["latency"][f"{part}_ms"] for part in ("p50", "p90", "p99")]
        assert times == sorted(times)
        assert times[0] > 0
        assert entry["messages"] == []
        assert entry["date"].endswith("Z")
    open_bundle(jetson).check_files()


def test_what_is_built_is_not_built_again_unless_asked(install, build, jetson) -> None:
    trt = install()
    assert build()[0] == 0
    assert trt.plugins == [""]
    assert trt.caches == [b"", b"timings"]
    code, out, err = build()
    assert (code, err.count("built already"), len(trt.caches)) == (0, 2, 2)
    assert "0 of 12,100 symbols differ" in out
    assert build("--force")[0] == 0
    assert trt.caches[2:] == [b"timings", b"timings"]
    # A damaged record of engines is written anew.
    (jetson / "engines" / "engine.json").write_text("{")
    assert build()[0] == 0
    assert len(trt.caches) == 6


def test_engines_are_run_by_the_bundles_own_commands_and_else_for_the_trusting_alone(
    install, build, jetson, capsys, splitzoo
) -> None:
    install()
    build()
    assert Device(open_bundle(jetson)).graph.engine == "tensorrt 10.3.0"
    assert splitrun(["--bundle", str(jetson), "selftest"]) == 1
    assert "can hold code" in capsys.readouterr().err
    assert splitrun(["--bundle", str(jetson), "selftest", "--trust"]) == 0
    assert capsys.readouterr().out.endswith("self-test passed\n")
    result = splitzoo("export", "verify", jetson)
    refused(result, "device graph, for tensorrt, can hold code", "--trust")
    code, out, _ = splitzoo("export", "verify", jetson, "--trust", "--json")
    assert code == 0
    assert json.loads(out)["selftest"]["device"]["engine"] == "tensorrt 10.3.0"


def test_other_symbols_end_in_exit_code_3_and_leave_no_engine_to_run(
    install, build, jetson
) -> None:
    install(shift=1)
    found = build()
    assert found[:2] == (3, "")
    assert "of 12100 symbols differ from PyTorch's, by up to 1" in found[2]
    assert "Do not ship it" in found[2]
    assert not (jetson / "engines" / "engine.json").exists()


def test_ctrl_c_while_engines_are_timed_again_leaves_those_that_were_seen_to_be_right(
    install, build, jetson, monkeypatch
) -> None:
    install()
    build()
    path = jetson / "engines" / "engine.json"
    document = json.loads(path.read_text())

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(board, "_measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert json.loads(path.read_text())["graphs"] == document["graphs"]
    # Built anew, none was compared yet.
    with pytest.raises(KeyboardInterrupt):
        build("--force")
    assert not path.exists()


def test_where_tensorrt_and_a_gpu_are_at_hand_an_export_builds_and_checks_at_once(
    install, splitzoo, tiny_folder, tmp_path
) -> None:
    words = ("export", "split", tiny_folder, "--random-weights", "--target", "jetson", "-o")
    install(shift=1)
    result = splitzoo(*words, tmp_path / "b")
    refused(result, "symbols differ from PyTorch's, by up to 1", code=3)
    assert list(tmp_path.iterdir()) == []
    install()
    code, _, err = splitzoo(*words, tmp_path / "b")
    assert code == 0
    assert "were built and compared: engines/engine.json" in err
    document = json.loads((tmp_path / "b" / "engines" / "engine.json").read_text())
    assert document["graphs"]["device/encoder.onnx"]["symbols_differing"] == 0
    open_bundle(tmp_path / "b").check_files()


@pytest.mark.parametrize(
    ("failing", "saying"),
    [
        ("Builder", "TensorRT does not start"),
        ("parse_from_file", "cannot parse encoder.onnx: Odd node_7: no importer"),
        ("add_optimization_profile", "words about add_optimization_profile"),
        ("build_serialized_network", "encoder.onnx: words about build_serialized_network"),
        ("Runtime", "TensorRT does not start"),
        ("deserialize_cuda_engine", "cannot load encoder.plan: words about deserialize"),
        ("create_execution_context", "cannot prepare encoder.plan to run: words about create"),
        ("execute_async_v3", "TensorRT failed: words about execute_async_v3"),
        ("cudaSetDevice", "CUDA failed in cudaSetDevice: cudaErrorNoDevice"),
        ("cudaMalloc", "CUDA failed in cudaMalloc"),
        ("cudaStreamSynchronize", "CUDA failed in cudaStreamSynchronize"),
    ],
)
def test_what_fails_is_told_and_leaves_no_engine_to_run(
    install, build, jetson, failing, saying
) -> None:
    install(failing)
    code, out, err = build()
    refused((code, out, err[err.index("error: ") :]), saying)
    assert "chatter" not in err
    assert not (jetson / "engines" / "engine.json").exists()


def test_a_graph_that_was_changed_is_not_built(install, build, jetson) -> None:
    trt = install()
    path = jetson / "device" / "encoder.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    refused(build(), "device/encoder.onnx was changed")
    assert trt.caches == []


def test_a_workspace_that_is_none_is_wrong_usage(build, capsys) -> None:
    for word in ("0", "-5", "much", str(1 << 60)):
        with pytest.raises(SystemExit) as caught:
            build(f"--workspace-mib={word}")
        assert caught.value.code == 2
        assert "is no number from 1 to" in capsys.readouterr().err


def test_where_engines_cannot_be_written_the_place_is_told(install, build, jetson) -> None:
    install()
    (jetson / "engines").write_text("")
    refused(build(), "The system refused", str(jetson / "engines"))


# The session


def test_a_session_takes_batches_of_any_size_in_turn_and_allocates_once(
    install, build, jetson
) -> None:
    install()
    build()
    session = TensorRTSession(jetson / "device" / "encoder.onnx")
    bundle = open_bundle(jetson)
    image = DeviceRecord.load(bundle).image
    memory = sys.modules["cuda.bindings.runtime"].memory
    before = len(memory)
    for _ in range(3):
        session.run({"image": image}, ["symbols"])
    assert len(memory) == before + 2
    reference = open_session("onnxruntime", bundle.path(bundle.device.graph.file))
    for batch in (1, 3, 2):
        images = np.concatenate([image + np.float32(number) for number in range(batch)])
        (found,), (expected,) = (
            engine.run({"image": images}, ["symbols"]) for engine in (session, reference)
        )
        np.testing.assert_array_equal(found, expected, strict=True)
    for name, value, output, saying in (
        ("image", np.zeros((1, 3, 224, 224)), "symbols", "image as float64"),
        ("image", np.zeros((1, 3, 9, 9), np.float32), "symbols", r"float32 \(1, 3, 9, 9\)"),
        ("photo", image, "symbols", "not take photo"),
        ("image", image, "other", "gives no 'other'"),
    ):
        with pytest.raises(BundleError, match=saying):
            session.run({name: value}, [output])
    path = jetson / "engines" / "engine.json"
    path.write_text(path.read_text().replace("Orin, 16 SMs", "Orin, 8 SMs"))
    with pytest.raises(BundleError, match=r"gpu Orin, 8 SMs \(here Orin, 16 SMs\)") as caught:
        TensorRTSession(jetson / "device" / "encoder.onnx")
    assert caught.value.next_step == "Build it here: python build_engine.py"


# What is missing, or too old


@pytest.mark.parametrize("error", [OSError, RuntimeError, ImportError])
def test_a_tensorrt_that_does_not_load_is_told(monkeypatch, error) -> None:
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "tensorrt":
                raise error("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(DependencyError, match=r"cannot be imported: libnvinfer\.so\.10") as caught:
        import_tensorrt()
    assert "JetPack" in caught.value.next_step


def test_a_tensorrt_before_typed_networks_is_refused(monkeypatch) -> None:
    old = types.SimpleNamespace(__version__="8.6.2", NetworkDefinitionCreationFlag=object())
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(DependencyError, match=r"TensorRT 8\.6\.2 does not build typed graphs"):
        import_tensorrt()


def without_cuda_python(monkeypatch, torch: object) -> None:
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "torch", torch)


def failing_torch(error: Exception) -> types.SimpleNamespace:
    def current_stream():
        raise error

    return types.SimpleNamespace(cuda=types.SimpleNamespace(current_stream=current_stream))


@pytest.mark.parametrize(
    "torch", [None, failing_torch(AssertionError("Torch not compiled with CUDA enabled"))]
)
def test_without_cuda_python_and_torch_for_cuda_both_are_named(monkeypatch, torch) -> None:
    without_cuda_python(monkeypatch, torch)
    with pytest.raises(DependencyError, match="cuda-python, or torch made for CUDA") as caught:
        open_cuda()
    assert 'pip install "cuda-python<13" for JetPack 6' in caught.value.next_step


def test_without_a_driver_torchs_words_are_told(monkeypatch) -> None:
    without_cuda_python(monkeypatch, failing_torch(RuntimeError("Found no NVIDIA driver")))
    with pytest.raises(BundleError, match="CUDA does not start: Found no NVIDIA driver"):
        open_cuda()
