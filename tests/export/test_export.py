"""What export writes is the model: graphs, manifest, parity gate, nothing left behind."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from packaging.markers import Marker
from torch import nn

from splitrun.bundle import open_bundle
from splitrun.errors import ImageError, OutputError, ParityError, UnknownNameError
from splitrun.files import sha256_file
from splitrun.halves import Device, Edge
from splitrun.manifest import GraphInfo, TensorInfo, read_manifest
from splitzoo import __version__, export, zoo
from splitzoo.export.graphs import GDN1, DeviceGraph, fold_gdn
from splitzoo.export.parity import check_parity
from splitzoo.export.recording import _boundary_distance, record_run, seeded_image
from splitzoo.export.splitting import bundle_page

ROOT = Path(__file__).parents[2]
GRAPHS = ("device/encoder.onnx", "edge/decoder.onnx")
RECORDED = ("device/selftest.npz", "edge/selftest.npz", "edge/labels.json")
DEVICE_OPERATORS = {"Conv", "Abs", "Div", "Sub", "Round", "Cast"}
# The edge holds a whole backbone; all of these are in TensorRT 10.1's parser too.
EDGE_OPERATORS = {
    *("Cast", "Add", "Conv", "Abs", "Mul", "Relu"),
    *("AveragePool", "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten", "Gemm"),
}


@pytest.fixture(scope="module")
def manifest(bundle):
    return read_manifest(bundle)


@pytest.fixture(scope="module")
def other_model(tiny_model):
    """The same architecture with other weights."""
    return zoo.build(tiny_model.spec, seed=1)


def records(model, count=2):
    return (record_run(model, seed) for seed in range(count))


def gdn(channels, *, inverse):
    """GDN1 as training leaves it: no weight at its initial value."""
    layer = GDN1(channels, inverse=inverse)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        layer.beta.uniform_(0.5, 2)
        layer.gamma.uniform_(0, 1)
    return layer


# GDN


@pytest.mark.parametrize("inverse", [False, True])
def test_folded_gdn_equals_gdn(inverse) -> None:
    layer = gdn(6, inverse=inverse)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 6, 9, 7)).astype(np.float32))
    expected, folded = layer(x), fold_gdn(layer)
    assert not torch.allclose(expected, x, rtol=0.1)
    torch.testing.assert_close(folded(x), expected, rtol=1e-6, atol=1e-6)
    assert list(folded.parameters()) == []


def test_fold_gdn_replaces_nested_layers_and_leaves_the_original() -> None:
    original = nn.Sequential(nn.Sequential(gdn(3, inverse=True)), nn.ReLU())
    before = {name: value.clone() for name, value in original.state_dict().items()}
    folded = fold_gdn(original)
    assert not any(isinstance(part, GDN1) for part in folded.modules())
    assert isinstance(original[0][0], GDN1)
    assert before.keys() == original.state_dict().keys()
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in before.items())


def test_device_graph_computes_the_symbols_of_the_model(model) -> None:
    record = record_run(model, seed=5).device
    (symbols,) = DeviceGraph(model)(torch.from_numpy(record.image))
    assert symbols.dtype == torch.int32
    different = symbols.numpy() != record.wire["symbols"]
    assert not np.any(different & ~record.ties["symbols"])


# The graphs


@pytest.mark.parametrize(
    ("file", "operators", "taken", "given"),
    [
        (
            GRAPHS[0],
            DEVICE_OPERATORS,
            ("image", TensorProto.FLOAT, [1, 3, 224, 224]),
            ("symbols", TensorProto.INT32, [1, 24, 55, 55]),
        ),
        (
            GRAPHS[1],
            EDGE_OPERATORS,
            ("symbols", TensorProto.INT32, [1, 24, 55, 55]),
            ("logits", TensorProto.FLOAT, [1, 1000]),
        ),
    ],
)
def test_graph_has_opset_20_one_input_one_output(bundle, file, operators, taken, given) -> None:
    proto = onnx.load(bundle / file)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20)]
    assert {node.op_type for node in proto.graph.node} <= operators
    assert [described(value) for value in proto.graph.input] == [taken]
    assert [described(value) for value in proto.graph.output] == [given]


def described(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
    tensor = value.type.tensor_type
    sizes = [size.dim_param or size.dim_value for size in tensor.shape.dim]
    return value.name, tensor.elem_type, sizes


def test_device_graph_has_a_convolution_for_each_gdn_and_no_square_roots(bundle) -> None:
    nodes = [node.op_type for node in onnx.load(bundle / GRAPHS[0]).graph.node]
    assert sorted(nodes) == sorted(
        ["Conv"] * 5 + ["Abs"] * 2 + ["Div"] * 2 + ["Sub", "Round", "Cast"]
    )


@pytest.mark.parametrize("file", GRAPHS)
def test_graph_says_nothing_of_the_exporting_machine(bundle, file) -> None:
    proto = onnx.load(bundle / file)
    graph = proto.graph
    parts = (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer)
    for part in (proto, graph, *parts):
        assert part.doc_string == ""
        assert not part.metadata_props
    for weight in graph.initializer:
        weight.ClearField("raw_data")
    text = proto.SerializeToString()
    assert b".py" not in text
    assert b"site-packages" not in text
    assert str(ROOT).encode() not in text


# The manifest


def test_manifest_names_every_file_with_its_hash(bundle, manifest) -> None:
    on_disk = {
        path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundle.rglob("*")
        if path.is_file() and path.name != "manifest.json" and "__pycache__" not in path.parts
    }
    assert manifest.files == on_disk
    assert {*GRAPHS, "tables.npz", *RECORDED, "README.md"} <= set(on_disk)
    assert {"requirements.txt", "splitrun/__main__.py"} <= set(on_disk)


def test_manifest_says_which_model_it_is(model, manifest) -> None:
    assert manifest.schema_version == 6
    assert manifest.spec == model.spec.model_dump(mode="json")
    assert model.spec.latent_shape == (24, *manifest.coding.shape) == (24, 55, 55)
    assert (manifest.coding.kind, manifest.coding.settings) == ("factorized", {})
    assert manifest.coding.tables == "tables.npz"
    assert manifest.halves == ("device", "edge")
    (tail,) = manifest.edge.tails.items()
    assert (tail[0], tail[1].postprocessing) == ("classification", {})
    assert manifest.coding.stream_id == model.codec.stream_id.hex()
    assert manifest.provenance.model_sha256 == model.digest().hex()
    assert manifest.provenance.device_sha256.startswith(manifest.coding.stream_id)
    assert (manifest.provenance.weights, manifest.provenance.seed) == ("random", 0)


def test_manifest_describes_both_graphs(manifest) -> None:
    image = (TensorInfo("image", "float32", (1, 3, 224, 224)),)
    symbols = (TensorInfo("symbols", "int32", (1, 24, 55, 55)),)
    logits = (TensorInfo("logits", "float32", (1, 1000)),)
    assert manifest.graphs == {
        "device": GraphInfo(GRAPHS[0], "onnxruntime", image, symbols),
        "edge": GraphInfo(GRAPHS[1], "onnxruntime", symbols, logits),
    }


def test_manifest_says_what_made_it(manifest) -> None:
    packages = ("torch", "timm", "compressai", "onnx", "onnxscript", "onnxruntime")
    expected = {name: version(name) for name in (*packages, "constriction", "numpy")}
    assert manifest.provenance.versions == {"splitzoo": __version__, **expected}
    assert manifest.provenance.command == (
        "splitzoo export split splittable_resnet50-fp-beta0.08 --target cpu "
        "--random-weights --seed 0"
    )


def test_manifest_holds_the_parity_that_was_measured(manifest) -> None:
    parity = manifest.parity
    assert (parity.images, parity.symbols) == (3, 3 * 24 * 55 * 55)
    assert 0 <= parity.symbols_differing <= parity.symbols_tied < parity.symbols / 1000
    assert 0 < parity.output_max_relative_error <= parity.limits.output_tolerance == 1e-4
    assert parity.streams_decoded is True


def test_labels_are_one_for_each_class(bundle) -> None:
    labels = json.loads((bundle / "edge/labels.json").read_text())
    assert len(labels) == 1000
    assert labels[254].startswith("pug")


def test_readme_of_the_bundle_is_rendered_from_the_manifest(bundle, manifest) -> None:
    text = (bundle / "README.md").read_text()
    assert text == bundle_page(manifest)
    assert "The weights are random (seed 0)" in text
    assert manifest.provenance.command in text
    assert manifest.coding.stream_id in text
    for leftover in ("{{", "{%", "None", "Undefined"):
        assert leftover not in text


def test_requirements_are_what_the_runtime_imports(bundle) -> None:
    lines = (bundle / "requirements.txt").read_text().splitlines()
    numpy, pillow, coder, engine = lines
    assert (numpy, pillow, engine) == ("numpy", "pillow>=11.3", "onnxruntime")
    wanted, _, marker = coder.partition("; ")
    assert wanted == "constriction>=0.5,<0.6"
    # Where constriction has wheels; elsewhere the plain coder runs.
    with_wheels = {
        ("linux", "x86_64"): True,
        ("linux", "aarch64"): False,
        ("linux", "armv7l"): False,
        ("darwin", "arm64"): True,
        ("win32", "AMD64"): True,
        ("win32", "ARM64"): False,
    }
    for (system, machine), asked in with_wheels.items():
        environment = {"sys_platform": system, "platform_machine": machine}
        assert Marker(marker).evaluate(environment) is asked


# Exporting again


def test_exporting_twice_gives_the_same_bytes(tiny_model, tiny_bundle, tmp_path) -> None:
    manifest = export.split(tiny_model, tmp_path / "bundle")
    for file in (*GRAPHS, "tables.npz", *RECORDED):
        assert (tmp_path / "bundle" / file).read_bytes() == (tiny_bundle / file).read_bytes(), file
    # Random weights are called random, whoever exports them.
    assert manifest.provenance.weights == "random"


# Batches


def test_dynamic_batch_gives_the_streams_of_one_by_one(batched_bundle, tiny_model) -> None:
    images = [seeded_image(tiny_model.spec.preprocessing, seed) for seed in range(3)]
    device = Device(open_bundle(batched_bundle))
    together = device.encode(np.concatenate(images))
    assert len(set(together)) == 3
    assert together == [device.encode(image)[0] for image in images]


def test_dynamic_batch_gives_the_outputs_of_one_by_one(batched_bundle, tiny_model) -> None:
    edge = Edge(open_bundle(batched_bundle))
    symbols = [record_run(tiny_model, seed).edge.inputs["symbols"] for seed in range(3)]
    (together,) = edge.graph([np.concatenate(symbols)])
    apart = np.concatenate([edge.graph([one])[0] for one in symbols])
    np.testing.assert_allclose(together, apart, rtol=1e-5, atol=1e-5 * np.abs(apart).max())


def test_dynamic_batch_is_open_in_graph_and_manifest(batched_bundle) -> None:
    manifest = read_manifest(batched_bundle)
    (image,), (logits,) = manifest.graphs["device"].inputs, manifest.graphs["edge"].outputs
    assert image.shape == (-1, 3, 224, 224)
    assert logits.shape == (-1, 10)
    assert "--dynamic-batch" in manifest.provenance.command
    assert "N×3×224×224" in (batched_bundle / "README.md").read_text()
    (value,) = onnx.load(batched_bundle / GRAPHS[0]).graph.input
    assert described(value) == ("image", TensorProto.FLOAT, ["batch", 3, 224, 224])


def test_fixed_batch_refuses_another(tiny_bundle, tiny_model) -> None:
    images = np.concatenate(
        [seeded_image(tiny_model.spec.preprocessing, seed) for seed in range(3)]
    )
    said = r"it is float32 \(3, 3, 224, 224\), not float32 \(1, 3, 224, 224\)"
    with pytest.raises(ImageError, match=said):
        Device(open_bundle(tiny_bundle)).encode(images)


# The parity gate


def test_parity_holds_for_the_bundle_of_the_model(tiny_bundle, tiny_model) -> None:
    parity = check_parity(open_bundle(tiny_bundle), records(tiny_model), dynamic_batch=False)
    assert (parity.images, parity.symbols) == (2, 2 * 4 * 55 * 55)
    assert parity.output_max_relative_error <= 1e-4


def test_parity_refuses_other_weights_on_the_device(tiny_bundle, other_model) -> None:
    with pytest.raises(ParityError, match="symbols differ from PyTorch's") as caught:
        check_parity(open_bundle(tiny_bundle), records(other_model), dynamic_batch=False)
    assert caught.value.exit_code == 3


def test_parity_refuses_other_weights_on_the_edge(damaged, tiny_model) -> None:
    path = damaged / GRAPHS[1]
    proto = onnx.load(path)
    (classifier,) = (node for node in proto.graph.node if node.op_type == "Gemm")
    (weight,) = (one for one in proto.graph.initializer if one.name == classifier.input[1])
    changed = numpy_helper.to_array(weight) * np.float32(1.001)
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    path.write_bytes(proto.SerializeToString())
    manifest = json.loads((damaged / "manifest.json").read_text())
    manifest["files"][GRAPHS[1]] = sha256_file(path)
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ParityError, match="edge graph's logits differs from PyTorch's"):
        check_parity(open_bundle(damaged), records(tiny_model), dynamic_batch=False)


def test_parity_refuses_a_change_of_one_symbol(tiny_bundle, tiny_model) -> None:
    def changed():
        for record in records(tiny_model):
            firm = tuple(np.argwhere(~record.device.ties["symbols"])[0])
            record.device.wire["symbols"][firm] += 1
            yield record

    with pytest.raises(ParityError, match=r"^1 of 12100 symbols differ"):
        check_parity(open_bundle(tiny_bundle), changed(), dynamic_batch=False)


def test_parity_refuses_symbols_that_do_not_change_with_the_image(tiny_bundle, tiny_model) -> None:
    same = (record_run(tiny_model, 0) for _ in range(3))
    with pytest.raises(ParityError, match="the same symbols for different images"):
        check_parity(open_bundle(tiny_bundle), same, dynamic_batch=False)


def test_failed_parity_leaves_an_empty_folder_as_it_was(
    copied_graphs, other_model, tmp_path
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    with pytest.raises(ParityError):
        export.split(other_model, folder)
    assert [*tmp_path.iterdir(), *folder.iterdir()] == [folder]


# Refused before any work


@pytest.mark.parametrize(
    ("taken", "saying"), [("folder", "exists and is not empty"), ("file", "a file of that name")]
)
def test_a_taken_name_is_refused_before_any_work(
    tiny_model, tmp_path, monkeypatch, taken, saying
) -> None:
    monkeypatch.setattr(
        "splitzoo.export.splitting.record_run", lambda *_: pytest.fail("the model was run")
    )
    mine = tmp_path / "bundle"
    if taken == "folder":
        mine.mkdir()
        mine = mine / "mine.txt"
    mine.write_text("mine")
    with pytest.raises(OutputError, match=saying):
        export.split(tiny_model, tmp_path / "bundle")
    assert mine.read_text() == "mine"


def test_ties_lie_at_halves() -> None:
    distance = _boundary_distance(torch.tensor([2.0, -1.0, 2.5 + 1e-5, -0.5 - 1e-5]))
    torch.testing.assert_close(distance, torch.tensor([0.5, 0.5, 1e-5, 1e-5]), atol=1e-6, rtol=0)


def test_a_folder_is_split_as_its_model_is(
    copied_graphs, tiny_folder, tiny_model, tmp_path
) -> None:
    manifest = export.split(tiny_folder, tmp_path / "bundle")
    assert manifest.provenance.model_sha256 == tiny_model.digest().hex()
    with pytest.raises(UnknownNameError, match="No model is named 'nope'"):
        export.split("nope", tmp_path / "other")
