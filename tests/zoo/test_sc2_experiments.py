"""Each experiment of sc2-benchmark is a model here: the one that its name says."""

import re
from pathlib import Path

import pytest

from splitzoo import zoo
from splitzoo.zoo.bottleneck_specs import (
    ChannelReductionBottleneck,
    FactorizedPriorBottleneck,
    FeatureCodecBottleneck,
    HyperpriorBottleneck,
    InputCodecBottleneck,
    LayerBottleneck,
    NeuralCodecBottleneck,
)
from splitzoo.zoo.conversion.convert import recognise
from splitzoo.zoo.packaged import packaged
from splitzoo.zoo.train.recipe_files import find_recipe

DATA = Path(__file__).parents[1] / "data" / "sc2_experiments.txt"
EXPERIMENTS = [
    tuple(line.split("\t"))
    for line in DATA.read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]

# Models beside them.
BESIDES = {
    *(
        f"splittable_{backbone}-shp-beta0.16"
        for backbone in ("resnet50", "resnet101", "regnety6.4gf", "hybrid_vit_small_r26_s32_224")
    ),
    *(f"faster_rcnn_splittable_resnet50-{prior}-beta0.16" for prior in ("shp", "mshp")),
    *(f"deeplabv3_splittable_resnet50-{prior}-beta0.16" for prior in ("shp", "mshp")),
    *(f"deeplabv3_splittable_resnet101-{prior}-beta0.16" for prior in ("fp", "shp", "mshp")),
    *(f"splittable_resnet{depth}-bq12ch_v0.1.1" for depth in (50, 101, 152)),
    *(f"splittable_{name}-bq12ch_v0.1.1" for name in ("densenet169", "densenet201")),
    "splittable_inception_v3-bq12ch_v0.1.1",
    "deeplabv3_splittable_resnet101-bq12ch",
    *(
        f"resnet50-{layer}-{codec}-q90"
        for layer in ("layer1", "layer3", "layer4", "avgpool")
        for codec in ("jpeg", "webp")
    ),
    *(f"{name}-png" for name in ("resnet50", "resnet101", "regnety6.4gf")),
    "hybrid_vit_small_r26_s32_224-png",
    "faster_rcnn_resnet50-png",
    *(f"deeplabv3_resnet{depth}-png" for depth in (50, 101)),
    "resnet50-avif-q50",
    "resnet50-heic-q50",
}


# sc2-benchmark's names

TASK_OF = {
    "ilsvrc2012": ("image-classification", "imagenet-1k", 1000),
    "coco2017": ("object-detection", "coco-2017", 91),
    "pascal_voc2012": ("semantic-segmentation", "pascal-voc-2012", 21),
}
METHOD_OF = {
    "entropic_student": "entropic-student",
    "end-to-end": "end-to-end",
    "ghnd-bq": "channel-reduction",
    "fine-tuning": "fine-tuning",
    "feature_compression": "feature-compression",
    "input_compression": "input-compression",
}
TIMM_NAME = {
    "regnety6.4gf": "regnety_064",
    "hybrid_vit_small_r26_s32_224": "vit_small_r26_s32_224",
    "tf_efficientnet_l2_ns": "tf_efficientnet_l2",
    "tf_efficientnet_l2_ns_475": "tf_efficientnet_l2",
}
CHANNELS_AFTER = {"layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048, "avgpool": 2048}
# Where Entropic Student's bottleneck ends, and the channels there.
FEATURES = {
    "resnet50": ("layer1", 256),
    "resnet101": ("layer1", 256),
    "regnety_064": ("s1", 144),
    "vit_small_r26_s32_224": ("patch_embed.backbone.stages.0", 256),
}
QUALITY = {"jpeg": 90, "webp": 90, "bpg": 50, "vtm": 63}
ARCHITECTURE = {
    "factorized_prior": "bmshj2018-factorized",
    "scale_hyperprior": "bmshj2018-hyperprior",
    "mean_scale_hyperprior": "mbt2018-mean",
    "joint_autoregressive_hierarchical_prior": "mbt2018",
}
BOTTLENECK = {
    "fp": (FactorizedPriorBottleneck, "factorized-prior"),
    "mshp": (HyperpriorBottleneck, "mean-scale-hyperprior"),
}


def test_the_experiments_are_those_of_sc2_benchmark():
    assert len(EXPERIMENTS) == len(set(EXPERIMENTS)) == 189
    assert len({experiment for _, experiment in EXPERIMENTS if experiment}) == 144


def test_what_is_listed_are_the_papers_models_and_those_for_comparison():
    of_the_paper = {zoo.get_spec(config).name for config, _ in EXPERIMENTS}
    assert len(of_the_paper) == 189
    assert set(zoo.list_models()) == of_the_paper | BESIDES | packaged().keys()
    assert not of_the_paper & BESIDES


@pytest.mark.parametrize(("config", "experiment"), EXPERIMENTS, ids=[c for c, _ in EXPERIMENTS])
def test_a_name_of_sc2_benchmark_is_the_model_that_it_says(config, experiment):
    spec = zoo.get_spec(config)
    if experiment:
        folder, _, short = experiment.partition("-")
        assert config.startswith(f"{folder}/")
        assert zoo.get_spec(experiment) is zoo.get_spec(short) is spec
        # Its checkpoint is known by the name of the file, and it has a recipe.
        assert recognise(Path("ckpt") / f"{experiment}.pt") is spec
        _, recipe, trained = find_recipe(experiment)
        assert trained is spec
        assert spec.name in recipe.names()
    assert spec.reference == (experiment or config)
    assert zoo.get_spec(spec.name) is spec

    folder, *_, method, stem = config.split("/")
    assert (spec.task, spec.dataset, spec.num_classes) == TASK_OF[folder]
    assert spec.method == METHOD_OF[method]
    stem = stem.replace("splitable", "splittable")
    beta = re.search(r"-beta([0-9.]+(e-[0-9]+)?)", stem)
    assert spec.beta == (float(beta[1]) if beta else None)
    if beta:
        assert spec.name.endswith((f"-beta{beta[1]}", f"-beta{beta[1]}-e2e"))

    bottleneck = spec.bottleneck
    if found := re.match(r"(?:faster_rcnn_|deeplabv3_)?splittable_(.+)-(fp|mshp)-beta", stem):
        assert spec.backbone == TIMM_NAME.get(found[1], found[1])
        kind, word = BOTTLENECK[found[2]]
        assert (type(bottleneck), bottleneck.kind) == (kind, word)
        cut, features = FEATURES[spec.backbone]
        assert spec.cut == cut
        wide = not spec.backbone.startswith("resnet")
        assert bottleneck.encoder_channels == ((64, 64, 64) if wide else (96, 48, 24))
        assert bottleneck.decoder_channels == (2 * features, features, features)
        assert getattr(bottleneck, "hyper_channels", 16) == 16
    elif found := re.match(r"(?:faster_rcnn_|deeplabv3_)?(\w+)-bq([0-9]+)ch", stem):
        assert (spec.backbone, spec.cut) == (TIMM_NAME.get(found[1], found[1]), "layer1")
        assert bottleneck == ChannelReductionBottleneck(network="resnet-24", channels=int(found[2]))
    elif found := re.match(r"(\w+)-eb_after_(\w+)-beta", stem):
        assert spec.backbone == TIMM_NAME.get(found[1], found[1])
        assert isinstance(bottleneck, LayerBottleneck)
        assert bottleneck.channels == CHANNELS_AFTER[found[2]]
        assert spec.cut is not None
        assert spec.cut.startswith(found[2].replace("avgpool", "global_pool"))
    elif method == "feature_compression":
        codec, _, backbone = stem.partition("-")
        assert (spec.backbone, spec.cut) == (TIMM_NAME.get(backbone, backbone), "layer2")
        assert isinstance(bottleneck, FeatureCodecBottleneck)
        assert (bottleneck.codec, bottleneck.quality, bottleneck.channels) == (codec, 90, 512)
    else:
        codec, _, backbone = stem.partition("-")
        backbone = re.sub(r"^faster_rcnn_|^deeplabv3_|_fpn$", "", backbone)
        assert (spec.backbone, spec.cut) == (TIMM_NAME.get(backbone, backbone), None)
        if codec in ARCHITECTURE:
            assert isinstance(bottleneck, NeuralCodecBottleneck)
            assert bottleneck.architecture == ARCHITECTURE[codec]
            assert (bottleneck.quality, bottleneck.metric) == (8, "mse")
        else:
            assert isinstance(bottleneck, InputCodecBottleneck)
            assert (bottleneck.codec, bottleneck.quality) == (codec, QUALITY[codec])
