"""Entropic Student models, and the same networks trained end to end.

A light encoder trained to replace a backbone's first layers: Matsubara et al. 2022, "Supervised
Compression for Resource-Constrained Edge Computing Systems" (https://arxiv.org/abs/2108.11898).
End to end: Singh et al. 2020, "End-to-end Learning of Compressible Features"
(https://arxiv.org/abs/2007.11797). Sizes and β from the configurations of sc2-benchmark,
the code of "SC2 Benchmark: Supervised Compression for Split Computing" (TMLR 2023).
"""

import re
from typing import Literal

from ..backbones.table import BACKBONES, Backbone, find_backbone
from ..bottleneck_specs import FactorizedPriorBottleneck, HyperpriorBottleneck
from ..models import reads
from ..name_parts import BACKBONE, BETA, PREFIX, check_beta, check_choice
from ..spec import ModelSpec
from .tasks import CLASSIFICATION, DETECTION, SEGMENTATION, TaskFacts, register, task_of

Prior = Literal["fp", "shp", "mshp"]

KINDS: dict[str, Literal["scale-hyperprior", "mean-scale-hyperprior"]] = {
    "shp": "scale-hyperprior",
    "mshp": "mean-scale-hyperprior",
}
_WIDE = ("regnety6.4gf", "hybrid_vit_small_r26_s32_224")
"""Backbones for which the paper took an encoder of 64 channels throughout."""


def _bottleneck(
    backbone: Backbone, prior: Prior
) -> FactorizedPriorBottleneck | HyperpriorBottleneck:
    features = backbone.channels
    encoder = (64, 64, 64) if backbone.name in _WIDE else (96, 48, 24)
    decoder = (2 * features, features, features)
    if prior == "fp":
        return FactorizedPriorBottleneck(encoder_channels=encoder, decoder_channels=decoder)
    return HyperpriorBottleneck(
        kind=KINDS[prior], encoder_channels=encoder, decoder_channels=decoder
    )


def make_spec(
    backbone: Backbone,
    prior: Prior,
    beta: str = "",
    *,
    task: TaskFacts = CLASSIFICATION,
    end_to_end: bool = False,
    reference: str = "",
) -> ModelSpec:
    """Return the spec of one model; ``beta`` is spelled as in its name, and may be left out."""
    name = f"{task.prefix}splittable_{backbone.name}-{prior}"
    name += f"-beta{beta}" if beta else ""
    return task.spec(
        backbone,
        name=name + ("-e2e" if end_to_end else ""),
        method="end-to-end" if end_to_end else "entropic-student",
        cut=backbone.layer,
        bottleneck=_bottleneck(backbone, prior),
        beta=float(beta) if beta else None,
        reference=reference,
        base_model="" if end_to_end else backbone.base_model,
    )


@reads(
    rf"{PREFIX}splittable_{BACKBONE}-(?P<prior>(?!bq)[a-z]+)(-{BETA})?(?P<e2e>-e2e)?",
    "splittable_BACKBONE-{fp, shp, mshp}[-betaβ][-e2e]",
)
def _read(found: re.Match[str]) -> ModelSpec:
    prior = check_choice("prior", found["prior"], ("fp", *KINDS))
    beta = "" if found["beta"] is None else check_beta(found["beta"])
    return make_spec(
        find_backbone(found["backbone"]),
        prior,  # pyright: ignore[reportArgumentType]  # one of the three
        beta,
        task=task_of(found["prefix"]),
        end_to_end=bool(found["e2e"]),
    )


def _register_published(
    task: TaskFacts, backbone: str, prior: Prior, betas: str, *, end_to_end: bool = False
) -> None:
    for beta in betas.split():
        stem = f"{task.prefix}splittable_{backbone}-{prior}-beta{beta}"
        stem += "_fpn" if task is DETECTION else ""
        stem += "" if end_to_end else f"_from_{task.teacher(backbone)}"
        spec = make_spec(
            BACKBONES.get(backbone),
            prior,
            beta,
            task=task,
            end_to_end=end_to_end,
            reference=f"{task.folder}-{stem}",
        )
        # The configurations' file names spell it with one t.
        file = stem.replace("splittable", "splitable") if task is CLASSIFICATION else stem
        folder = "end-to-end" if end_to_end else "entropic_student"
        register(spec, f"{task.folder}/supervised_compression/{folder}/{file}")


_SEVEN = "0.08 0.16 0.32 0.64 1.28 2.56 5.12"
_NINE = "0.16 0.32 0.64 1.28 2.56 5.12 10.24 15.36 20.48"
_END_TO_END_BETAS = "1.28e-8 1.024e-7 2.048e-7 8.192e-7 3.2768e-6"

_register_published(CLASSIFICATION, "resnet50", "fp", _SEVEN)
_register_published(CLASSIFICATION, "resnet50", "mshp", "0.08 0.16 0.32 0.64 1.28 2.56 3.84")
_register_published(CLASSIFICATION, "resnet101", "fp", _SEVEN)
_register_published(CLASSIFICATION, "resnet101", "mshp", "0.08 0.16 0.32 0.64 1.28 2.56")
_register_published(CLASSIFICATION, "regnety6.4gf", "fp", f"{_SEVEN} 7.68")
_register_published(CLASSIFICATION, "regnety6.4gf", "mshp", "0.08 0.16 0.32 0.64 1.28 2.56 4.48")
for _prior in ("fp", "mshp"):
    _register_published(CLASSIFICATION, "hybrid_vit_small_r26_s32_224", _prior, _NINE)
_register_published(DETECTION, "resnet50", "fp", _SEVEN)
_register_published(SEGMENTATION, "resnet50", "fp", "0.16 0.32 0.64 1.28 2.56 5.12")
for _task in (CLASSIFICATION, DETECTION, SEGMENTATION):
    _register_published(_task, "resnet50", "fp", _END_TO_END_BETAS, end_to_end=True)

# Not in the paper, for comparison.
for _backbone in ("resnet50", "resnet101", "regnety6.4gf", "hybrid_vit_small_r26_s32_224"):
    register(make_spec(BACKBONES.get(_backbone), "shp", "0.16"))
for _task in (DETECTION, SEGMENTATION):
    for _prior in ("shp", "mshp"):
        register(make_spec(BACKBONES.get("resnet50"), _prior, "0.16", task=_task))
for _prior in ("fp", "shp", "mshp"):
    register(make_spec(BACKBONES.get("resnet101"), _prior, "0.16", task=SEGMENTATION))
