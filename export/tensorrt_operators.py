"""Which ONNX operators and types TensorRT's parser documents, and which of a graph it does not.

The table is that of TensorRT 10.1, the oldest near the oldest JetPack: later ones take more.
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
            next_step="Other targets take it: splitzoo export targets",
        )


def unsupported(path: Path) -> list[str]:
    """Return what of an ONNX file TensorRT's parser documents no support for, in words."""
    import onnx
    from onnx import shape_inference

    model = shape_inference.infer_shapes(onnx.load(path))
    found = [
        f"opset {one.version} (9 to 20 are)"
        for one in model.opset_import
        if one.domain in ("", "ai.onnx") and one.version not in OPSETS
    ]
    ends = _ends(model.graph)
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
            # Bytes come in and go out, and nothing else is done with them.
            if kind and (kind not in allowed or (kind == "UINT8" and name not in ends)):
                yield f"{kind} of {node.op_type} ({node.name})"


@cache
def _operators() -> dict[str, list[str]]:
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: types.split() for name, types in table["operators"].items()}


def _graphs(graph: "onnx.GraphProto") -> "Iterator[onnx.GraphProto]":
    """Go through a graph and the branches and bodies inside its nodes."""
    yield graph
    for attribute in (one for node in graph.node for one in node.attribute):
        for inner in (attribute.g, *attribute.graphs):
            if inner.node:
                yield from _graphs(inner)


def _shifts(graph: "onnx.GraphProto") -> set[str]:
    """Return the names of the zero points that are not all 0."""
    from onnx import numpy_helper

    asked = {name for one in graph.node if one.op_type in _QUANTISING for name in one.input[2:]}
    constants = (one for one in graph.initializer if one.name in asked)
    return {one.name for one in constants if numpy_helper.to_array(one).any()}


def _ends(graph: "onnx.GraphProto") -> set[str]:
    return {one.name for one in (*graph.input, *graph.output)}


def _types(graph: "onnx.GraphProto") -> dict[str, str]:
    """Return the type of each tensor that has one, as TensorRT's table calls it."""
    from onnx import TensorProto

    names: dict[int, str] = {
        TensorProto.FLOAT: "FP32",
        TensorProto.FLOAT16: "FP16",
        TensorProto.BFLOAT16: "BF16",
    }

    def called(number: int) -> str:
        return names.get(number) or TensorProto.DataType.Name(number)  # pyright: ignore

    values = (*graph.input, *graph.output, *graph.value_info)
    found = {one.name: called(one.type.tensor_type.elem_type) for one in values}
    return found | {one.name: called(one.data_type) for one in graph.initializer}
