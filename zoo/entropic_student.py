"""Entropic Student: a light encoder trained to replace a backbone's first layers.

Matsubara et al. 2022, "Supervised Compression for Resource-Constrained Edge Computing Systems"
(https://arxiv.org/abs/2108.11898). Sizes, β and training from the configurations of sc2-benchmark,
the code of "SC2 Benchmark: Supervised Compression for Split Computing" (TMLR 2023).
"""

from typing import TYPE_CHECKING

from .models import MODELS, ModelEntry
from .preprocessing import Preprocessing
from .spec import FactorizedPriorBottleneck, ModelSpec, TrainingStage

if TYPE_CHECKING:
    from .split_model import SplitModel

IMAGENET = Preprocessing(
    resize=256,
    crop=(224, 224),
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

TWO_STAGES = (
    TrainingStage(
        loss="squared error to the teacher's layer1 to layer4, summed, + β · bits",
        epochs=10,
        batch_size=64,
        optimizer="Adam",
        learning_rate=1e-3,
        milestones=(5, 8),
        frozen=("layer2", "layer3", "layer4"),
    ),
    TrainingStage(
        loss="knowledge distillation, temperature 1, half from the teacher",
        epochs=10,
        batch_size=128,
        optimizer="SGD, momentum 0.9, weight decay 5e-4",
        learning_rate=1e-3,
        milestones=(5,),
        frozen=("encoder", "coder"),
    ),
)

BETAS = ("0.08", "0.16", "0.32", "0.64", "1.28", "2.56", "5.12")


def build(spec: ModelSpec) -> "SplitModel":
    """Build a ResNet whose first layers are an encoder, a factorized prior and a decoder.

    The weights are what torch's random generator gives.
    """
    from torch import nn

    from .backbones import ResNetTail
    from .factorized_prior import FactorizedPrior, analysis, synthesis
    from .split_model import SplitModel

    decoder = nn.Sequential()
    decoder.add_module("g_s", synthesis(spec.bottleneck))
    decoder.add_module("tail", ResNetTail(spec.backbone, spec.num_classes))
    return SplitModel(
        spec,
        encoder=analysis(spec.bottleneck),
        coder=FactorizedPrior(spec.bottleneck.latent_channels),
        decoder=decoder,
    )


for _beta in BETAS:
    _name = f"splittable_resnet50-fp-beta{_beta}"
    MODELS.register(
        _name,
        ModelEntry(
            ModelSpec(
                name=_name,
                task="image-classification",
                method="entropic-student",
                backbone="resnet50",
                bottleneck=FactorizedPriorBottleneck(
                    encoder_channels=(96, 48, 24), decoder_channels=(512, 256, 256)
                ),
                beta=float(_beta),
                dataset="imagenet-1k",
                num_classes=1000,
                preprocessing=IMAGENET,
                training=TWO_STAGES,
                reference=f"ilsvrc2012-{_name}_from_resnet50",
                base_model="timm/resnet50.tv_in1k",
            ),
            build,
        ),
        aliases=(f"{_name}_from_resnet50",),
    )
