"""Where things are in a device graph: what hangs on a rounding, what is rounded, what is a norm."""

from collections.abc import Iterable, Iterator
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
        last: Names of the convolutions before the first roundings, one for each: the nearest.
        rounded: Names of the nodes between these and their roundings, both included.
        norms: Names of the convolutions that compute the norms of a GDN.
    """

    def __init__(self, model: "onnx.ModelProto") -> None:
        nodes = list(model.graph.node)
        self._order = {node.name: number for number, node in enumerate(nodes)}
        self._made_by = {name: node for node in nodes for name in node.output}
        self._read_by: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self._read_by.setdefault(name, []).append(node)
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
        for node in nodes:
            if node.op_type == "Round":
                self._find_last(node)
        self.norms = {node.name for node in nodes if is_convolution(node) and self._is_norm(node)}

    def _find_last(self, rounding: "onnx.NodeProto") -> None:
        """Go back from a rounding to the nearest convolution that hangs on none."""
        found: dict[int, onnx.NodeProto] = {}
        waiting = [rounding]
        while waiting:
            node = waiting.pop()
            number = self._order[node.name]
            convolves = is_convolution(node)
            if number in found or (convolves and node.name in self.after_rounding):
                continue
            found[number] = node
            if not convolves:
                waiting += self._givers(node.input)
        last = max((one for one in found if is_convolution(found[one])), default=None)
        if last is not None:
            self.last.add(found[last].name)
            self.rounded |= {node.name for number, node in found.items() if number >= last}

    def _is_norm(self, convolution: "onnx.NodeProto") -> bool:
        """Say whether a convolution adds up magnitudes, and its output scales what they are of.

        A hyperprior's analysis takes magnitudes too, and scales nothing.
        """
        sources = {
            name
            for giver in self._givers(convolution.input[:1])
            if _is_magnitude(giver)
            for name in giver.input
        }
        waiting = list(convolution.output) if sources else []
        while waiting:
            for node in self._read_by.get(waiting.pop(), ()):
                if node.op_type in ("Div", "Mul") and sources.intersection(node.input):
                    return True
                if not is_convolution(node):
                    waiting += node.output
        return False

    def _givers(self, names: Iterable[str]) -> "Iterator[onnx.NodeProto]":
        return (self._made_by[name] for name in names if name in self._made_by)


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
