"""A model at a glance: its spec, what crosses the link, and what each side holds."""

from dataclasses import dataclass

from .bottleneck_specs import WireTensor
from .spec import ModelSpec


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
        device_parameters=sum(one.numel() for one in model.device_parameters()),
        edge_parameters=sum(one.numel() for one in model.edge_parameters()),
    )
