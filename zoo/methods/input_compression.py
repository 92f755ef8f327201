"""Models with a codec in front of a whole network: the image itself is sent.

The baselines of the SC2 paper (TMLR 2023): image codecs, and the learned codecs of CompressAI
(https://arxiv.org/abs/2011.03029); AVIF and HEIC beside them, as today's codecs.
"""

import re

from splitrun.preprocessing import Preprocessing

from ..backbones.table import BACKBONES, Backbone, find_backbone
from ..bottleneck_specs import HIGHEST_QUALITY, InputCodecBottleneck, NeuralCodecBottleneck
from ..models import reads
from ..name_parts import BACKBONE, CODEC, PREFIX, QUALITY, check_choice, whole_number
from ..spec import ModelSpec
from .tasks import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    TaskFacts,
    published_classes,
    register,
    task_of,
)

ARCHITECTURES = {
    "factorized_prior": "bmshj2018-factorized",
    "scale_hyperprior": "bmshj2018-hyperprior",
    "mean_scale_hyperprior": "mbt2018-mean",
    "joint_autoregressive_hierarchical_prior": "mbt2018",
}
"""sc2-benchmark's names of CompressAI's learned codecs."""

LOSSLESS = "png"
CODECS = ("jpeg", "webp", "avif", "heic", "bpg", "vtm")


def make_spec(
    backbone: Backbone,
    codec: str,
    quality: int,
    *,
    task: TaskFacts = CLASSIFICATION,
    reference: str = "",
) -> ModelSpec:
    """Return the spec of one model.

    Args:
        backbone: Backbone on the edge.
        codec: ``LOSSLESS``, or one of ``CODECS`` or ``ARCHITECTURES``.
        quality: Quality in the codec's own units.
        task: Task of the model.
        reference: Name in sc2-benchmark.

    Raises:
        SpecError: The backbone's published weights classify nothing.
    """
    classes = published_classes(backbone) if task is CLASSIFICATION else {}
    whole = task.input_of(backbone)
    neural = codec in ARCHITECTURES
    # The learned codecs see the resized image before it is cropped, as in sc2-benchmark.
    uncropped = neural and task is CLASSIFICATION
    edge = {"mean": whole.mean, "std": whole.std, "crop": whole.crop if uncropped else None}
    if neural:
        bottleneck = NeuralCodecBottleneck(
            architecture=ARCHITECTURES[codec],  # pyright: ignore[reportArgumentType]
            quality=quality,
            **edge,
        )
    else:
        bottleneck = InputCodecBottleneck(codec=codec, quality=quality, **edge)  # pyright: ignore[reportArgumentType]
    side = (whole.resize, whole.resize)
    return task.spec(
        backbone,
        name=f"{task.prefix}{backbone.name}-{codec}" + f"-q{quality}" * (codec != LOSSLESS),
        method="input-compression",
        cut=None,
        bottleneck=bottleneck,
        preprocessing=Preprocessing(
            resize=whole.resize,
            crop=side if uncropped else whole.crop,
            interpolation=whole.interpolation,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            fit=whole.fit,
            longest=whole.longest,
            # Zero once it is normalised.
            padding=whole.mean if whole.fit == "pad" else (0.0, 0.0, 0.0),
        ),
        reference=reference,
        **classes,
    )


@reads(
    f"{PREFIX}{BACKBONE}-({CODEC}-{QUALITY}|{LOSSLESS})",
    f"BACKBONE-{{{', '.join((*CODECS, *ARCHITECTURES))}}}-qN; BACKBONE-{LOSSLESS}",
)
def _read(found: re.Match[str]) -> ModelSpec:
    codec, quality = found["codec"] or LOSSLESS, 100
    if found["codec"] == LOSSLESS:
        raise ValueError(f"{LOSSLESS} loses nothing and has no quality: leave -q… out")
    if codec != LOSSLESS:
        check_choice("codec", codec, (*CODECS, *ARCHITECTURES))
        lowest, highest = (1, 8) if codec in ARCHITECTURES else (0, HIGHEST_QUALITY.get(codec, 100))
        what = f"the quality of {codec}"
        quality = whole_number(what, found["quality"], lowest, highest)
    backbone = find_backbone(found["backbone"])
    return make_spec(backbone, codec, quality, task=task_of(found["prefix"]))


def _register_published(task: TaskFacts, backbone: str, codecs: str) -> None:
    for word in codecs.split():
        codec, _, quality = word.partition(":")
        stem = f"{codec}-{task.teacher(backbone)}"
        reference = f"{task.folder}/input_compression/{stem}"
        spec = make_spec(
            BACKBONES.get(backbone), codec, int(quality), task=task, reference=reference
        )
        register(spec, stem, f"{task.folder}-{stem}")


_IMAGE = "jpeg:90 webp:90"
_NEURAL = "factorized_prior:8 scale_hyperprior:8 mean_scale_hyperprior:8"
_JOINT = "joint_autoregressive_hierarchical_prior:8"
_register_published(CLASSIFICATION, "resnet50", f"{_IMAGE} bpg:50 vtm:63 {_NEURAL} {_JOINT}")
for _backbone in ("resnet101", "resnet152"):
    _register_published(CLASSIFICATION, _backbone, f"{_IMAGE} bpg:50")
for _backbone in ("tf_efficientnet_l2_ns", "tf_efficientnet_l2_ns_475"):
    _register_published(CLASSIFICATION, _backbone, f"jpeg:90 {_NEURAL}")
_register_published(DETECTION, "resnet50", f"{_IMAGE} bpg:50 {_NEURAL} {_JOINT}")
for _backbone in ("resnet50", "resnet101"):
    _register_published(SEGMENTATION, _backbone, f"{_IMAGE} bpg:50 {_NEURAL} {_JOINT}")

# The whole network on the edge, and the image as it is: what the others are compared with, and
# learn from.
for _task, _backbones in (
    (CLASSIFICATION, ("resnet50", "resnet101", "regnety6.4gf", "hybrid_vit_small_r26_s32_224")),
    (DETECTION, ("resnet50",)),
    (SEGMENTATION, ("resnet50", "resnet101")),
):
    for _backbone in _backbones:
        register(make_spec(BACKBONES.get(_backbone), LOSSLESS, 100, task=_task))

# Not in the paper, for comparison.
for _codec in ("avif", "heic"):
    register(make_spec(BACKBONES.get("resnet50"), _codec, 50))
