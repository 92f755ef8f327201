"""Model repositories for Triton: read by its own schema, and run by the server where it is."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from commands import finish
from google.protobuf import text_format
from triton_server import PYTHON, triton_server

from splitrun import Device, Edge, open_bundle
from splitrun.errors import BundleError, UsageError
from splitzoo import export
from splitzoo.export import TritonOptions, export_triton


@pytest.fixture(scope="module")
def schema():
    """Triton's schema of settings, from its client; imported alone it needs no gRPC."""
    client = pytest.importorskip("tritonclient", reason="needs tritonclient[http]")
    path = Path(client.__path__[0], "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_configs(schema, repository):
    return {
        path.parent.name: text_format.Parse(path.read_text(), schema.ModelConfig())
        for path in repository.glob("*/config.pbtxt")
    }


def tensors(schema, many):
    return {one.name: (schema.DataType.Name(one.data_type), list(one.dims)) for one in many}


def test_an_ensemble_decodes_runs_the_graph_and_predicts(batched_bundle, schema, tmp_path) -> None:
    options = TritonOptions(instances=2, decoders=3, max_batch=16, max_delay_ms=2.5, max_queue=99)
    found = export_triton([(None, batched_bundle)], tmp_path / "models", options)
    assert [(model.name, model.backend, model.asked) for model in found] == [
        ("tiny", "ensemble", True),
        ("tiny-decode", "python", False),
        ("tiny-graph", "onnxruntime", False),
        ("tiny-predict", "python", False),
    ]
    configs = read_configs(schema, tmp_path / "models")
    assert {config.max_batch_size for config in configs.values()} == {16}
    logits, said = ("TYPE_FP32", [10]), ("TYPE_STRING", [1])
    assert tensors(schema, configs["tiny"].input) == {"STREAM": said}
    assert tensors(schema, configs["tiny"].output) == {"logits": logits, "PREDICTION": said}
    steps = configs["tiny"].ensemble_scheduling.step
    assert [dict(step.input_map) for step in steps] == [
        {"STREAM": "STREAM"},
        {"symbols": "decoded.symbols"},
        {"logits": "logits"},
    ]
    graph = configs["tiny-graph"]
    info = open_bundle(batched_bundle).tail().graph.inputs[0]
    assert tensors(schema, graph.input) == {"symbols": ("TYPE_INT32", list(info.shape[1:]))}
    assert graph.dynamic_batching.max_queue_delay_microseconds == 2500
    assert graph.dynamic_batching.default_queue_policy.max_queue_size == 99
    assert graph.parameters["intra_op_thread_count"].string_value == "1"
    counts = {name: [group.count for group in one.instance_group] for name, one in configs.items()}
    assert counts == {"tiny": [], "tiny-decode": [3], "tiny-graph": [2], "tiny-predict": [3]}
    model = tmp_path / "models/tiny-graph/1/model.onnx"
    graph = open_bundle(batched_bundle).tail().graph
    assert model.read_bytes() == (batched_bundle / graph.file).read_bytes()
    for name in ("tiny-decode", "tiny-graph", "tiny-predict"):
        (sample,) = configs[name].model_warmup
        for key, tensor in sample.inputs.items():
            content = (tmp_path / "models" / name / "warmup" / tensor.input_data_file).read_bytes()
            assert key == "STREAM" or len(content) == 4 * np.prod(tensor.dims)


def test_a_graph_that_takes_one_image_is_not_batched(tiny_bundle, schema, tmp_path) -> None:
    export_triton([("one", tiny_bundle)], tmp_path / "models")
    configs = read_configs(schema, tmp_path / "models")
    assert {config.max_batch_size for config in configs.values()} == {0}
    assert tensors(schema, configs["one"].output)["logits"] == ("TYPE_FP32", [1, 10])


def test_tensorrt_is_left_to_onnx_runtime_on_the_gpu(jetson_bundle, schema, tmp_path) -> None:
    export_triton([(None, jetson_bundle)], tmp_path / "models")
    config = read_configs(schema, tmp_path / "models")["tiny-graph"]
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert (config.backend, accelerator.name) == ("onnxruntime", "tensorrt")
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_GPU


@pytest.mark.slow
def test_openvino_has_a_backend_of_its_own(tiny_model, schema, tmp_path) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    export.split(tiny_model, tmp_path / "bundle", target="openvino", edge="openvino")
    export_triton([(None, tmp_path / "bundle")], tmp_path / "models")
    assert read_configs(schema, tmp_path / "models")["tiny-graph"].backend == "openvino"
    files = {path.name for path in (tmp_path / "models/tiny-graph/1").iterdir()}
    assert files == {"model.xml", "model.bin"}


def test_names_are_told_apart_or_refused(tiny_bundle, tmp_path) -> None:
    with pytest.raises(UsageError, match="Two models have the name tiny"):
        export_triton([(None, tiny_bundle), ("tiny", tiny_bundle)], tmp_path / "models")
    with pytest.raises(UsageError, match=r"model named '\.\./x'"):
        export_triton([("../x", tiny_bundle)], tmp_path / "models")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_graphs_without_a_backend_are_left_to_python(tiny_model, tmp_path) -> None:
    export.split(tiny_model, tmp_path / "bundle", target="torch")
    bundles = [(None, tmp_path / "bundle")]
    with pytest.raises(BundleError, match="can hold code"):
        export_triton(bundles, tmp_path / "models")
    with pytest.raises(BundleError, match="no backend for the edge graph") as raised:
        export_triton(bundles, tmp_path / "models", TritonOptions(trust=True))
    assert "--backend python" in raised.value.next_step
    export_triton(bundles, tmp_path / "models", TritonOptions("python", trust=True))


def test_the_command_says_what_it_wrote(tiny_bundle, tmp_path) -> None:
    folder = tmp_path / "models"
    words = ["export", "triton", f"rose={tiny_bundle}", "-o", folder, "--backend", "python"]
    code, out, err = finish(*words, "--json")
    assert code == 0, err
    assert json.loads(out) == [{"name": "rose", "backend": "python", "batch": 8, "asked": True}]
    assert f"tritonserver --model-repository {folder}" in err
    assert (folder / "rose/1/bundle/manifest.json").is_file()


# Runs the graph where Triton's ONNX Runtime backend would.
GRAPH_PY = """
from pathlib import Path
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, args):
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(path))

    def execute(self, requests):
        responses = []
        for request in requests:
            symbols = triton.get_input_tensor_by_name(request, "symbols").as_numpy()
            (logits,) = self.session.run(["logits"], {"symbols": symbols})
            responses.append(triton.InferenceResponse([triton.Tensor("logits", logits)]))
        return responses
"""


@pytest.mark.slow
def test_the_server_answers_as_the_edge_half_does(batched_bundle, photos, tmp_path) -> None:
    """In the Python backend, and by an ensemble whose graph runs in Python too."""
    client_of = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    if not PYTHON.exists():
        pytest.skip("needs nvidia-pytriton in an environment of its own: make servers")
    models = tmp_path / "models"
    export_triton([("whole", batched_bundle)], models, TritonOptions("python", instances=2))
    export_triton([("steps", batched_bundle)], models, force=True)
    graph = models / "steps-graph"
    config = (graph / "config.pbtxt").read_text()
    (graph / "config.pbtxt").write_text(config.replace('"onnxruntime"', '"python"'))
    (graph / "1/model.py").write_text(GRAPH_PY)

    bundle = open_bundle(batched_bundle)
    device, edge = Device(bundle), Edge(bundle)
    streams = [bytes(device.encode_image(photo)) for photo in photos[:5]]
    expected = np.concatenate([edge.decode(stream)[0] for stream in streams])
    said = [edge.predict(stream, 2).top for stream in streams]

    def infer(name, some, **parameters):
        tensor = client_of.InferInput("STREAM", [len(some), 1], "BYTES")
        tensor.set_data_from_numpy(np.array([[stream] for stream in some], object))
        return client.infer(name, [tensor], parameters=parameters)

    (tmp_path / "server").mkdir()
    with (
        triton_server(models, tmp_path / "server") as server,
        client_of.InferenceServerClient(server.address, concurrency=8) as client,
    ):
        for name in ("whole", "steps"):
            assert client.is_model_ready(name)
            found = infer(name, streams, top=2)
            assert np.abs(found.as_numpy("logits") - expected).max() < 1e-5
            tops = [json.loads(one)["top"] for (one,) in found.as_numpy("PREDICTION")]
            indexes = [[score["index"] for score in top] for top in tops]
            assert indexes == [[score.index for score in top] for top in said]

            # A request with a damaged stream fails alone, whatever runs beside it.
            tensors = [[stream] for stream in streams]
            tensors[2] = [streams[2][:-1]]
            waiting = []
            for some in tensors:
                tensor = client_of.InferInput("STREAM", [1, 1], "BYTES")
                tensor.set_data_from_numpy(np.array([some], object))
                waiting.append(client.async_infer(name, [tensor]))
            for place, one in enumerate(waiting):
                if place == 2:
                    with pytest.raises(Exception, match="CRC-32"):
                        one.get_result()
                    continue
                logits = one.get_result().as_numpy("logits")
                assert np.abs(logits - expected[place]).max() < 1e-5
