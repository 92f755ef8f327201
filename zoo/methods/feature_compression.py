"""Models with an image codec over the features between two layers of a ResNet, not trained.

Section 3.1 of the SC2 paper (TMLR 2023), with a codec that is correct for constant and negative
planes too.
"""

import re

from ..backbones.table import BACKBONES, RESNET_CUTS
from ..bottleneck_specs import FeatureCodecBottleneck
from ..models import QUALITY, reads
from ..spec import ModelSpec
from .tasks import CLASSIFICATION, register


def make_spec(
    backbone: str, layer: str, codec: str, quality: int, *, reference: str = ""
) -> ModelSpec:
    """Return the spec of one model."""
    entry = BACKBONES.get(backbone)
    cut, channels, stride = RESNET_CUTS[layer]
    return CLASSIFICATION.spec(
        entry,
        name=f"{backbone}-{layer}-{codec}-q{quality}",
        method="feature-compression",
        cut=cut,
        bottleneck=FeatureCodecBottleneck(
            channels=channels,
            stride=stride,
            codec=codec,  # pyright: ignore[reportArgumentType]  # pydantic checks it
            quality=quality,
        ),
        reference=reference,
    )


@reads(
    r"(?P<backbone>resnet(50|101|152))-(?P<layer>layer[1-4]|avgpool)"
    rf"-(?P<codec>jpeg|webp)-q{QUALITY}"
)
def _read(found: re.Match[str]) -> ModelSpec:
    return make_spec(found["backbone"], found["layer"], found["codec"], int(found["quality"]))


for _codec in ("jpeg", "webp"):
    for _layer in RESNET_CUTS:
        # sc2-benchmark's configuration has layer2.
        _reference = f"ilsvrc2012/feature_compression/{_codec}-resnet50"
        register(
            make_spec(
                "resnet50", _layer, _codec, 90, reference=_reference if _layer == "layer2" else ""
            )
        )
