"""fp16-typed weights and activations, between fp32 inputs and outputs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splitrun.errors import BundleError

from .onnx_nodes import Places, is_convolution, read_named

if TYPE_CHECKING:
    import onnx

_KEPT = ("Cast", "Constant", "ConstantOfShape", "Resize")
"""Operators whose type is said by an attribute, or some of whose inputs must be fp32."""


def to_half(source: Path, target: Path) -> None:
    """Write an fp32 ONNX device graph again with fp16 in between.

    What is rounded, from the last convolution's output on, and whatever follows a rounding, stays
    fp32 throughout: eleven bits would decide otherwise about some symbols, and about the scale
    indexes, which the edge computes again. (Converters at hand cast to fp16 and back between any
    two nodes that are to stay fp32.)

    Raises:
        BundleError: There is no convolution before a rounding.
    """
    import onnx

    model = read_named(source)
    places = Places(model)
    stays = places.after_rounding | (places.rounded - places.last)
    half = [one for one in model.graph.node if one.name not in stays and one.op_type not in _KEPT]
    if not any(map(is_convolution, half)):
        raise BundleError(
            "The device graph has nothing to compute in fp16.",
            next_step="Leave --precision fp16 out.",
        )
    nodes = list(_converted(model, {one.name for one in half}))
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [one for one in model.graph.initializer if one.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, target)


def _converted(model: "onnx.ModelProto", half: set[str]) -> "Iterator[onnx.NodeProto]":
    """Give the nodes in their order, with casts where one precision meets the other.

    A tensor of a half node's has its own name in fp16, and ``…_fp32`` in fp32; another has its own
    in fp32, and ``…_fp16`` in fp16. Outputs of the graph keep their names and types.
    """
    from onnx import TensorProto, helper, numpy_helper

    floats = _floats(model)
    constants = {one.name: one for one in model.graph.initializer}
    outputs = {one.name for one in model.graph.output}
    made_half: set[str] = set()
    cast: set[str] = set()
    for node in model.graph.node:
        wants_half = node.name in half
        for place, name in enumerate(node.input):
            if name not in floats or (name in made_half) == wants_half:
                continue
            other = f"{name}_{'fp16' if wants_half else 'fp32'}"
            if other not in cast:
                cast.add(other)
                if name in constants:
                    values = numpy_helper.to_array(constants[name]).astype(np.float16)
                    model.graph.initializer.append(numpy_helper.from_array(values, other))
                else:
                    to = TensorProto.FLOAT16 if wants_half else TensorProto.FLOAT
                    yield helper.make_node("Cast", [name], [other], name=f"cast_{other}", to=to)
            node.input[place] = other
        given = [name for name in node.output if name in outputs and name in floats and wants_half]
        for place, name in enumerate(node.output):
            if name in given:
                node.output[place] = f"{name}_half"
        if wants_half:
            made_half.update(name for name in node.output if name in floats)
        yield node
        for name in given:
            to = TensorProto.FLOAT
            yield helper.make_node("Cast", [f"{name}_half"], [name], name=f"cast_{name}", to=to)


def _floats(model: "onnx.ModelProto") -> set[str]:
    """Return the names of all fp32 tensors of a graph."""
    from onnx import TensorProto, shape_inference

    graph = shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    found = {one.name for one in values if one.type.tensor_type.elem_type == TensorProto.FLOAT}
    return found | {one.name for one in graph.initializer if one.data_type == TensorProto.FLOAT}
