"""From a spec to the parts of its model. Needs torch.

::

    BOTTLENECKS[kind](spec) ─► encoder, bottleneck, g_s        TAILS[task](spec) ─► tail
                                  decoder = g_s, then tail
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses import fake_tensor

from splitrun.errors import SpecError

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

    encoder, decoder = layers(
        sizes.network, sizes.channels, width=sizes.width, features=sizes.features
    )
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
    """Return height and width of the image as the backbone takes it."""
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
    return SplitModel(spec, encoder=encoder, bottleneck=bottleneck, decoder=decoder)


_NOT_TOLD = (
    fake_tensor.UnsupportedFakeTensorException,
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
)
"""Of networks whose shapes cannot be computed without their numbers."""


def check_fit(model: SplitModel) -> None:
    """Refuse a model whose parts do not take what the ones before them give.

    Shapes alone are computed, for one image of the input shape: in milliseconds, and without
    memory. The model is left as it is.

    Raises:
        SpecError: The latent has another shape than the spec says, or so has the output.
        RuntimeError: A part does not take what it is given, in torch's words.
    """
    spec = model.spec
    mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
    # Of a copy, since networks keep tensors that they have computed once.
    with fake_tensor.FakeCopyMode(mode):
        encoder, decoder = copy.deepcopy((model.encoder, model.decoder))
    try:
        with mode, torch.no_grad():
            latent = encoder(torch.empty(1, *spec.input_shape))
            _check_shape(spec, "the encoder", latent, spec.latent_shape)
            for part in decoder.children():
                latent = getattr(part, "dense", part)(latent)
    except _NOT_TOLD:
        return
    if spec.task == "image-classification":
        _check_shape(spec, "the network", latent, (spec.num_classes,))


def _check_shape(spec: ModelSpec, part: str, given: Any, said: tuple[int, ...]) -> None:
    shape = tuple(getattr(given, "shape", ())[1:])
    if shape != said:
        raise SpecError(
            f"{spec.name} cannot be built: {part} gives {_by(shape)}, where its spec says "
            f"{_by(said)}."
        )


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "one number"
