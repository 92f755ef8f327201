"""Models with an image codec over the features between two layers of a backbone, not trained.

Section 3.1 of the SC2 paper (TMLR 2023), with a codec that is correct for constant and negative
planes too.
"""

import re

from splitrun.coding.features import FEATURE_CODECS

from ..backbones.table import RESNET_CUTS, find_backbone, find_cut
from ..bottleneck_specs import FeatureCodecBottleneck
from ..models import reads
from ..name_parts import BACKBONE, CODEC, LAYER, PREFIX, QUALITY, check_choice, whole_number
from ..spec import ModelSpec
from .tasks import CLASSIFICATION, check_classifies, published_classes, register


def make_spec(
    backbone: str, layer: str, codec: str, quality: int, *, reference: str = ""
) -> ModelSpec:
    """Return the spec of one model."""
    entry = find_backbone(backbone)
    cut = find_cut(entry, layer)
    return CLASSIFICATION.spec(
        entry,
        name=f"{backbone}-{layer}-{codec}-q{quality}",
        method="feature-compression",
        cut=cut.layer,
        bottleneck=FeatureCodecBottleneck(
            codec=codec,  # pyright: ignore[reportArgumentType]  # pydantic checks it
            quality=quality,
            **cut.fields(),
        ),
        reference=reference,
        **published_classes(entry),
    )


@reads(
    f"{PREFIX}{BACKBONE}-{LAYER}-{CODEC}-{QUALITY}",
    f"BACKBONE-LAYER-{{{', '.join(FEATURE_CODECS)}}}-qN",
)
def _read(found: re.Match[str]) -> ModelSpec:
    check_classifies(found["prefix"])
    codec = check_choice("codec of features", found["codec"], FEATURE_CODECS)
    quality = whole_number(f"the quality of {codec}", found["quality"], 0, 100)
    return make_spec(found["backbone"], found["layer"], codec, quality)


for _codec in ("jpeg", "webp"):
    for _layer in RESNET_CUTS:
        # sc2-benchmark's configuration has layer2.
        _reference = f"ilsvrc2012/feature_compression/{_codec}-resnet50"
        register(
            make_spec(
                "resnet50", _layer, _codec, 90, reference=_reference if _layer == "layer2" else ""
            )
        )
