"""Bottlenecks injected into a network that stays as it was: only encoder and g_s are trained.

Furutanpey et al. 2024, "FrankenSplit: Efficient Neural Feature Compression with Shallow Variational
Bottleneck Injection for Mobile Edge Computing" (https://arxiv.org/abs/2302.10681). The tail is the
published network's, stored once for all models on it. Layers and sizes here are
:mod:`splitzoo.zoo.bottlenecks.residual`'s.
"""

import re

from ..backbones.table import Backbone, find_backbone
from ..bottleneck_specs import FactorizedPriorBottleneck, HyperpriorBottleneck
from ..models import reads
from ..name_parts import BACKBONE, BETA, PREFIX, check_beta, check_choice
from ..spec import ModelSpec
from .entropic_student import KINDS
from .tasks import CLASSIFICATION, TaskFacts, task_of

_ENCODER = (48, 56, 32)
_DECODER = (80, 40)
_HYPER_CHANNELS = 12


def make_spec(
    backbone: Backbone, prior: str, beta: str = "", *, task: TaskFacts = CLASSIFICATION
) -> ModelSpec:
    """Return the spec of one model; ``beta`` is spelled as in its name, and may be left out."""
    sizes = {
        "network": "residual",
        "encoder_channels": _ENCODER,
        "decoder_channels": (*_DECODER, backbone.channels),
    }
    if prior == "fp":
        bottleneck = FactorizedPriorBottleneck.model_validate(sizes)
    else:
        hyper = {"kind": KINDS[prior], "hyper_channels": _HYPER_CHANNELS}
        bottleneck = HyperpriorBottleneck.model_validate(sizes | hyper)
    return task.spec(
        backbone,
        name=f"{task.prefix}svbi_{backbone.name}-{prior}" + (f"-beta{beta}" if beta else ""),
        method="shallow-injection",
        cut=backbone.layer,
        bottleneck=bottleneck,
        beta=float(beta) if beta else None,
    )


@reads(
    rf"{PREFIX}svbi_{BACKBONE}-(?P<prior>[a-z]+)(-{BETA})?", "svbi_BACKBONE-{fp, shp, mshp}[-betaβ]"
)
def _read(found: re.Match[str]) -> ModelSpec:
    prior = check_choice("prior", found["prior"], ("fp", *KINDS))
    beta = "" if found["beta"] is None else check_beta(found["beta"])
    return make_spec(find_backbone(found["backbone"]), prior, beta, task=task_of(found["prefix"]))
