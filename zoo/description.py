"""Describe a model at a glance: its spec, what is sent, and what each side holds."""

from dataclasses import dataclass

from .bottleneck_specs import WireTensor
from .spec import ModelSpec


@dataclass(frozen=True)
class Description:
    """A model at a glance.

    Attributes:
        spec: The model's spec.
        wire: Tensors that the device graph gives for one image.
        device_parameters: Number of learned parameters on the device.
        edge_parameters: Number of learned parameters on the edge; a hyper-decoder counts on both
            sides.
    """

    spec: ModelSpec
    wire: tuple[WireTensor, ...]
    device_parameters: int
    edge_parameters: int


def describe(spec: ModelSpec) -> Description:
    """Build a model, and count; torch's global random state is left as it was.

    Raises:
        SpecError: Nothing can be built from this spec.
    """
    from .parts import build_model, building, check_fit

    with building(spec):
        model = build_model(spec).eval()
        check_fit(model)
    return Description(
        spec=spec,
        wire=spec.wire,
        device_parameters=sum(parameter.numel() for parameter in model.device_parameters()),
        edge_parameters=sum(parameter.numel() for parameter in model.edge_parameters()),
    )
