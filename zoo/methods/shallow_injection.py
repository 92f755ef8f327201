"""Bottlenecks injected into a network that stays as it was: only encoder and g_s are trained.

Furutanpey et al. 2024, "FrankenSplit: Efficient Neural Feature Compression with Shallow Variational
Bottleneck Injection for Mobile Edge Computing" (https://arxiv.org/abs/2302.10681). The tail is the
published network's, stored once for all models on it. Layers and sizes here are
:mod:`splitzoo.zoo.bottlenecks.residual`'s.
"""

import re

from ..backbones.table import Backbone, find_backbone
from ..bottleneck_specs import (
    FactorizedPriorBottleneck,
    HyperpriorBottleneck,
    VariableRateBottleneck,
)
from ..models import reads
from ..name_parts import BACKBONE, BETA, PREFIX, check_beta, check_choice
from ..spec import ModelSpec
from .entropic_student import KINDS
from .tasks import CLASSIFICATION, TaskFacts, task_of

VARIABLE = "variable"
"""Stands in the place of β in names of models whose rate is chosen when they encode."""

_ENCODER = (48, 56, 32)
_DECODER = (80, 40)
_HYPER_CHANNELS = 12
_BETAS = (0.1, 0.16, 0.25, 0.4, 0.64, 1.0, 1.6, 2.5)
_BETA = 0.4
"""The levels' β, and that of the level which is taken where nobody chooses another."""


def make_spec(
    backbone: Backbone, prior: str, beta: str = "", *, task: TaskFacts = CLASSIFICATION
) -> ModelSpec:
    """Return the spec of one model.

    Args:
        backbone: Backbone that the bottleneck is injected into.
        prior: Prior, as in the name.
        beta: β as in the name, which may be left out; or ``variable``.
        task: Task of the model.
    """
    sizes = {
        "network": "residual",
        "encoder_channels": _ENCODER,
        "decoder_channels": (*_DECODER, backbone.channels),
    }
    if prior == "fp" and beta == VARIABLE:
        levels = {"betas": _BETAS, "beta": _BETA}
        bottleneck = VariableRateBottleneck.model_validate(sizes | levels)
    elif prior == "fp":
        bottleneck = FactorizedPriorBottleneck.model_validate(sizes)
    else:
        hyper = {"kind": KINDS[prior], "hyper_channels": _HYPER_CHANNELS}
        bottleneck = HyperpriorBottleneck.model_validate(sizes | hyper)
    return task.spec(
        backbone,
        name=f"{task.prefix}svbi_{backbone.name}-{prior}{_strength(beta)}",
        method="shallow-injection",
        cut=backbone.layer,
        bottleneck=bottleneck,
        beta=float(beta) if beta not in ("", VARIABLE) else None,
    )


def _strength(beta: str) -> str:
    return f"-{beta}" if beta == VARIABLE else f"-beta{beta}" if beta else ""


@reads(
    rf"{PREFIX}svbi_{BACKBONE}-(?P<prior>[a-z]+)(-{BETA}|-(?P<variable>{VARIABLE}))?",
    f"svbi_BACKBONE-{{fp, shp, mshp}}[-betaβ], svbi_BACKBONE-fp-{VARIABLE}",
)
def _read(found: re.Match[str]) -> ModelSpec:
    prior = check_choice("prior", found["prior"], ("fp", *KINDS))
    if found["variable"]:
        check_choice("prior of variable rate", prior, ("fp",))
    beta = found["variable"] or ("" if found["beta"] is None else check_beta(found["beta"]))
    return make_spec(find_backbone(found["backbone"]), prior, beta, task=task_of(found["prefix"]))
