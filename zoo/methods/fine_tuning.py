"""Models with an entropy bottleneck between two layers of a backbone, fine-tuned as a whole.

Section 3.3 of the SC2 paper (TMLR 2023): where to place the bottleneck in a ResNet-50.
"""

import re

from ..backbones.table import find_backbone, find_cut
from ..bottleneck_specs import LayerBottleneck
from ..models import reads
from ..name_parts import BACKBONE, BETA, LAYER, PREFIX, check_beta
from ..spec import ModelSpec
from .tasks import CLASSIFICATION, check_classifies, register

_BETAS = {
    "layer1": "1.0e-15 5.0e-11 8.0e-10 1.28e-8 1.024e-7 8.192e-7 6.5536e-6 1.0e-5 1.0e-4",
    "layer2": "1.0e-15 1.0e-10 1.0e-8 1.0e-6 1.0e-5 1.0e-4",
    "layer3": "1.0e-15 1.0e-10 1.0e-8 1.0e-6 1.0e-5 5.0e-5 1.0e-4",
    "layer4": "1.0e-15 1.0e-10 1.0e-8 1.0e-6 1.0e-5 5.0e-5 1.0e-4 5.0e-4 1.0e-3",
    "avgpool": "1.0e-15 1.0e-10 8.0e-10 6.5536e-6 1.0e-4 1.0e-2 1.0e-1",
}


def make_spec(backbone: str, layer: str, beta: str, *, reference: str = "") -> ModelSpec:
    """Return the spec of one model.

    Args:
        backbone: Name of the backbone.
        layer: Layer to cut after, by timm's name.
        beta: β, spelled as in the name.
        reference: Name in sc2-benchmark.
    """
    entry = find_backbone(backbone)
    cut = find_cut(entry, layer)
    return CLASSIFICATION.spec(
        entry,
        name=f"{backbone}-eb_after_{layer}-beta{beta}",
        method="fine-tuning",
        cut=cut.layer,
        bottleneck=LayerBottleneck(**cut.fields()),
        beta=float(beta),
        reference=reference,
    )


@reads(f"{PREFIX}{BACKBONE}-eb_after_{LAYER}-{BETA}", "BACKBONE-eb_after_LAYER-betaβ")
def _read(found: re.Match[str]) -> ModelSpec:
    check_classifies(found["prefix"])
    return make_spec(found["backbone"], found["layer"], check_beta(found["beta"]))


for _layer, _betas in _BETAS.items():
    for _beta in _betas.split():
        _stem = f"resnet50-eb_after_{_layer}-beta{_beta}"
        register(
            make_spec("resnet50", _layer, _beta, reference=f"ilsvrc2012-{_stem}"),
            f"ilsvrc2012/supervised_compression/fine-tuning/{_stem}",
        )
