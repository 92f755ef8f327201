"""Device graphs below fp32: what becomes int8 or fp16, and what must not."""

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, numpy_helper
from small_models import small_spec

from splitrun.bundle import open_bundle
from splitrun.engines import open_session
from splitrun.engines.openvino_runtime import openvino_core
from splitrun.errors import BundleError
from splitrun.halves import Device, Edge
from splitzoo import export, zoo
from splitzoo.export.formats.base import Integers
from splitzoo.export.graphs import DeviceGraph
from splitzoo.export.onnx_graph import check_onnx, write_onnx
from splitzoo.export.precision.fp16 import to_fp16
from splitzoo.export.precision.int8 import to_int8
from splitzoo.export.precision.node_roles import NodeRoles, is_convolution, read_named
from splitzoo.export.recording import seeded_image

TASK = "image-classification"


def images(model, count: int = 4) -> list[np.ndarray]:
    return [seeded_image(model.spec.preprocessing, number) for number in range(count)]


def device_graph(model, path):
    """Write a model's fp32 device graph."""
    write_onnx(
        DeviceGraph(model).eval(),
        [torch.from_numpy(images(model, 1)[0])],
        path,
        input_names=["image"],
        output_names=list(model.bottleneck.wire_names),
        dynamic_batch=False,
        opset=20,
    )
    return path


@pytest.fixture(scope="module")
def mshp():
    return zoo.build(small_spec(TASK, "mshp-float")).eval()


@pytest.fixture(scope="module")
def tiny_graph(tiny_model, tmp_path_factory):
    return device_graph(tiny_model, tmp_path_factory.mktemp("graphs") / "tiny.onnx")


@pytest.fixture(scope="module")
def mshp_graph(mshp, tmp_path_factory):
    return device_graph(mshp, tmp_path_factory.mktemp("graphs") / "mshp.onnx")


def inputs(model):
    return ({"image": one} for one in images(model))


def run(path, image):
    return open_session("onnxruntime", path).run({"image": image}, ["symbols"])


def constants(model) -> dict[str, np.ndarray]:
    return {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}


# Places


def test_the_last_convolution_and_the_norms_are_found(tiny_graph) -> None:
    model = read_named(tiny_graph)
    roles = NodeRoles(model)
    convolutions = [node.name for node in model.graph.node if is_convolution(node)]
    first, norm, second, other_norm, last = convolutions
    assert roles.gdn_norms == {norm, other_norm}
    assert roles.last_convolutions == {last}
    assert not {first, second} & (roles.to_rounding | roles.after_rounding)


def test_what_hangs_on_a_rounding_is_found(mshp_graph) -> None:
    model = read_named(mshp_graph)
    roles = NodeRoles(model)
    nodes = {node.name: node for node in model.graph.node}
    after = {name for name in roles.after_rounding if is_convolution(nodes[name])}
    weights = {name for node in after for name in nodes[node].input[1:2]}
    assert weights
    assert all("h_s" in name for name in weights)
    # The ends of g_a and of h_a, whose outputs become symbols.
    assert len(roles.last_convolutions) == 2
    assert not roles.last_convolutions & roles.after_rounding


def test_magnitudes_that_normalise_nothing_are_no_norms(tmp_path) -> None:
    """The analysis of a scale hyperprior takes |y|."""
    model = zoo.build(small_spec(TASK, "shp-float")).eval()
    graph = read_named(device_graph(model, tmp_path / "shp.onnx"))
    nodes = {node.name: node for node in graph.graph.node}
    assert any(node.op_type == "Abs" for node in nodes.values())
    norms = {name for found in NodeRoles(graph).gdn_norms for name in nodes[found].input[1:2]}
    assert all("h_a" not in name for name in norms)
    assert len(NodeRoles(graph).gdn_norms) == 2


def test_of_a_residual_backbone_one_convolution_is_the_last(tmp_path) -> None:
    """The sum before the rounding has the block's convolution and its shortcut in it."""

    class Rounded(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = timm.create_model("test_resnet", features_only=True, out_indices=(2,))

        def forward(self, image):
            return torch.round(self.layers(image)[-1])

    write_onnx(
        Rounded().eval(),
        [torch.zeros(1, 3, 64, 64)],
        tmp_path / "r.onnx",
        input_names=["image"],
        output_names=["symbols"],
        dynamic_batch=False,
        opset=20,
    )
    graph = read_named(tmp_path / "r.onnx")
    convolutions = [node.name for node in graph.graph.node if is_convolution(node)]
    roles = NodeRoles(graph)
    assert len(roles.last_convolutions) == 1
    assert roles.last_convolutions <= set(convolutions[-2:])
    assert len(roles.to_rounding.intersection(convolutions)) == 1
    assert len(roles.to_rounding) < 6


def test_the_latent_that_the_coder_rounds_has_a_last_convolution_too(tmp_path) -> None:
    """The encoder's and the hyper-encoder's, though the graph rounds z alone."""
    model = zoo.build(small_spec(TASK, "mshp")).eval()
    graph = read_named(device_graph(model, tmp_path / "mshp.onnx"))
    assert sum(node.op_type == "Round" for node in graph.graph.node) == 1
    found = NodeRoles(graph).last_convolutions
    widths = {
        node.name: constants(graph)[node.input[1]].shape[:2]
        for node in graph.graph.node
        if node.name in found
    }
    assert sorted(widths.values()) == [(4, 4), (4, 8)]


# int8


def test_what_is_rounded_in_fp32_does_not_read_an_int8_latent(mshp, mshp_graph, tmp_path) -> None:
    """The analysis of the hyperprior does, in int8; the subtraction of the means does not."""
    to_int8(mshp_graph, tmp_path / "q.onnx", inputs(mshp))
    model = onnx.load(tmp_path / "q.onnx")
    made_by = {name: node for node in model.graph.node for name in node.output}
    subtractions = [node for node in model.graph.node if node.op_type == "Sub"]
    assert subtractions
    for node in subtractions:
        assert all(
            made_by[one].op_type != "DequantizeLinear" for one in node.input if one in made_by
        )
    last = NodeRoles(read_named(mshp_graph)).last_convolutions
    given = {node.output[0] for node in model.graph.node if node.name in last}
    readers = {node.op_type for node in model.graph.node if given.intersection(node.input)}
    assert {"Sub", "QuantizeLinear"} <= readers


def test_without_inputs_there_are_no_ranges(tiny_graph, tmp_path) -> None:
    with pytest.raises(BundleError, match="there are none"):
        to_int8(tiny_graph, tmp_path / "q.onnx", ())
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("unsigned", [False, True])
def test_weights_are_int8_per_channel_and_zero_points_as_they_must_be(
    tiny_model, tiny_graph, tmp_path, unsigned
) -> None:
    done = to_int8(
        tiny_graph, tmp_path / "q.onnx", inputs(tiny_model), keep=(), integers=Integers(unsigned)
    )
    assert (len(done.nodes), done.kept) == (5, ())
    check_onnx(tmp_path / "q.onnx")
    model = onnx.load(tmp_path / "q.onnx")
    values = constants(model)
    weights = 0
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = values[node.input[1]], values[node.input[2]]
        of_weights = node.input[0] in values
        weights += of_weights
        assert zero.dtype == (np.uint8 if unsigned and not of_weights else np.int8)
        assert np.all(zero == 0) or (unsigned and not of_weights)
        assert scale.ndim == of_weights
        if of_weights:
            assert values[node.input[0]].dtype == np.int8
    assert weights == 5  # both norms begin alike, and yet have their own
    assert not any(one.data_type == TensorProto.INT32 for one in model.graph.initializer)
    image = images(tiny_model)[0]
    (before,), (after,) = run(tiny_graph, image), run(tmp_path / "q.onnx", image)
    assert after.dtype == np.int32
    assert 0 < np.mean(before != after) < 0.2


def test_what_is_kept_stays_in_fp32(tiny_model, tiny_graph, tmp_path) -> None:
    roles = NodeRoles(read_named(tiny_graph))
    done = to_int8(tiny_graph, tmp_path / "q.onnx", inputs(tiny_model), keep=("last", "gdn"))
    assert set(done.kept) == roles.last_convolutions | roles.gdn_norms
    assert len(done.nodes) == 2


def test_int8_of_seven_bits_gives_openvinos_symbols_on_any_processor(
    tiny_model, tiny_graph, tmp_path
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    seven = Integers(weight_bits=7)
    to_int8(tiny_graph, tmp_path / "q.onnx", inputs(tiny_model), integers=seven)
    kept = [one for one in constants(onnx.load(tmp_path / "q.onnx")).values() if one.ndim == 4]
    assert {str(one.dtype) for one in kept} == {"float32", "int8"}  # the last convolution's
    assert all(np.abs(one).max() <= 64 for one in kept if one.dtype == np.int8)
    core = openvino_core()
    compiled = core.compile_model(
        core.read_model(tmp_path / "q.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    image = images(tiny_model)[0]
    (found,) = compiled([image]).values()
    (expected,) = run(tmp_path / "q.onnx", image)
    assert np.mean(found != expected) < 0.02


@pytest.mark.parametrize("lower", ["int8", "fp16"])
def test_nothing_after_a_rounding_is_lowered(mshp, mshp_graph, tmp_path, lower) -> None:
    path = tmp_path / "lowered.onnx"
    if lower == "int8":
        to_int8(mshp_graph, path, inputs(mshp), keep=())
    else:
        to_fp16(mshp_graph, path)
    before, after = read_named(mshp_graph), read_named(path)
    stays = NodeRoles(before).after_rounding
    kept = {node.name: node for node in after.graph.node}
    values = {name: value for name, value in constants(after).items() if value.dtype == np.float32}
    for node in before.graph.node:
        if node.name in stays:
            same = kept[node.name]
            assert same.op_type == node.op_type
            for name in node.input:
                if name in constants(before) and constants(before)[name].dtype == np.float32:
                    assert np.array_equal(values[name], constants(before)[name])


def test_temporary_names_of_this_machine_do_not_enter_the_file(
    tiny_model, tiny_graph, tmp_path
) -> None:
    to_int8(tiny_graph, tmp_path / "q.onnx", inputs(tiny_model))
    content = (tmp_path / "q.onnx").read_bytes()
    assert str(tmp_path).encode() not in content
    assert b"/tmp" not in content
    assert not onnx.load(tmp_path / "q.onnx").metadata_props


# fp16


def test_fp16_is_between_fp32_input_and_integers(tiny_model, tiny_graph, tmp_path) -> None:
    to_fp16(tiny_graph, tmp_path / "h.onnx")
    check_onnx(tmp_path / "h.onnx")
    model = onnx.load(tmp_path / "h.onnx")
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    convolutions = [node for node in model.graph.node if is_convolution(node)]
    values = constants(model)
    assert all(values[node.input[1]].dtype == np.float16 for node in convolutions)
    image = images(tiny_model)[0]
    (before,), (after,) = run(tiny_graph, image), run(tmp_path / "h.onnx", image)
    assert np.mean(before != after) < 0.02
    assert np.abs(before - after).max() <= 1


# Whole exports: the edge reads what a device of lower precision writes


@pytest.mark.parametrize(("target", "precision"), [("cpu", "int8"), ("jetson", "fp16")])
@pytest.mark.parametrize("kind", ["mshp", "mshp-float"])
def test_the_edge_follows_a_hyperprior_of_lower_precision(
    photos, tmp_path, target, precision, kind
) -> None:
    options = {"target": target, "precision": precision, "accept": True, "keep_tables": True}
    folder = photos[0].parent if precision == "int8" else None
    model = zoo.build(small_spec(TASK, kind)).eval()
    export.split(model, tmp_path / "b", calibration=folder, **options)
    bundle = open_bundle(tmp_path / "b")
    device, edge = Device(bundle, stand_in=True), Edge(bundle, stand_in=True)
    for image in images(model):
        first, hyper_symbols, *_ = sent = device.wire_tensors(image)
        (stream,) = device.encode(image)
        (received, *_) = edge.decompress(stream)
        assert hyper_symbols.dtype == np.int32
        if kind == "mshp-float":
            assert np.array_equal(received, first)
        else:
            expected, _ = device.codec.coder.decoded(*(tensor[0] for tensor in sent))
            assert np.array_equal(received[0], expected)
            assert np.abs(received - first).max() <= 0.5001


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_device_that_computes_nothing_is_refused(tmp_path, photos, precision) -> None:
    model = zoo.build(small_spec(TASK, "jpeg"))
    options = {"target": "jetson", "precision": precision, "calibration": photos[0].parent}
    with pytest.raises(BundleError, match=f"nothing to compute in {precision}"):
        export.split(model, tmp_path / "b", **options)
    assert list(tmp_path.iterdir()) == []
