"""Models with an entropy bottleneck between two layers of a backbone, fine-tuned as a whole.

Section 3.3 of the SC2 paper (TMLR 2023): where to place the bottleneck in a ResNet-50.
"""

import re

from ..backbones.table import RESNET_CUTS, find_backbone, stage_cuts
from ..bottleneck_specs import LayerBottleneck
from ..models import BACKBONE, BETA, reads
from ..spec import ModelSpec
from .tasks import CLASSIFICATION, register

_BETAS = {
    "layer1": "1.0e-15 5.0e-11 8.0e-10 1.28e-8 1.024e-7 8.192e-7 6.5536e-6 1.0e-5 1.0e-4",
    "layer2": "1.0e-15 1.0e-10 1.0e-8 1.0e-6 1.0e-5 1.0e-4",
    "layer3": "1.0e-15 1.0e-10 1.0e-8 1.0e-6 1.0e-5 5.0e-5 1.0e-4",
    "layer4": "1.0e-15 1.0e-10 1.0e-8 1.0e-6 1.0e-5 5.0e-5 1.0e-4 5.0e-4 1.0e-3",
    "avgpool": "1.0e-15 1.0e-10 8.0e-10 6.5536e-6 1.0e-4 1.0e-2 1.0e-1",
}


def make_spec(backbone: str, layer: str, beta: str, *, reference: str = "") -> ModelSpec | None:
    """Return the spec of one model, None where the backbone has no such layer.

    Args:
        backbone: Name of the backbone.
        layer: Layer that ends one of its stages, by torchvision's name in ResNet-50, -101 and
            -152, by timm's in others.
        beta: β, spelled as in the name.
        reference: Name in sc2-benchmark.
    """
    entry = find_backbone(backbone)
    cuts = RESNET_CUTS if re.fullmatch("resnet(50|101|152)", backbone) else stage_cuts(entry)
    if layer not in cuts:
        return None
    cut, channels, stride = cuts[layer]
    return CLASSIFICATION.spec(
        entry,
        name=f"{backbone}-eb_after_{layer}-beta{beta}",
        method="fine-tuning",
        cut=cut,
        bottleneck=LayerBottleneck(channels=channels, stride=stride),
        beta=float(beta),
        reference=reference,
    )


@reads(f"{BACKBONE}-eb_after_(?P<layer>[A-Za-z][A-Za-z0-9_.]*)-beta{BETA}")
def _read(found: re.Match[str]) -> ModelSpec | None:
    return make_spec(found["backbone"], found["layer"], found["beta"])


for _layer, _betas in _BETAS.items():
    for _beta in _betas.split():
        _stem = f"resnet50-eb_after_{_layer}-beta{_beta}"
        _spec = make_spec("resnet50", _layer, _beta, reference=f"ilsvrc2012-{_stem}")
        if _spec is not None:
            register(_spec, f"ilsvrc2012/supervised_compression/fine-tuning/{_stem}")
