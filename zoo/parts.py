"""Builds the parts of a model from its spec. Needs torch.

::

    spec.bottleneck ─► encoder, bottleneck, g_s
    spec.task       ─► tail                        decoder = g_s, then tail
"""

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses import fake_tensor

from splitrun.coding import CODERS
from splitrun.errors import SpecError, UnknownNameError

from . import bottleneck_specs as specs
from .backbones.build import build_head, build_tail
from .bottlenecks import channel_reduction
from .bottlenecks.base import Bottleneck
from .bottlenecks.entropic_hyperprior import entropic_hyperprior
from .bottlenecks.factorized_prior import FactorizedPrior, analysis, synthesis
from .bottlenecks.image_codec import FeatureCodec, InputCodec, Normalise
from .bottlenecks.quantiser import UniformQuantiser
from .bottlenecks.variable_rate import VariableRate
from .calibration.record import Calibration
from .conversion.keys import INTEGERS
from .measures import Measured, measured_of
from .spec import ModelSpec
from .split_model import SplitModel

Parts = tuple[nn.Module, Bottleneck, nn.Module | None]
"""Encoder, bottleneck, and the layers before the tail, if there are any."""


def bottleneck_parts(spec: ModelSpec) -> Parts:
    """Build the part of a model that its kind of bottleneck decides."""
    match spec.bottleneck:
        case specs.FactorizedPriorBottleneck() as sizes:
            encoder = _encoder(spec, sizes)
            return encoder, FactorizedPrior(sizes.encoder_channels[-1]), synthesis(sizes)
        case specs.VariableRateBottleneck() as sizes:
            bottleneck = VariableRate(sizes.encoder_channels[-1], sizes.betas, sizes.level)
            return _encoder(spec, sizes), bottleneck, synthesis(sizes)
        case specs.HyperpriorBottleneck() as sizes:
            return _encoder(spec, sizes), entropic_hyperprior(sizes), synthesis(sizes)
        case specs.ChannelReductionBottleneck() as sizes:
            settings = {"width": sizes.width, "features": sizes.features}
            encoder, decoder = channel_reduction.layers(sizes.network, sizes.channels, **settings)
            return encoder, UniformQuantiser(sizes.channels), decoder
        case specs.LayerBottleneck() as sizes:
            return _head(spec), FactorizedPrior(sizes.channels), None
        case specs.FeatureCodecBottleneck() as sizes:
            return _head(spec), FeatureCodec(sizes.codec, sizes.quality, sizes.channels), None
        case specs.InputCodecBottleneck() as sizes:
            return nn.Identity(), InputCodec(sizes.codec, sizes.quality), Normalise(sizes)
        case specs.NeuralCodecBottleneck() as sizes:
            from .bottlenecks.neural_codec import build  # imports all of CompressAI's models

            encoder, bottleneck, decoder = build(sizes, spec.preprocessing.crop)
            return encoder, bottleneck, nn.Sequential(decoder, Normalise(sizes))


def _encoder(spec: ModelSpec, sizes: specs.ConvolutionalBottleneck) -> nn.Module:
    if sizes.network == "gdn":
        return analysis(sizes)
    head = build_head(spec.backbone, sizes.layer, spec.preprocessing.crop)
    return nn.Sequential(OrderedDict(head=head, g_a=analysis(sizes)))


def _head(spec: ModelSpec) -> nn.Module:
    if spec.cut is None:
        raise SpecError(f"{spec.name} names no layer of {spec.backbone} to cut after.")
    return build_head(spec.backbone, spec.cut, spec.preprocessing.crop, _layout(spec))


def _layout(spec: ModelSpec) -> specs.Layout:
    """Return the dimensions of what comes out of the layer that a backbone is cut after."""
    after = spec.bottleneck
    layered = isinstance(after, specs.LayerBottleneck | specs.FeatureCodecBottleneck)
    return after.layout if layered else "map"


def _tail(spec: ModelSpec) -> nn.Module:
    size = getattr(spec.bottleneck, "crop", None) or spec.preprocessing.crop
    arguments = spec.backbone, spec.cut, spec.num_classes, size
    if spec.task == "object-detection":
        from .tasks.detection import DetectionTail

        return DetectionTail(*arguments)
    if spec.task == "semantic-segmentation":
        from .tasks.segmentation import SegmentationTail

        return SegmentationTail(*arguments)
    return build_tail(*arguments, _layout(spec))


def build(spec: ModelSpec, *, seed: int = 0) -> SplitModel:
    """Build a model with seeded random weights; see :func:`splitzoo.zoo.build`."""
    with building(spec):
        torch.default_generator.manual_seed(seed)
        model = build_model(spec).eval()
        check_fit(model)
        model.update()
    model.random_seed = seed
    return model


def in_floats(model: SplitModel) -> SplitModel:
    """Return a model with the same weights whose hyperprior is in floats.

    Its streams can only be read where the same engine computes the scales; they are those of
    sc2bench and CompressAI.

    Args:
        model: Model in evaluation mode; one that has no hyperprior in integers is returned itself.
    """
    spec = model.spec.in_floats()
    if spec == model.spec:
        return model
    with building(spec):
        copied = build_model(spec).eval()
    state = model.state_dict()
    copied.load_state_dict({name: state[name] for name in state if not name.startswith(INTEGERS)})
    for name in ("source", "origin", "random_seed", "training_record", "tail_of"):
        setattr(copied, name, getattr(model, name))
    if (calibration := model.calibration) is not None:
        kind = calibration.record.kind.removeprefix("integer-")
        arrays = {name: calibration.arrays[name] for name in CODERS[kind].array_names()}
        record = calibration.record.model_copy(update={"kind": kind})
        copied.calibration = Calibration(arrays, record)
    return copied


@contextlib.contextmanager
def building(spec: ModelSpec) -> Iterator[None]:
    """Keep torch's random state, and turn what specs that make no sense raise into SpecError."""
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except UnknownNameError as error:
        raise SpecError(
            f"{spec.name} cannot be built: {error.message}", next_step=error.next_step
        ) from error
    except (RuntimeError, ValueError, AttributeError, TypeError, OSError) as error:
        raise SpecError(f"{spec.name} cannot be built: {error}") from error


def build_model(spec: ModelSpec) -> SplitModel:
    """Build a model with weights from torch's random generator.

    Raises:
        SpecError: The bottleneck and the backbone do not fit.
    """
    encoder, bottleneck, before = bottleneck_parts(spec)
    decoder = nn.Sequential()
    if before is not None:
        decoder.add_module("g_s", before)
    decoder.add_module("tail", _tail(spec))
    return SplitModel(spec, encoder=encoder, bottleneck=bottleneck, decoder=decoder)


@dataclass(frozen=True)
class Description:
    """A model at a glance.

    Attributes:
        spec: The model's spec.
        wire: Tensors that the device graph gives for one image.
        device_parameters: Number of learned parameters on the device.
        edge_parameters: Number of learned parameters on the edge; a hyper-decoder counts on both
            sides.
        encoder_bits: Bits of the device's parameters, Eq. 1 of the SC2 paper.
        weights_at_hand: Whether its weights lie on this machine.
        measured: Accuracy and bytes per image, where they were measured.
    """

    spec: ModelSpec
    wire: tuple[specs.WireTensor, ...]
    device_parameters: int
    edge_parameters: int
    encoder_bits: int
    weights_at_hand: bool
    measured: Measured | None


def describe(spec: ModelSpec, *, weights_at_hand: bool = False) -> Description:
    """Build a model, and count; SpecError where nothing can be built from this spec."""
    with building(spec):
        model = build_model(spec).eval()
        check_fit(model)
    counts = (
        sum(parameter.numel() for parameter in side)
        for side in (model.device_parameters(), model.edge_parameters())
    )
    return Description(
        spec,
        spec.wire,
        *counts,
        encoder_bits=encoder_bits(model),
        weights_at_hand=weights_at_hand,
        measured=measured_of(spec),
    )


def encoder_bits(model: SplitModel) -> int:
    """Return the encoder size of the SC2 paper's Eq. 1: the bits of the encoder's parameters."""
    return 8 * sum(
        parameter.numel() * parameter.element_size() for parameter in model.device_parameters()
    )


_SHAPE_DEPENDS_ON_VALUES = (
    fake_tensor.UnsupportedFakeTensorException,
    fake_tensor.DataDependentOutputException,
    fake_tensor.DynamicOutputShapeException,
)


def check_fit(model: SplitModel) -> None:
    """Check that each part of a model takes the output of the one before it.

    Only shapes are computed, for one image of the input shape: in milliseconds, and without
    memory. The model is left as it is.

    Raises:
        SpecError: The latent or the output has another shape than the spec says.
        RuntimeError: A part does not take its input, in torch's words.
    """
    spec = model.spec
    mode = fake_tensor.FakeTensorMode(allow_non_fake_inputs=True)
    # A copy, since networks keep tensors that they have computed once.
    with fake_tensor.FakeCopyMode(mode):
        encoder, decoder = copy.deepcopy((model.encoder, model.decoder))
    try:
        with mode, torch.no_grad():
            features = encoder(torch.empty(1, *spec.input_shape))
            _check_shape(spec, "the encoder", features, spec.latent_shape)
            for part in decoder.children():
                features = getattr(part, "dense", part)(features)
    except _SHAPE_DEPENDS_ON_VALUES:
        return
    if spec.task == "image-classification":
        _check_shape(spec, "the network", features, (spec.num_classes,))


def _check_shape(spec: ModelSpec, part: str, output: Any, expected: tuple[int, ...]) -> None:
    shape = tuple(getattr(output, "shape", ())[1:])
    if shape != expected:
        raise SpecError(
            f"{spec.name} cannot be built: {part} gives {specs.shape_text(shape)}, where its spec "
            f"says {specs.shape_text(expected)}."
        )
