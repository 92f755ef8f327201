"""Which ONNX files are acceptable: those whose outputs hang on an input, in one file, valid."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from splitrun.errors import BundleError
from splitzoo.export.onnx_graph import check_onnx


def onnx_file(path, nodes, inputs=("x",), initializers=()) -> Path:
    def vector(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])

    graph = helper.make_graph(nodes, "g", list(map(vector, inputs)), [vector("y")], initializers)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    proto.ir_version = 10
    path.write_bytes(proto.SerializeToString())
    return path


def constant(value=(1, 2, 3, 4)) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), "c")


def test_check_onnx_accepts_a_graph_that_uses_its_input(tmp_path) -> None:
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    check_onnx(onnx_file(tmp_path / "good.onnx", nodes, initializers=[constant()]))


def test_check_onnx_refuses_a_graph_without_input(tmp_path) -> None:
    nodes = [helper.make_node("Constant", [], ["y"], value=constant())]
    with pytest.raises(BundleError, match="has no input: the exporter froze"):
        check_onnx(onnx_file(tmp_path / "frozen.onnx", nodes, inputs=()))


def test_check_onnx_refuses_an_output_that_ignores_its_input(tmp_path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["unused"]),
        helper.make_node("Constant", [], ["y"], value=constant()),
    ]
    with pytest.raises(BundleError, match="gives the same output for every input"):
        check_onnx(onnx_file(tmp_path / "constant.onnx", nodes))


def test_check_onnx_refuses_weights_in_other_files(tmp_path) -> None:
    path = tmp_path / "external.onnx"
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    proto = onnx.load(onnx_file(path, nodes, initializers=[constant()]))
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(BundleError, match="keeps weights in other files"):
        check_onnx(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname"])
def test_check_onnx_refuses_weights_outside_the_folder(tmp_path, location) -> None:
    outside = constant()
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value=location)
    nodes = [helper.make_node("Add", ["x", "c"], ["y"])]
    with pytest.raises(BundleError, match=r"outside\.onnx"):
        check_onnx(onnx_file(tmp_path / "outside.onnx", nodes, initializers=[outside]))


def test_check_onnx_refuses_constants_in_other_files(tmp_path) -> None:
    value = constant()
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="weights.bin")
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    with pytest.raises(BundleError, match=r"constant\.onnx"):
        check_onnx(onnx_file(tmp_path / "constant.onnx", nodes))


@pytest.mark.parametrize(
    "content", [b"", b"not a graph", b"\x00" * 64, b"\xff" * 64], ids=["empty", "text", "0", "ff"]
)
def test_check_onnx_refuses_what_is_no_onnx(tmp_path, content) -> None:
    path = tmp_path / "bytes.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"bytes\.onnx is not valid ONNX"):
        check_onnx(path)


def test_check_onnx_refuses_a_truncated_graph(tiny_bundle, tmp_path) -> None:
    whole = (tiny_bundle / "device/encoder.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(BundleError, match=r"cut\.onnx"):
            check_onnx(path)
