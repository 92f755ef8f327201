"""Which operators and types of an ONNX file TensorRT's parser does not document.

The table is that of TensorRT 10.1, which is near the oldest JetPack; later releases take more.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from splitrun.errors import BundleError

if TYPE_CHECKING:
    import onnx

_TABLE = Path(__file__).with_name("tensorrt_operators.json")
_QUANTISING = ("QuantizeLinear", "DequantizeLinear")
_COMPARING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsInf", "IsNaN")
"""Both turn one type into another, and the table has the first alone."""

OPSETS = range(9, 21)


def check_supported(path: Path) -> None:
    """Refuse an ONNX file that TensorRT's parser documents no support for.

    Raises:
        BundleError: It holds such an operator, type or opset; the first three are named.
    """
    if found := unsupported(path):
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise BundleError(
            f"TensorRT documents no support for {'; '.join(found[:3])}{more} in {path.name}.",
            next_step="Choose another target. See: splitzoo export targets",
        )


def unsupported(path: Path) -> list[str]:
    """Return in words what TensorRT's parser does not document of an ONNX file."""
    import onnx
    from onnx import shape_inference

    model = shape_inference.infer_shapes(onnx.load(path))
    found = [
        f"opset {opset.version} (9 to 20 are)"
        for opset in model.opset_import
        if opset.domain in ("", "ai.onnx") and opset.version not in OPSETS
    ]
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    for graph in _graphs(model.graph):
        types, shifts = _types(graph), _shifts(graph)
        for node in graph.node:
            found += _unsupported(node, types, ends)
            found += [
                f"a zero point other than 0 of {node.op_type} ({node.name})"
                for name in node.input[2:]
                if node.op_type in _QUANTISING and name in shifts
            ]
    return list(dict.fromkeys(found))


def _unsupported(node: "onnx.NodeProto", types: dict[str, str], ends: set[str]) -> Iterator[str]:
    documented = _operators().get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if documented is None:
        yield f"the operator {node.op_type} ({node.name})"
        return
    turned = ("INT8", "FP32", "FP16") if node.op_type in _QUANTISING else ()
    given = {*documented, *turned, *(("BOOL",) if node.op_type in _COMPARING else ())}
    for names, allowed in ((node.input, {*documented, *turned}), (node.output, given)):
        for name in names[:1]:
            kind = types.get(name)
            # uint8 can only be an input or an output.
            if kind and (kind not in allowed or (kind == "UINT8" and name not in ends)):
                yield f"{kind} of {node.op_type} ({node.name})"


@cache
def _operators() -> dict[str, list[str]]:
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: types.split() for name, types in table["operators"].items()}


def _graphs(graph: "onnx.GraphProto") -> "Iterator[onnx.GraphProto]":
    """Go through a graph and the branches and bodies inside its nodes."""
    yield graph
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for inner in (attribute.g, *attribute.graphs):
            if inner.node:
                yield from _graphs(inner)


def _shifts(graph: "onnx.GraphProto") -> set[str]:
    """Return the names of the zero points that are not all 0."""
    from onnx import numpy_helper

    points = {name for node in graph.node if node.op_type in _QUANTISING for name in node.input[2:]}
    constants = (tensor for tensor in graph.initializer if tensor.name in points)
    return {tensor.name for tensor in constants if numpy_helper.to_array(tensor).any()}


def _types(graph: "onnx.GraphProto") -> dict[str, str]:
    """Return the type of each tensor that has one, by its name in TensorRT's table."""
    from onnx import TensorProto

    names: dict[int, str] = {
        TensorProto.FLOAT: "FP32",
        TensorProto.FLOAT16: "FP16",
        TensorProto.BFLOAT16: "BF16",
    }

    def called(number: int) -> str:
        return names.get(number) or TensorProto.DataType.Name(number)  # pyright: ignore

    values = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name: called(value.type.tensor_type.elem_type) for value in values}
    return found | {tensor.name: called(tensor.data_type) for tensor in graph.initializer}
