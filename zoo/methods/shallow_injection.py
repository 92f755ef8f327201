"""Bottlenecks injected into a network that stays as it was: only g_a and g_s are trained.

Furutanpey et al. 2024, "FrankenSplit: Efficient Neural Feature Compression with Shallow Variational
Bottleneck Injection for Mobile Edge Computing" (https://arxiv.org/abs/2302.10681). The tail is the
published network's, stored once for all models on it. There the encoder takes the place of the
first layers; here it has them, up to stride 8, and g_a behind them:
:mod:`splitzoo.zoo.bottlenecks.residual`. A mobile network's first layers cost a board little, and
features that are the network's own need not be learned again.
"""

import re

from ..backbones.table import Backbone, find_backbone
from ..bottleneck_specs import (
    HEAD_STRIDE,
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

_WIDTH, _LATENT = 48, 96
_DECODER = (80, 56)
_HYPER_CHANNELS = 16
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
    stage = backbone.stage_of(HEAD_STRIDE)
    sizes = {
        "network": "residual",
        "layer": stage.layer,
        "stride": stage.stride,
        "encoder_channels": (stage.channels, _WIDTH, _LATENT),
        "decoder_channels": (*_DECODER, stage.channels),
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
        cut=stage.layer,
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
