"""Weights alone below fp32: a smaller file, whose graph computes in fp32."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splitrun.errors import BundleError

from .node_roles import is_convolution, read_named

_FEWEST = 256
"""Values that a tensor of weights must have to be worth it."""


def lower_weights(source: Path, target: Path, stored: Literal["fp16", "int8"]) -> None:
    """Write an fp32 ONNX graph again with the weights of its convolutions stored in less.

    They are cast to fp32 again inside the graph, which engines do once, when they load the file.
    In int8, each output channel has a scale and no zero point.

    Raises:
        BundleError: The graph has no weights.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = read_named(source)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    casts = []
    lowered: set[str] = set()
    for node in model.graph.node:
        name = node.input[1] if is_convolution(node) else ""
        if name in lowered or name not in constants:
            continue
        values = numpy_helper.to_array(constants[name])
        if values.dtype != np.float32 or values.size < _FEWEST:
            continue
        lowered.add(name)
        fp32 = {"name": f"cast_{name}", "to": TensorProto.FLOAT}
        if stored == "fp16":
            kept = values.astype(np.float16)
            casts.append(helper.make_node("Cast", [f"{name}_{stored}"], [name], **fp32))
        else:
            kept, scales = _to_int8(values, _output_axis(node))
            model.graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
            whole = f"{name}_whole"
            casts.append(helper.make_node("Cast", [f"{name}_{stored}"], [whole], **fp32))
            scaled = [whole, f"{name}_scale"]
            casts.append(helper.make_node("Mul", scaled, [name], name=f"scale_{name}"))
        constants[name].CopyFrom(numpy_helper.from_array(kept, f"{name}_{stored}"))
    if not lowered:
        raise BundleError(
            "The graph has no weights to store in less.", next_step="Export it in fp32."
        )
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)


def _to_int8(
    values: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return values in int8, and the scale of each channel along an axis, to multiply them by."""
    others = tuple(place for place in range(values.ndim) if place != axis % values.ndim)
    largest = np.abs(values).max(axis=others, keepdims=True)
    scales = (np.where(largest > 0, largest, 1) / 127).astype(np.float32)
    return np.rint(values / scales).astype(np.int8), scales


def _output_axis(node: object) -> int:
    """Return the axis of a convolution's weights that counts its output channels."""
    kind = getattr(node, "op_type", "")
    if kind == "Gemm":
        transposed = any(one.name == "transB" and one.i for one in getattr(node, "attribute", ()))
        return 0 if transposed else 1
    return {"Conv": 0, "ConvTranspose": 1}.get(kind, -1)
