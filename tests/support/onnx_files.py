"""Small ONNX files, written by hand."""

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto, helper


def save_graph(path: Path, *nodes: onnx.NodeProto, constants: Sequence = ()) -> Path:
    """Write nodes that make ``y`` of ``x``, both (1, 4) float32."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(constants))
    imports = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path
