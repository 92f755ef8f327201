"""Run PyTorch on made test images and record every step, for parity and the self-test."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from splitrun.errors import ParityError
from splitrun.limits import LIMITS
from splitrun.predictions.detection import DetectionSettings, box_levels, propose
from splitrun.preprocessing import Preprocessing
from splitrun.record import Arrays, DeviceRecord, EdgeRecord, Record
from splitrun.strict_json import read_strictly

from ..zoo.split_model import SplitModel
from ..zoo.tasks.detection import DetectionTail
from .graphs import EdgeGraph, output_names

_IMAGES_TRIED = 24
_FAR = 2e-5
"""Distance to a boundary, in steps of a symbol: ten times the error of float32 sums of hundreds."""


def seeded_image(preprocessing: Preprocessing, seed: int) -> NDArray[np.float32]:
    """Make a seeded test image with the spectrum of images, amplitude falling as 1/f.

    Args:
        preprocessing: Height and width of the input, and how pixels become it.
        seed: Seed of the noise.

    Returns:
        (1, 3, height, width) float32, of 8-bit pixels, normalised.
    """
    height, width = preprocessing.crop
    noise = np.random.default_rng(seed).normal(size=(3, height, width))
    # Images' channels mostly rise and fall together.
    noise += 2 * noise[:1]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)
    image = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    image = 0.45 + 0.23 * (image - image.mean()) / image.std()
    pixels = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    return preprocessing.normalise(pixels.transpose(1, 2, 0))


def record_run(model: SplitModel, seed: int) -> Record:
    """Run PyTorch on a test image and record every step.

    Where tensors are computed from rounded ones (scale indexes from the symbols of z, and the
    whole of y with them), one value at a rounding boundary would decide about all. So the image
    is taken, of some, whose values keep the farthest from such boundaries.
    """
    bottleneck = model.bottleneck
    critical = {*bottleneck.side_information, *bottleneck.hyper_outputs}.intersection(
        bottleneck.wire_names
    )
    tried = range(seed * _IMAGES_TRIED, (seed + 1) * _IMAGES_TRIED)
    best: tuple[float, NDArray[np.float32]] | None = None
    for number in tried if critical else tried[:1]:
        image = seeded_image(model.spec.preprocessing, number)
        distance = _distance(model, image, critical)
        if best is None or distance > best[0]:
            best = distance, image
        if distance > _FAR:
            break
    assert best is not None  # at least one was tried
    return _record(model, best[1])


@torch.no_grad()
def _distance(model: SplitModel, image: NDArray[np.float32], critical: set[str]) -> float:
    """Return how far the nearest critical value lies from a rounding boundary."""
    if not critical:
        return 0.0
    before = model.bottleneck.unrounded_wire(model.encoder(torch.from_numpy(image)))
    named = zip(model.bottleneck.wire_names, before, strict=True)
    return min(
        float(_boundary_distance(values).min()) for name, values in named if name in critical
    )


def _boundary_distance(values: torch.Tensor) -> torch.Tensor:
    return (values - torch.floor(values) - 0.5).abs()


@torch.no_grad()
def _record(model: SplitModel, image: NDArray[np.float32]) -> Record:
    bottleneck = model.bottleneck
    latent = model.encoder(torch.from_numpy(image))
    wire: Arrays = {}
    ties: Arrays = {}
    pairs = zip(
        bottleneck.wire_names,
        bottleneck.to_wire(latent),
        bottleneck.unrounded_wire(latent),
        strict=True,
    )
    for name, tensor, before in pairs:
        wire[name] = tensor.numpy()
        if wire[name].dtype.kind in "iu":
            near = _boundary_distance(before) < LIMITS["fp32"].tie_margin
            ties[name] = (near & (name not in bottleneck.side_information)).numpy()
    stream = model.codec.compress(*(tensor[0] for tensor in wire.values()))
    inputs = _received(model, stream)
    edge = EdgeGraph(model).eval()
    outputs = edge(*map(torch.from_numpy, inputs.values()))
    _check_left_out(edge, model, wire, inputs, outputs)
    named = zip(output_names(model), outputs, strict=True)
    arrays = {name: tensor.numpy() for name, tensor in named}
    boxes_inputs, boxes_outputs = _record_boxes(model, arrays)
    hyper = {"hyper_symbols": wire["hyper_symbols"]} if bottleneck.hyper_outputs else {}
    return Record(
        DeviceRecord(image, wire, ties, stream),
        EdgeRecord(stream, inputs, arrays, hyper, boxes_inputs, boxes_outputs),
    )


def edge_inputs(model: SplitModel, wire: Sequence[NDArray[Any]]) -> Arrays:
    """Return what the edge graph gets of one image's wire tensors, each (1, …), by name."""
    return _received(model, model.codec.compress(*(tensor[0] for tensor in wire)))


def _received(model: SplitModel, stream: bytes) -> Arrays:
    decoded = model.codec.decompress(stream, model.hyper_decode)
    named = zip(model.bottleneck.edge_inputs, decoded, strict=True)
    return {name: tensor[None] for name, tensor in named}


def _check_left_out(
    edge: EdgeGraph, model: SplitModel, wire: Arrays, inputs: Arrays, outputs: tuple[Tensor, ...]
) -> None:
    """See that what a coder leaves out does not change the edge's outputs.

    Raises:
        ParityError: It does not: the coder is not for these weights.
    """
    kept = (np.array_equal(wire[name], array) for name, array in inputs.items() if name in wire)
    if not model.codec.coder.lossless or all(kept):
        return
    whole = edge(*(torch.from_numpy(wire[name]) for name in inputs))
    if not all(torch.equal(output, full) for output, full in zip(outputs, whole, strict=True)):
        raise ParityError(
            "What the entropy coder leaves out changes the edge's output: it was fitted to other "
            "weights.",
            next_step="Calibrate the model again: splitzoo zoo calibrate",
        )


def _record_boxes(model: SplitModel, first: Arrays) -> tuple[Arrays, Arrays]:
    """Run a detector's second stage on the proposals of its first stage's outputs."""
    tail = model.decoder.get_submodule("tail")
    if not isinstance(tail, DetectionTail):
        return {}, {}
    settings = read_strictly(DetectionSettings, tail.settings())
    found = propose(first["objectness"][0], first["deltas"][0], settings)
    proposals = np.zeros((settings.proposals, 4), np.float32)
    proposals[: len(found)] = found
    inputs: Arrays = {"proposals": proposals, "levels": box_levels(proposals, settings)}
    levels = [value for value in first.values() if value.ndim == 4]
    outputs = tail.boxes(*map(torch.from_numpy, (*levels, *inputs.values())))
    named = zip(tail.boxes_outputs, outputs, strict=True)
    return inputs, {name: tensor.numpy() for name, tensor in named}
