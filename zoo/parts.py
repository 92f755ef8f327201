"""From a spec to the parts of its model. Needs torch.

::

    BOTTLENECKS[kind](spec) ─► encoder, bottleneck, g_s        TAILS[task](spec) ─► tail
                                  decoder = g_s, then tail
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import SpecError
from . import bottleneck_specs as specs
from .backbones import build_head, build_tail
from .bottlenecks.base import Bottleneck
from .spec import ModelSpec
from .split_model import SplitModel

Parts = tuple[nn.Module, Bottleneck, nn.Module | None]
"""Encoder, bottleneck, and what stands before the tail, if anything."""


def _factorized_prior(spec: ModelSpec, sizes: specs.FactorizedPriorBottleneck) -> Parts:
    from .bottlenecks.factorized_prior import FactorizedPrior, analysis, synthesis

    return analysis(sizes), FactorizedPrior(sizes.encoder_channels[-1]), synthesis(sizes)


def _hyperprior(spec: ModelSpec, sizes: specs.HyperpriorBottleneck) -> Parts:
    from .bottlenecks.factorized_prior import analysis, synthesis
    from .bottlenecks.hyperprior import entropic_hyperprior

    return analysis(sizes), entropic_hyperprior(sizes), synthesis(sizes)


def _channel_reduction(spec: ModelSpec, sizes: specs.ChannelReductionBottleneck) -> Parts:
    from .bottlenecks.channel_reduction import layers
    from .bottlenecks.quantiser import UniformQuantiser

    encoder, decoder = layers(sizes.network, sizes.channels)
    return encoder, UniformQuantiser(sizes.channels), decoder


def _layer(spec: ModelSpec, sizes: specs.LayerBottleneck) -> Parts:
    from .bottlenecks.factorized_prior import FactorizedPrior

    return _head(spec), FactorizedPrior(sizes.channels), None


def _feature_codec(spec: ModelSpec, sizes: specs.FeatureCodecBottleneck) -> Parts:
    from .bottlenecks.image_codec import FeatureCodec

    return _head(spec), FeatureCodec(sizes.codec, sizes.quality, sizes.channels), None


def _input_codec(spec: ModelSpec, sizes: specs.InputCodecBottleneck) -> Parts:
    from .bottlenecks.image_codec import InputCodec, Normalise

    return nn.Identity(), InputCodec(sizes.codec, sizes.quality), Normalise(sizes)


def _neural_codec(spec: ModelSpec, sizes: specs.NeuralCodecBottleneck) -> Parts:
    from .bottlenecks.image_codec import Normalise
    from .bottlenecks.neural_codec import build

    encoder, bottleneck, decoder = build(sizes, spec.preprocessing.crop)
    return encoder, bottleneck, nn.Sequential(decoder, Normalise(sizes))


BOTTLENECKS: dict[str, Callable[[ModelSpec, Any], Parts]] = {
    "factorized-prior": _factorized_prior,
    "scale-hyperprior": _hyperprior,
    "mean-scale-hyperprior": _hyperprior,
    "channel-reduction": _channel_reduction,
    "entropy-bottleneck": _layer,
    "feature-codec": _feature_codec,
    "input-codec": _input_codec,
    "neural-input-codec": _neural_codec,
}


def _head(spec: ModelSpec) -> nn.Module:
    if spec.cut is None:
        raise SpecError(f"{spec.name} names no layer of {spec.backbone} to cut after.")
    return build_head(spec.backbone, spec.cut, spec.preprocessing.crop)


def _tail_input(spec: ModelSpec) -> tuple[int, int]:
    """Return height and width of the picture as the backbone takes it."""
    return getattr(spec.bottleneck, "crop", None) or spec.preprocessing.crop


def _classification(spec: ModelSpec) -> nn.Module:
    return build_tail(spec.backbone, spec.cut, spec.num_classes, _tail_input(spec))


def _detection(spec: ModelSpec) -> nn.Module:
    from .tasks.detection import DetectionTail

    return DetectionTail(spec.backbone, spec.cut, spec.num_classes, _tail_input(spec))


def _segmentation(spec: ModelSpec) -> nn.Module:
    from .tasks.segmentation import SegmentationTail

    return SegmentationTail(spec.backbone, spec.cut, spec.num_classes, _tail_input(spec))


TAILS: dict[str, Callable[[ModelSpec], nn.Module]] = {
    "image-classification": _classification,
    "object-detection": _detection,
    "semantic-segmentation": _segmentation,
}


def build_model(spec: ModelSpec) -> SplitModel:
    """Build a model with the weights that torch's random generator gives.

    Raises:
        SpecError: The bottleneck and the backbone do not fit.
    """
    encoder, bottleneck, before = BOTTLENECKS[spec.bottleneck.kind](spec, spec.bottleneck)
    decoder = nn.Sequential()
    if before is not None:
        decoder.add_module("g_s", before)
    decoder.add_module("tail", TAILS[spec.task](spec))
    return SplitModel(spec, encoder=encoder, coder=bottleneck, decoder=decoder)
