"""A small model for each kind of bottleneck and task: built, exported and run in a moment."""

import torch
from torch import nn

from splitrun.preprocessing import Preprocessing
from splitzoo import zoo
from splitzoo.zoo.backbones import build, table
from splitzoo.zoo.bottleneck_specs import (
    ChannelReductionBottleneck,
    FactorizedPriorBottleneck,
    FeatureCodecBottleneck,
    HyperpriorBottleneck,
    InputCodecBottleneck,
    LayerBottleneck,
    NeuralCodecBottleneck,
)
from splitzoo.zoo.parts import bottleneck_parts
from splitzoo.zoo.split_model import SplitModel

BACKBONE = table.find_backbone("test_resnet")
LAYER2 = BACKBONE.stages[1]
SIZES = {"encoder_channels": (8, 8, 4), "decoder_channels": (16, 16, BACKBONE.channels)}
NORMAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}

BOTTLENECKS = {
    "fp": FactorizedPriorBottleneck(**SIZES),
    "shp": HyperpriorBottleneck(kind="scale-hyperprior", **SIZES, hyper_channels=4),
    "mshp": HyperpriorBottleneck(kind="mean-scale-hyperprior", **SIZES, hyper_channels=4),
    "shp-float": HyperpriorBottleneck(
        kind="scale-hyperprior", **SIZES, hyper_channels=4, float_hyperprior=True
    ),
    "mshp-float": HyperpriorBottleneck(
        kind="mean-scale-hyperprior", **SIZES, hyper_channels=4, float_hyperprior=True
    ),
    "bq": ChannelReductionBottleneck(
        network="resnet-24", channels=3, width=8, features=BACKBONE.channels
    ),
    "layer": LayerBottleneck(channels=LAYER2.channels, stride=8),
    "feature-jpeg": FeatureCodecBottleneck(
        channels=LAYER2.channels, stride=8, codec="jpeg", quality=80
    ),
    "jpeg": InputCodecBottleneck(codec="jpeg", quality=80),
    "avif": InputCodecBottleneck(codec="avif", quality=80),
    **{
        name: NeuralCodecBottleneck(architecture=name, quality=1, channels=(6, 8), crop=(48, 48))
        for name in ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")
    },
    "mbt2018-float": NeuralCodecBottleneck(
        architecture="mbt2018", quality=1, channels=(6, 8), crop=(48, 48), float_hyperprior=True
    ),
}
METHODS = {
    "bq": "channel-reduction",
    "layer": "fine-tuning",
    "feature-jpeg": "feature-compression",
}
CUTS = dict.fromkeys(("fp", "shp", "mshp", "shp-float", "mshp-float", "bq"), BACKBONE.layer)
CUTS |= {"layer": LAYER2.layer, "feature-jpeg": LAYER2.layer}
TASKS = ("image-classification", "object-detection", "semantic-segmentation")


def build_network(name, *, seed=0, **options):
    """A network of timm with seeded weights, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build.build_whole(name, **options).eval()


def made_image(*size, seed=1):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def small_spec(task: str, kind: str):
    dense = task != "image-classification"
    size = (64, 96) if dense else (64, 64)
    fit = {"resize": 64, "crop": size, "fit": "pad" if dense else "crop"}
    values = NORMAL if kind in CUTS else PLAIN
    return zoo.ModelSpec(
        name=f"small-{kind}",
        task=task,
        method=METHODS.get(kind, "entropic-student" if kind in CUTS else "input-compression"),
        backbone="test_resnet",
        cut=CUTS.get(kind),
        bottleneck=BOTTLENECKS[kind],
        dataset="made",
        num_classes=7,
        preprocessing=Preprocessing(interpolation="bilinear", **fit, **values),
    )


def without_network(name: str, **sizes) -> SplitModel:
    """A registered model, its bottleneck changed, with nothing behind the bottleneck."""
    content = zoo.get_spec(name).model_dump()
    content["bottleneck"] |= sizes
    spec = zoo.ModelSpec.model_validate(content)
    encoder, coder, _ = bottleneck_parts(spec)
    model = SplitModel(spec, encoder, coder, nn.Identity()).eval()
    model.update()
    return model
