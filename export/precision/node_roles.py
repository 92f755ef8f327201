"""What the nodes of a device graph are for, such as leading to a rounding or following one.

A lower precision must leave some of them in fp32; see :mod:`.fp16` and :mod:`.int8`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


_ROUNDED_BY_THE_CODER = {"latent"}
"""Outputs of the graph whose rounding is left to the entropy coder."""


class NodeRoles:
    """Names of a device graph's nodes, by what the nodes are for.

    Args:
        model: ONNX model, its nodes in topological order and with names.

    Attributes:
        after_rounding: Nodes that depend on a rounded value.
        last_convolutions: Convolutions before the first roundings: of each rounding, the nearest.
        to_rounding: Nodes from these convolutions to their roundings, both included.
        gdn_norms: Convolutions that compute the norms of a GDN.
    """

    def __init__(self, model: "onnx.ModelProto") -> None:
        nodes = list(model.graph.node)
        self._position = {node.name: position for position, node in enumerate(nodes)}
        self._maker = {name: node for node in nodes for name in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self.after_rounding: set[str] = set()
        rounded: set[str] = set()
        for node in nodes:
            hangs_on_rounding = not rounded.isdisjoint(node.input)
            if hangs_on_rounding:
                self.after_rounding.add(node.name)
            if hangs_on_rounding or node.op_type == "Round":
                rounded.update(node.output)
        self.to_rounding: set[str] = set()
        self.last_convolutions: set[str] = set()
        unrounded = {output.name for output in model.graph.output} & _ROUNDED_BY_THE_CODER
        for node in nodes:
            if node.op_type == "Round" or not unrounded.isdisjoint(node.output):
                self._find_last_convolution(node)
        self.gdn_norms = {
            node.name for node in nodes if is_convolution(node) and self._is_gdn_norm(node)
        }

    def _find_last_convolution(self, rounding: "onnx.NodeProto") -> None:
        """Go back from a rounding to the nearest convolution that hangs on none."""
        found: dict[int, onnx.NodeProto] = {}
        waiting = [rounding]
        while waiting:
            node = waiting.pop()
            position, convolves = self._position[node.name], is_convolution(node)
            if position in found or (convolves and node.name in self.after_rounding):
                continue
            found[position] = node
            if not convolves:
                waiting += self._makers(node.input)
        convolutions = [position for position, node in found.items() if is_convolution(node)]
        if convolutions:
            last = max(convolutions)
            self.last_convolutions.add(found[last].name)
            self.to_rounding |= {node.name for position, node in found.items() if position >= last}

    def _is_gdn_norm(self, convolution: "onnx.NodeProto") -> bool:
        """Say whether a convolution adds up magnitudes, and its output scales what they are of.

        A hyperprior's analysis takes magnitudes too, and scales nothing.
        """
        sources = {
            name
            for maker in self._makers(convolution.input[:1])
            if _is_magnitude(maker)
            for name in maker.input
        }
        waiting = list(convolution.output) if sources else []
        while waiting:
            for node in self._readers.get(waiting.pop(), ()):
                if node.op_type in ("Div", "Mul") and sources.intersection(node.input):
                    return True
                if not is_convolution(node):
                    waiting += node.output
        return False

    def _makers(self, names: Iterable[str]) -> "Iterator[onnx.NodeProto]":
        return (self._maker[name] for name in names if name in self._maker)


def read_named(path: Path) -> "onnx.ModelProto":
    """Read an ONNX file, and give each node a name."""
    import onnx

    model = onnx.load(path)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"
    return model


def is_convolution(node: "onnx.NodeProto") -> bool:
    """Say whether a node multiplies with weights and adds up."""
    return node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _is_magnitude(node: "onnx.NodeProto") -> bool:
    """Say whether a node gives absolute values or squares."""
    return node.op_type in ("Abs", "Pow") or (
        node.op_type == "Mul" and node.input[0] == node.input[1]
    )
