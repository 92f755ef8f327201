"""fp16 graphs: fp16 weights and activations between fp32 inputs and outputs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splitrun.errors import BundleError

from .node_roles import NodeRoles, is_convolution, read_named

if TYPE_CHECKING:
    import onnx

_STAY_FP32 = ("Cast", "Constant", "ConstantOfShape", "Resize")
"""Operators whose type is said by an attribute, or some of whose inputs must be fp32."""


def to_fp16(source: Path, target: Path) -> None:
    """Write an fp32 ONNX graph again with fp16 in between.

    From the last convolution's output to its rounding, and after a rounding, everything stays
    fp32: with the eleven bits of fp16, some symbols would be rounded otherwise, and so would scale
    indexes, which the edge computes again. (The converters at hand cast to fp16 and back between
    any two nodes that are to stay fp32.)

    Raises:
        BundleError: There is no convolution before a rounding.
    """
    import onnx

    model = read_named(source)
    roles = NodeRoles(model)
    stays = roles.after_rounding | (roles.to_rounding - roles.last_convolutions)
    lowered = [
        node
        for node in model.graph.node
        if node.name not in stays and node.op_type not in _STAY_FP32
    ]
    if not any(map(is_convolution, lowered)):
        raise BundleError(
            "The graph has nothing to compute in fp16.", next_step="Export it in fp32."
        )
    nodes = list(_with_casts(model, {node.name for node in lowered}))
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    onnx.save(model, target)


def _with_casts(model: "onnx.ModelProto", lowered: set[str]) -> "Iterator[onnx.NodeProto]":
    """Give the nodes in their order, with casts where one precision meets the other.

    A tensor that a lowered node makes keeps its name in fp16, and is ``…_fp32`` in fp32. Any other
    keeps its name in fp32, and is ``…_fp16`` in fp16. Outputs of the graph keep name and type.
    """
    from onnx import TensorProto, helper, numpy_helper

    fp32_names = _fp32_names(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    outputs = {output.name for output in model.graph.output} & fp32_names
    in_fp16: set[str] = set()
    cast: set[str] = set()

    def cast_node(name: str, made: str, label: str, fp16: bool) -> "onnx.NodeProto":
        to = TensorProto.FLOAT16 if fp16 else TensorProto.FLOAT
        return helper.make_node("Cast", [name], [made], name=f"cast_{label}", to=to)

    for node in model.graph.node:
        fp16 = node.name in lowered
        for place, name in enumerate(node.input):
            if name not in fp32_names or (name in in_fp16) == fp16:
                continue
            other = f"{name}_{'fp16' if fp16 else 'fp32'}"
            if other not in cast:
                cast.add(other)
                if name in constants:
                    values = numpy_helper.to_array(constants[name]).astype(np.float16)
                    model.graph.initializer.append(numpy_helper.from_array(values, other))
                else:
                    yield cast_node(name, other, other, fp16)
            node.input[place] = other
        ends = [name for name in node.output if name in outputs and fp16]
        for place, name in enumerate(node.output):
            if name in ends:
                node.output[place] = f"{name}_half"
        if fp16:
            in_fp16.update(fp32_names.intersection(node.output))
        yield node
        yield from (cast_node(f"{name}_half", name, name, fp16=False) for name in ends)


def _fp32_names(model: "onnx.ModelProto") -> set[str]:
    """Return the names of all tensors of a graph that are fp32."""
    from onnx import TensorProto, shape_inference

    fp32 = TensorProto.FLOAT
    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    found = {value.name for value in values if value.type.tensor_type.elem_type == fp32}
    return found | {tensor.name for tensor in graph.initializer if tensor.data_type == fp32}
