"""CR + BQ models: an encoder of few output channels, quantised to 8 bits after training.

Matsubara and Levorato 2020, "Neural Compression and Filtering for Edge-assisted Real-time Object
Detection in Challenged Networks" (https://arxiv.org/abs/2007.15818); generalised head network
distillation (GHND). The published models are those of sc2bench 0.0.3 (24 layers, the encoder is the
first 12); version 0.1.1 has another network under the same name, here with ``_v0.1.1``.
"""

import re

from ..backbones.table import BACKBONES, Backbone, find_backbone
from ..bottleneck_specs import ChannelReductionBottleneck
from ..models import reads
from ..name_parts import BACKBONE, PREFIX, whole_number
from ..spec import ModelSpec
from .tasks import CLASSIFICATION, DETECTION, SEGMENTATION, TaskFacts, register, task_of

_FEATURES = 256
"""Channels of a ResNet's layer1."""
_OLD, _NEW = "resnet-24", "resnet-20"
_NETWORKS = {
    "resnet50": _NEW,
    "resnet101": _NEW,
    "resnet152": _NEW,
    "densenet169": "densenet",
    "densenet201": "densenet",
    "inception_v3": "inception",
}
"""Networks of version 0.1.1, by backbone."""
_NEW_SUFFIX = "_v0.1.1"
_MOST_CHANNELS = 999


def make_spec(
    backbone: Backbone,
    channels: int,
    *,
    task: TaskFacts = CLASSIFICATION,
    published: bool = True,
    reference: str = "",
) -> ModelSpec:
    """Return the spec of one model.

    Args:
        backbone: Backbone with features of stride 4; one of ``_NETWORKS`` unless ``published``.
        channels: Channels of the latent.
        task: Task of the model.
        published: Choice between the network of sc2bench 0.0.3, made for ResNets (for others, its
            last layer gives as many channels as they take), and that of 0.1.1.
        reference: Name in sc2-benchmark.
    """
    cut = backbone.layer if published else backbone.reduction_layer
    suffix = "" if published else _NEW_SUFFIX
    return task.spec(
        backbone,
        name=f"{task.prefix}splittable_{backbone.name}-bq{channels}ch{suffix}",
        method="channel-reduction",
        cut=cut,
        bottleneck=ChannelReductionBottleneck(
            network=_OLD if published else _NETWORKS[backbone.name],  # pyright: ignore[reportArgumentType]
            channels=channels,
            features=backbone.channels if published and backbone.channels != _FEATURES else None,
        ),
        reference=reference,
    )


@reads(
    rf"{PREFIX}splittable_{BACKBONE}-bq(?P<channels>.*?)ch(?P<version>_.*)?",
    f"splittable_BACKBONE-bqNch[{_NEW_SUFFIX}]",
)
def _read(found: re.Match[str]) -> ModelSpec:
    channels = whole_number("the number of channels", found["channels"], 1, _MOST_CHANNELS)
    if found["version"] not in (None, _NEW_SUFFIX):
        raise ValueError(f"the ending is {_NEW_SUFFIX} or none, not {found['version']}")
    return make_spec(
        find_backbone(found["backbone"]),
        channels,
        task=task_of(found["prefix"]),
        published=not found["version"],
    )


for _task in (CLASSIFICATION, DETECTION, SEGMENTATION):
    for _channels in (1, 2, 3, 6, 9, 12):
        _teacher = _task.teacher("resnet50")
        _fpn = "_fpn" if _task is DETECTION else ""
        _stem = f"{_task.prefix}resnet50-bq{_channels}ch{_fpn}_from_{_teacher}"
        register(
            make_spec(
                BACKBONES.get("resnet50"),
                _channels,
                task=_task,
                reference=f"{_task.folder}-{_stem}",
            ),
            f"{_task.folder}/supervised_compression/ghnd-bq/{_stem}",
        )
for _name in _NETWORKS:
    register(make_spec(BACKBONES.get(_name), 12, published=False))
register(make_spec(BACKBONES.get("resnet101"), 12, task=SEGMENTATION))
