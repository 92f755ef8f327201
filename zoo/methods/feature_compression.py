"""Models with an image codec over the features between two layers of a ResNet, not trained.

Section 3.1 of the SC2 paper (TMLR 2023), with a codec that is correct for constant and negative
planes too.
"""

import re

from ..backbones import BACKBONES
from ..backbones.table import RESNET_CUTS
from ..bottleneck_specs import FeatureCodecBottleneck
from ..models import PATTERNS
from ..spec import ModelSpec
from .tasks import CLASSIFICATION, register


def make_spec(
    backbone: str, layer: str, codec: str, quality: int, *, reference: str = ""
) -> ModelSpec:
    """Return the spec of one model."""
    entry = BACKBONES.get(backbone)
    cut, channels, stride = RESNET_CUTS[layer]
    return ModelSpec(
        name=f"{backbone}-{layer}-{codec}-q{quality}",
        task=CLASSIFICATION.task,
        method="feature-compression",
        backbone=entry.timm_name,
        cut=cut,
        bottleneck=FeatureCodecBottleneck(
            channels=channels,
            stride=stride,
            codec=codec,  # pyright: ignore[reportArgumentType]  # pydantic checks it
            quality=quality,
        ),
        dataset=CLASSIFICATION.dataset,
        num_classes=CLASSIFICATION.num_classes,
        preprocessing=CLASSIFICATION.input_of(entry),
        reference=reference,
        base_model=entry.base_model,
    )


_NAME = re.compile(
    r"(?P<backbone>resnet(50|101|152))-(?P<layer>layer[1-4]|avgpool)"
    r"-(?P<codec>jpeg|webp)-q(?P<quality>0|[1-9][0-9]?|100)"
)


def read_name(name: str) -> ModelSpec | None:
    """Return the spec of a name of this family, for any quality."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
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

PATTERNS.append(read_name)
