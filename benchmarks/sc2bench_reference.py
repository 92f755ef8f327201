"""sc2bench's own model of a spec, where sc2bench is installed, to hold a converted model against.

Built from its classes: its builders would download pretrained weights, or do not run with today's
timm and torchvision.
"""

import importlib.metadata
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from splitrun.errors import DependencyError
from splitzoo.zoo.backbones.build import build_whole
from splitzoo.zoo.backbones.table import RESNET_CUTS
from splitzoo.zoo.bottleneck_specs import (
    ChannelReductionBottleneck,
    FactorizedPriorBottleneck,
    HyperpriorBottleneck,
    LayerBottleneck,
)
from splitzoo.zoo.bottlenecks import channel_reduction
from splitzoo.zoo.conversion.keys import SCALE_TABLE, TABLE_BUFFERS, up_to_date
from splitzoo.zoo.spec import ModelSpec

VERSION = "0.1.1"
_OLD_NETWORK = "resnet-24"
_INSTALL = f"pip install --no-deps sc2bench=={VERSION} torchdistill==1.1.5"
_RESNET = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool")


def describe_reference(spec: ModelSpec) -> str:
    """Say what :func:`build_reference` builds."""
    if getattr(spec.bottleneck, "network", "") == _OLD_NETWORK:
        return f"sc2bench {VERSION} around the bottleneck of 0.0.3 as splitzoo builds it"
    return f"sc2bench {VERSION}"


def _require_sc2bench() -> None:
    try:
        installed = importlib.metadata.version("sc2bench")
    except importlib.metadata.PackageNotFoundError:
        raise DependencyError("sc2bench is not installed", next_step=_INSTALL) from None
    if installed != VERSION:
        raise DependencyError(
            f"sc2bench {installed} is installed, not {VERSION}", next_step=_INSTALL
        )


def build_reference(spec: ModelSpec) -> nn.Module:
    """Build sc2bench's model, in evaluation mode and with random weights.

    The bottleneck of channel reduction in version 0.0.3, which does not run with today's torch, is
    ours within sc2bench's model.

    Raises:
        DependencyError: sc2bench is not installed, cannot be imported, or has no such model.
    """
    _require_sc2bench()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses what other packages have deprecated
            return _model(spec).eval()
    except ImportError as error:
        raise DependencyError(f"sc2bench cannot be imported ({error})") from error


def load_reference(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a checkpoint's tensors into sc2bench's model, strictly; its own way is not.

    Args:
        model: sc2bench's model.
        tensors: Tensors by sc2bench's names. Entropy tables are not loaded.

    Raises:
        RuntimeError: They do not fit.
    """
    made = (*TABLE_BUFFERS, SCALE_TABLE)
    given = {
        up_to_date(name): tensor
        for name, tensor in tensors.items()
        if name.rpartition(".")[2] not in made
    }
    own = {
        name: value for name, value in model.state_dict().items() if name.rpartition(".")[2] in made
    }
    nn.Module.load_state_dict(model, own | given)


def _model(spec: ModelSpec) -> nn.Module:
    if isinstance(spec.bottleneck, LayerBottleneck):
        return _entropic_classifier(spec, spec.bottleneck)
    if spec.task == "object-detection":
        return _detector(spec)
    if spec.task == "semantic-segmentation":
        return _segmentation(spec)
    for family, build in _FAMILIES.items():
        if spec.backbone.startswith(family):
            return build(spec)
    raise DependencyError(f"sc2bench has no model on {spec.backbone}")


def _bottleneck(spec: ModelSpec) -> nn.Module:
    from sc2bench.models import layer

    sizes = spec.bottleneck
    if isinstance(sizes, FactorizedPriorBottleneck):
        latent = sizes.encoder_channels[-1]
        return layer.FPBasedResNetBottleneck(
            num_bottleneck_channels=latent,
            encoder_channel_sizes=[3, *sizes.encoder_channels],
            decoder_channel_sizes=[latent, *sizes.decoder_channels],
        )
    if isinstance(sizes, HyperpriorBottleneck):
        latent = sizes.encoder_channels[-1]
        mean_scale = sizes.kind == "mean-scale-hyperprior"
        build = layer.MSHPBasedResNetBottleneck if mean_scale else layer.SHPBasedResNetBottleneck
        return build(
            num_latent_channels=sizes.hyper_channels,
            num_bottleneck_channels=latent,
            g_a_channel_sizes=[3, *sizes.encoder_channels],
            g_s_channel_sizes=[latent, *sizes.decoder_channels],
        )
    if isinstance(sizes, ChannelReductionBottleneck):
        if sizes.network == _OLD_NETWORK:
            return layer.SimpleBottleneck(*channel_reduction.layers(_OLD_NETWORK, sizes.channels))
        build = {
            "resnet-20": layer.larger_resnet_bottleneck,
            "densenet": layer.larger_densenet_bottleneck,
            "inception": layer.inception_v3_bottleneck,
        }
        return build[sizes.network](bottleneck_channel=sizes.channels)
    raise DependencyError(f"sc2bench trains no {sizes.kind} bottleneck")


def _resnet(spec: ModelSpec, *, whole: bool = True, **options: object) -> nn.Module:
    import torchvision
    from sc2bench.models.backbone import SplittableResNet

    network = torchvision.models.get_model(spec.backbone, num_classes=spec.num_classes, **options)
    layers = [name for name in ("layer2", "layer3", "layer4") if name > (spec.cut or "")]
    return SplittableResNet(
        _bottleneck(spec),
        network,
        skips_avgpool=not whole,
        skips_fc=not whole,
        short_module_names=layers,
    )


def _regnet(spec: ModelSpec) -> nn.Module:
    from sc2bench.models.backbone import SplittableRegNet

    network = build_whole(spec.backbone, spec.num_classes)
    return SplittableRegNet(_bottleneck(spec), network, skips_head=False)


def _hybrid_vit(spec: ModelSpec) -> nn.Module:
    from sc2bench.models.backbone import SplittableHybridViT

    network = build_whole(spec.backbone, spec.num_classes)
    # timm's class had it when sc2bench was written, and it did nothing.
    network.pre_logits = nn.Identity()
    return SplittableHybridViT(_bottleneck(spec), network, skips_head=False)


def _densenet(spec: ModelSpec) -> nn.Module:
    import torchvision
    from sc2bench.models.backbone import SplittableDenseNet

    layers = ["denseblock3", "transition3", "denseblock4", "norm5"]
    network = torchvision.models.get_model(spec.backbone, num_classes=spec.num_classes)
    return SplittableDenseNet(
        _bottleneck(spec), layers, network, skips_avgpool=False, skips_classifier=False
    )


def _inception(spec: ModelSpec) -> nn.Module:
    import torchvision
    from sc2bench.models.backbone import SplittableInceptionV3

    network = torchvision.models.inception_v3(
        num_classes=spec.num_classes, aux_logits=False, init_weights=False
    )
    layers = [name for name, _ in network.named_children() if name.startswith("Mixed_")]
    return SplittableInceptionV3(
        _bottleneck(spec),
        layers,
        network,
        skips_avgpool=False,
        skips_dropout=False,
        skips_fc=False,
    )


_FAMILIES = {
    "resnet": _resnet,
    "regnet": _regnet,
    "densenet": _densenet,
    "inception": _inception,
    "vit_": _hybrid_vit,
}
"""Beginnings of timm's names to what builds them."""


def _entropic_classifier(spec: ModelSpec, sizes: LayerBottleneck) -> nn.Module:
    import torchvision
    from sc2bench.models.wrapper import EntropicClassifier

    network = torchvision.models.get_model(spec.backbone, num_classes=spec.num_classes)
    cut = next(name for name, cut in RESNET_CUTS.items() if cut.layer == spec.cut)
    first = _RESNET[: _RESNET.index(cut) + 1]
    then = list(_RESNET[len(first) :])
    return EntropicClassifier(
        network,
        encoder_config={"sequential": list(first)},
        compression_model_kwargs={"entropy_bottleneck_channels": sizes.channels},
        decoder_config={"sequential": then, "ignored": not then},
        classifier_config={"sequential": ["fc"]},
    )


def _detector(spec: ModelSpec) -> nn.Module:
    from sc2bench.models.detection.rcnn import BaseRCNN, create_faster_rcnn_fpn

    network = create_faster_rcnn_fpn(
        _resnet(spec, whole=False),
        return_layer_dict={
            "bottleneck_layer": "1",
            "layer2": "2",
            "layer3": "3",
            "layer4": "4",
        },
        in_channels_list=[256, 512, 1024, 2048],
        num_classes=spec.num_classes,
        analyzable_layer_key="bottleneck_layer",
    )
    return BaseRCNN(network)


def _segmentation(spec: ModelSpec) -> nn.Module:
    from sc2bench.models.backbone import FeatureExtractionBackbone
    from sc2bench.models.segmentation.deeplabv3 import create_deeplabv3

    backbone = FeatureExtractionBackbone(
        _resnet(spec, whole=False, replace_stride_with_dilation=[False, True, True]),
        {"layer3": "aux", "layer4": "out"},
        [],
        analyzable_layer_key="bottleneck_layer",
    )
    return create_deeplabv3(backbone, uses_aux=True, num_classes=spec.num_classes)


def bottleneck_of(reference: nn.Module, spec: ModelSpec) -> nn.Module:
    """Return the bottleneck of sc2bench's model."""
    if isinstance(spec.bottleneck, LayerBottleneck):
        return reference
    paths = {
        "object-detection": "backbone.body.bottleneck_layer",
        "semantic-segmentation": "backbone.bottleneck_layer",
    }
    return reference.get_submodule(paths.get(spec.task, "bottleneck_layer"))


@torch.no_grad()
def dense_parts(reference: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    """Return the pyramid's first three levels, objectness and deltas of sc2bench's detector."""
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    levels = list(reference.get_submodule("backbone")(image).values())
    objectness, deltas = concat_box_prediction_layers(*reference.get_submodule("rpn.head")(levels))
    return *levels[:3], objectness.reshape(len(image), -1), deltas.reshape(len(image), -1, 4)
