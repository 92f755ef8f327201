"""Where things are in a device graph: what hangs on a rounding, what is rounded, what is a norm."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


class Places:
    """The nodes of a device graph by what they do.

    Args:
        model: ONNX, its nodes in topological order and with names.

    Attributes:
        after_rounding: Names of the nodes that depend on a rounded value.
        rounded: Names of the nodes between the last convolutions and a rounding, those included.
        last: Names of the convolutions whose output reaches a rounding by no other convolution.
        norms: Names of the convolutions that compute the norms of a GDN.
    """

    def __init__(self, model: "onnx.ModelProto") -> None:
        nodes = list(model.graph.node)
        made_by = {name: node for node in nodes for name in node.output}
        self.after_rounding: set[str] = set()
        reached: set[str] = set()
        for node in nodes:
            if reached.intersection(node.input):
                self.after_rounding.add(node.name)
                reached.update(node.output)
            if node.op_type == "Round":
                reached.update(node.output)
        self.rounded: set[str] = set()
        self.last: set[str] = set()
        waiting = [node for node in nodes if node.op_type == "Round"]
        while waiting:
            node = waiting.pop()
            if node.name in self.rounded:
                continue
            self.rounded.add(node.name)
            if is_convolution(node):
                self.last.add(node.name)
            else:
                waiting += _givers(node.input, made_by)
        self.norms = {
            node.name
            for node in nodes
            if is_convolution(node) and any(map(_is_magnitude, _givers(node.input[:1], made_by)))
        }


def read_named(path: Path) -> "onnx.ModelProto":
    """Read an ONNX file, and give each node a name."""
    import onnx

    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"
    return model


def _is_magnitude(node: "onnx.NodeProto") -> bool:
    """Say whether a node gives absolute values or squares."""
    return node.op_type in ("Abs", "Pow") or (
        node.op_type == "Mul" and node.input[0] == node.input[1]
    )


def is_convolution(node: "onnx.NodeProto") -> bool:
    """Say whether a node multiplies with weights and adds up."""
    return node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _givers(names: Iterable[str], made_by: "dict[str, onnx.NodeProto]") -> "list[onnx.NodeProto]":
    return [made_by[name] for name in names if name in made_by]
