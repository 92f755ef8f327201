"""A converted model beside sc2bench's own with the same checkpoint, on the same images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.sc2bench_reference import (
    bottleneck_of,
    build_reference,
    dense_parts,
    describe_reference,
    load_reference,
)
from splitrun.errors import DependencyError, ParityError
from splitzoo.zoo.bottleneck_specs import ChannelReductionBottleneck, HyperpriorBottleneck
from splitzoo.zoo.deprecations import quiet_torchscript
from splitzoo.zoo.parts import in_floats
from splitzoo.zoo.spec import ModelSpec
from splitzoo.zoo.split_model import SplitModel
from splitzoo.zoo.tasks.detection import DetectionTail
from splitzoo.zoo.tasks.segmentation import SegmentationTail

with quiet_torchscript():
    from compressai.models.google import get_scale_table

TOLERANCE = 1e-4
"""Largest difference, relative to the largest output: only the order of additions may differ."""
TIE = 1e-3
"""So near to a half, two sums that should be equal may be rounded apart."""

_DETECTION_SIZE = (256, 320)  # what is compared does not depend on the size of the image
_BOXES = 8


@dataclass(frozen=True)
class Parity:
    """How a converted model compares with its reference.

    Attributes:
        reference: Such as ``"sc2bench 0.1.1"``; empty where nothing was compared.
        images: Number of images compared, made by a random generator.
        symbols: Number of integers on the wire, of all images.
        symbols_differing: Number of symbols that differ, all within rounding of a half.
        output_max_relative_error: Largest difference of outputs at the reference's symbols,
            relative to the largest output; None where nothing was compared.
        not_checked: Reason why nothing was compared; empty where it was.
    """

    reference: str = ""
    images: int = 0
    symbols: int = 0
    symbols_differing: int = 0
    output_max_relative_error: float | None = None
    not_checked: str = ""


def check_parity(model: SplitModel, tensors: Mapping[str, Tensor]) -> Parity:
    """Hold a converted model against sc2bench's, where sc2bench is installed.

    The quantiser of channel reduction holds no weights, and sc2bench's saturates where ours does
    not: it is left out of both.

    Args:
        model: Model in evaluation mode.
        tensors: Tensors of the checkpoint, by sc2bench's names.

    Returns:
        What was compared, or why nothing was.

    Raises:
        ParityError: They differ by more than rounding.
    """
    model = in_floats(model)  # as sc2bench computes hyperpriors
    spec = model.spec
    try:
        reference = build_reference(spec)
    except DependencyError as error:
        advice = f" ({error.next_step})" if error.next_step else ""
        return Parity(not_checked=f"{error.message}{advice}")
    try:
        load_reference(reference, tensors)
    except RuntimeError as error:
        raise ParityError(
            f"sc2bench's {spec.name} does not take the checkpoint: {error}"
        ) from error
    images = _images(spec)
    symbols = differing = 0
    worst = 0.0
    for image in images:
        count, unequal, error = _compare(model, reference, image)
        symbols, differing, worst = symbols + count, differing + unequal, max(worst, error)
    if not worst <= TOLERANCE:
        raise ParityError(
            f"{spec.name} gives other outputs than sc2bench with the same checkpoint: "
            f"they differ by {worst:.1e} of the largest one; {TOLERANCE:g} is allowed.",
            next_step="This is a defect of splitzoo, or the checkpoint is of another model.",
        )
    return Parity(describe_reference(spec), len(images), symbols, differing, worst)


def _images(spec: ModelSpec) -> list[Tensor]:
    """Return soft shapes with some noise, (1, 3, H, W) each, as if normalised."""
    dense = spec.task != "image-classification"
    size = _DETECTION_SIZE if spec.task == "object-detection" else spec.preprocessing.crop
    images = []
    for seed in range(1 if dense else 2):
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(1, 3, 9, 9, generator=generator)
        shapes = nn.functional.interpolate(coarse, size=size, mode="bicubic")
        images.append(shapes + 0.2 * torch.randn(1, 3, *size, generator=generator))
    return images


@torch.no_grad()
def _compare(model: SplitModel, reference: nn.Module, image: Tensor) -> tuple[int, int, float]:
    """Return how many symbols there are and differ, and the error of the output."""
    bottleneck: Any = bottleneck_of(reference, model.spec)
    latent = model.encoder(image)
    if isinstance(model.spec.bottleneck, ChannelReductionBottleneck):
        return 0, 0, _output_error(model, reference, image, latent)
    theirs = _wire(model.spec, bottleneck, image)
    count = differing = 0
    for name, ours in zip(
        model.bottleneck.wire_names, model.bottleneck.unrounded_wire(latent), strict=True
    ):
        far = (ours - theirs[name]).abs() > 0.5 + TIE
        if far.any():
            raise ParityError(
                f"{model.spec.name} gives other {name} than sc2bench with the same "
                f"checkpoint: {int(far.sum()):,} of {far.numel():,} differ.",
                next_step="This is a defect of splitzoo, or the checkpoint is of another model.",
            )
        count += far.numel()
        differing += int((torch.round(ours) != theirs[name]).sum())
    latent_hat = model.bottleneck.from_wire(
        *(theirs[name] for name in model.bottleneck.edge_inputs)
    )
    return count, differing, _output_error(model, reference, image, latent_hat)


def _wire(spec: ModelSpec, bottleneck: Any, image: Tensor) -> dict[str, Tensor]:
    """Return what sc2bench's model sends, by our names: symbols int32, means float32."""
    if isinstance(spec.bottleneck, HyperpriorBottleneck):
        conditional = bottleneck.gaussian_conditional
        conditional.update_scale_table(get_scale_table())
        y = bottleneck.g_a(image)
        mean_scale = spec.bottleneck.kind == "mean-scale-hyperprior"
        z = bottleneck.h_a(y if mean_scale else y.abs())
        hyper_symbols, z_hat = _quantised(bottleneck.entropy_bottleneck, z)
        given = bottleneck.h_s(z_hat)
        scales, means = given.chunk(2, 1) if mean_scale else (given, torch.zeros_like(y))
        return {
            "symbols": conditional.quantize(y, "symbols", means),
            "hyper_symbols": hyper_symbols,
            "indexes": conditional.build_indexes(scales),
            "means": means,
        }
    prior = bottleneck.entropy_bottleneck
    prior = getattr(prior, "entropy_bottleneck", prior)  # EntropicClassifier wraps it
    return {"symbols": _quantised(prior, bottleneck.encoder(image))[0]}


def _quantised(prior: Any, latent: Tensor) -> tuple[Tensor, Tensor]:
    medians = prior._get_medians().detach().reshape(1, -1, 1, 1)
    symbols = prior.quantize(latent, "symbols", medians)
    return symbols, prior.dequantize(symbols, medians)


def _output_error(
    model: SplitModel, reference: nn.Module, image: Tensor, latent_hat: Tensor
) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    tail = model.decoder.get_submodule("tail")
    features = latent_hat
    for name, part in model.decoder.named_children():
        if name != "tail":
            features = part(features)
    if isinstance(tail, DetectionTail):
        expected = *dense_parts(reference, image), *_boxes(reference)
        found = *tail.dense(features), *_boxes(tail)
    elif isinstance(tail, SegmentationTail):
        given = reference(image)
        expected, found = (given["out"], given["aux"]), tail.forward_with_aux(features)
    else:
        expected, found = (reference(image),), (tail(features),)
    pairs = zip(found, expected, strict=True)
    errors = torch.stack([(ours - want).abs().max() / want.abs().max() for ours, want in pairs])
    return float(errors.nan_to_num(nan=torch.inf).max())


def _boxes(detector: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what a detector's second stage says of features cut out for some boxes."""
    heads: Any = detector.get_submodule("roi_heads")
    channels = heads.box_head.fc6.in_features
    cut_out = torch.randn(_BOXES, channels, generator=torch.Generator().manual_seed(0))
    return heads.box_predictor(heads.box_head(cut_out))
