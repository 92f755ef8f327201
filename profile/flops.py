"""Count what the device computes: operations of the device graph, and of a context network.

One multiply-accumulate (MAC) is one multiplication and one addition, so 2 FLOPs. Additions of a
bias, each output element of an elementwise operation, and each element that a minimum, a maximum or
pooling looks at, are 1 FLOP. The graph is the one that is exported: GDN folded into a constant 1×1
convolution and a division. A context network runs in the coder, once for each position of y; its
matrix products are counted.
"""

import logging
import math
from collections import Counter
from typing import Any

import torch

from splitrun.coding.autoregressive import AutoregressiveCoder

from ..export.graphs import DeviceGraph
from ..zoo.deprecations import quiet_torchscript
from ..zoo.split_model import SplitModel
from .report import Compute, OperatorCount

with quiet_torchscript():
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import conv_flop_jit

_ELEMENTWISE = (
    *("abs", "add", "clamp", "div", "leaky_relu", "log", "mul", "relu", "round", "rsub", "sqrt"),
    "sub",
)
_REDUCTIONS = ("amax", "amin")
_POOLINGS = ("avg_pool2d", "max_pool2d")
_CONVOLUTION = "convolution"
_CONTEXT = "context network"


def count_flops(model: SplitModel) -> Compute:
    """Count the operations of a model's device on one image of its input shape.

    Operators without a rule are listed under ``uncounted``, with how often they occur.
    """
    shape = (1, *model.spec.input_shape)
    level = logging.getLogger("fvcore").level
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    try:
        with quiet_torchscript():
            analysis = FlopCountAnalysis(DeviceGraph(model).eval(), torch.zeros(shape))
            analysis.set_op_handle("aten::_convolution", _convolution)
            for name in _ELEMENTWISE:
                for spelling in (name, f"{name}_"):
                    analysis.set_op_handle(f"aten::{spelling}", _elementwise(name))
            for name in _POOLINGS:
                analysis.set_op_handle(f"aten::{name}", _pooling(name))
            for name in _REDUCTIONS:
                analysis.set_op_handle(f"aten::{name}", _reduction(name))
            analysis.set_op_handle("aten::to", None)  # a change of type computes nothing
            counts = analysis.by_operator()
            uncounted = dict(analysis.unsupported_ops())
    finally:
        logging.getLogger("fvcore").setLevel(level)
    coder = model.codec.coder
    if isinstance(coder, AutoregressiveCoder):
        counts[_CONTEXT] = coder.network.macs(*model.spec.latent_shape[1:])
    operators = [
        OperatorCount(
            operator=name,
            macs=int(count) if name in (_CONVOLUTION, _CONTEXT) else 0,
            flops=int(count) * (2 if name in (_CONVOLUTION, _CONTEXT) else 1),
        )
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return Compute(
        input_shape=shape,
        macs=sum(operator.macs for operator in operators),
        flops=sum(operator.flops for operator in operators),
        operators=operators,
        uncounted=uncounted,
    )


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count MACs, and the additions of a bias apart."""
    counted: Counter[str] = Counter({_CONVOLUTION: sum(conv_flop_jit(inputs, outputs).values())})
    if inputs[2].isCompleteTensor():
        counted["bias"] = math.prod(outputs[0].type().sizes())
    return counted


def _elementwise(name: str):
    def count(_inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        return Counter({name: math.prod(outputs[0].type().sizes())})

    return count


def _pooling(name: str):
    def count(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        window = math.prod(side.toIValue() for side in inputs[1].node().inputs())
        return Counter({name: window * math.prod(outputs[0].type().sizes())})

    return count


def _reduction(name: str):
    def count(inputs: list[Any], _outputs: list[Any]) -> Counter[str]:
        return Counter({name: math.prod(inputs[0].type().sizes())})

    return count
