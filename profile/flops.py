"""Count what each half of a model computes for one image; see :mod:`.operators` for how.

The graphs are those that are exported: GDN folded into a constant 1×1 convolution and a division.
A hyper-decoder in integers runs in the coder, on both sides, and so does a context network, once
for each position of y: their products are counted. The edge of a detector classifies as many boxes
as its second stage takes at most.
"""

import torch
from torch import nn

from splitrun.coding.autoregressive import AutoregressiveCoder
from splitrun.coding.integer_hyperprior import IntegerCoder

from ..export.graphs import BoxesGraph, DeviceGraph, EdgeGraph, HyperGraph
from ..zoo.split_model import SplitModel
from ..zoo.tasks.detection import DetectionTail
from .operators import OperatorCounter, counting
from .report import Compute, OperatorCount

_CONTEXT = "context network"
_HYPER = "hyper-decoder in integers"


def count_flops(model: SplitModel) -> Compute:
    """Count the operations of a model's device on one image of its input shape."""
    device, image = _graph(DeviceGraph(model)), torch.zeros(1, *model.spec.input_shape)
    with counting() as counter:
        device(image)
    return _compute(model, counter)


def count_edge_flops(model: SplitModel) -> Compute:
    """Count the operations of a model's edge on one image of its input shape."""
    bottleneck, tail = model.bottleneck, getattr(model.decoder, "tail", None)
    proposals = tail.settings()["proposals"] if isinstance(tail, DetectionTail) else 0
    hyper = _graph(HyperGraph(model)) if bottleneck.hyper_outputs else None
    edge = _graph(EdgeGraph(model))
    boxes = _graph(BoxesGraph(model)) if proposals else None
    with torch.no_grad():
        wire = _graph(DeviceGraph(model))(torch.zeros(1, *model.spec.input_shape))
    named = dict(zip(bottleneck.wire_names, wire, strict=True))
    with counting() as counter:
        if hyper:
            named |= zip(bottleneck.hyper_outputs, hyper(named["hyper_symbols"]), strict=True)
        # What the coder itself makes of the main tensor has its shape.
        outputs = edge(*(named.get(name, wire[0]) for name in bottleneck.edge_inputs))
        if boxes:
            levels = [output for output in outputs if output.ndim == 4]
            boxes(*levels, torch.zeros(proposals, 4), torch.zeros(proposals, dtype=torch.int32))
    return _compute(model, counter)


def _graph(module: nn.Module) -> nn.Module:
    return module.cpu().eval().requires_grad_(False)


def _compute(model: SplitModel, counter: OperatorCounter) -> Compute:
    macs, flops = counter.macs, counter.flops
    coder = model.codec.coder
    if isinstance(coder, IntegerCoder):
        macs[_HYPER] = coder.synthesis.macs(*model.codec.shape)
        coder = coder.inner
    if isinstance(coder, AutoregressiveCoder):
        macs[_CONTEXT] = coder.network.macs(*model.spec.latent_shape[1:])
    flops.update({name: 2 * macs[name] for name in (_CONTEXT, _HYPER) if macs[name]})
    names = sorted(+flops, key=lambda name: -flops[name])
    return Compute(
        input_shape=(1, *model.spec.input_shape),
        macs=macs.total(),
        flops=flops.total(),
        complete=not counter.uncounted,
        operators=[OperatorCount(operator=n, macs=macs[n], flops=flops[n]) for n in names],
        uncounted=dict(counter.uncounted),
    )
