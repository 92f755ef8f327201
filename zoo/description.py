"""A model at a glance: its spec, what crosses the link, and what each side holds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .bottleneck_specs import WireTensor
from .spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Description:
    """A model at a glance.

    Attributes:
        spec: What it is.
        wire: What the device graph gives for one image.
        device_parameters: Learned parameters on the device.
        edge_parameters: Learned parameters on the edge; a hyper-decoder counts on both sides.
    """

    spec: ModelSpec
    wire: tuple[WireTensor, ...]
    device_parameters: int
    edge_parameters: int


def describe(spec: ModelSpec) -> Description:
    """Build a model, and count.

    Raises:
        SpecError: Nothing can be built from this spec.
    """
    from .catalog import building
    from .parts import build_model

    with building(spec):
        model = build_model(spec)
    coder = model.coder
    shared = sum(map(_count, (coder.get_submodule(name) for name in coder.on_device)))
    on_edge = sum(map(_count, (coder.get_submodule(name) for name in coder.on_edge)))
    return Description(
        spec=spec,
        wire=spec.wire,
        device_parameters=_count(model.encoder) + shared,
        edge_parameters=_count(model.decoder) + on_edge,
    )


def _count(module: "nn.Module") -> int:
    return sum(parameter.numel() for parameter in module.parameters())
