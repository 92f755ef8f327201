"""What is sent: bytes per image on real images, through the real bitstream."""

import pickle
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from splitrun.coding import Codec
from splitrun.coding.factorized import SymbolCoder
from splitrun.coding.hyperprior import HierarchicalCoder
from splitrun.coding.integer_hyperprior import IntegerCoder
from splitrun.coding.variable_rate import VariableRateCoder
from splitrun.errors import ImageError
from splitrun.halves import Device
from splitrun.image_files import Unread
from splitrun.preprocessing import Preprocessing
from splitrun.text import visible

from ..zoo.split_model import SplitModel
from .report import Distribution, ImageRate, Rate, skipped_parts

_WITH_IDEAL_BITS = SymbolCoder | HierarchicalCoder | IntegerCoder | VariableRateCoder
_PICKLED = ("factorized-prior", "entropy-bottleneck")
COUNTED_BY_SC2BENCH = (*_PICKLED, "input-codec")
"""Kinds of bottleneck whose bytes sc2bench would count as here."""
UNCOUNTED_BY_SC2BENCH = "bytes as sc2bench counts (it sends this kind in another form)"


def model_rates(model: SplitModel, images: Iterable[Path], unread: Sequence[Unread] = ()) -> Rate:
    """Measure the bytes of images that a model in PyTorch encodes.

    Args:
        unread: Other files of their folder, for the report.

    Raises:
        ImageError: No image could be used.
    """

    def measure(path: Path) -> ImageRate:
        return model_rate(model, visible(path.name, keep=""), model.spec.preprocessing.load(path))[
            0
        ]

    rate = _rates(images, measure, unread)
    calibrated = model.calibration is not None
    return rate.model_copy(update={"estimated_by": "calibrated tables"}) if calibrated else rate


@torch.no_grad()
def model_rate(model: SplitModel, name: str, image: NDArray[np.float32]) -> tuple[ImageRate, bytes]:
    """Encode one image (1, 3, H, W) float32 in PyTorch; return its bytes, and the stream itself."""
    latent = model.encoder(torch.from_numpy(image))
    tensors = [tensor[0].numpy() for tensor in model.bottleneck.to_wire(latent)]
    coder = model.codec.coder
    payload = coder.encode(*tensors)
    stream = model.codec.frame(payload, coder.shape(*tensors))
    if model.calibration is not None and isinstance(coder, _WITH_IDEAL_BITS):
        estimated = coder.ideal_bits(*tensors)
    else:
        likelihoods = model.bottleneck.likelihoods(latent)
        estimated = -sum(float(tensor.log2().sum()) for tensor in likelihoods)
    rate = ImageRate(
        image=name,
        payload_bytes=len(payload),
        stream_bytes=len(stream),
        estimated_bits=estimated or None,
        sc2bench_bytes=_sc2bench_bytes(model, payload, latent.shape[-2:]),
    )
    return rate, stream


def _sc2bench_bytes(model: SplitModel, payload: bytes, shape: torch.Size) -> int | None:
    """Return the size that sc2bench reports: of a pickle around the payload, or of a file.

    sc2bench pickles hyperpriors and 8-bit values in another form than what is sent here, and it
    has no calibrated tables: for these there is no size.
    """
    kind = model.spec.bottleneck.kind
    if kind == "input-codec":
        return len(payload)
    if kind not in _PICKLED or model.calibration is not None:
        return None
    return sys.getsizeof(pickle.dumps({"strings": [[payload]], "shape": shape}))


def bundle_rates(
    device: Device,
    preprocessing: Preprocessing,
    images: Iterable[Path],
    unread: Sequence[Unread] = (),
    beta: float | None = None,
) -> Rate:
    """Measure the bytes of images that a bundle's device half encodes; see :func:`model_rates`.

    Raises:
        ImageError: No image could be used.
    """

    def measure(path: Path) -> ImageRate:
        return bundle_rate(device, visible(path.name, keep=""), preprocessing.load(path), beta)[0]

    return _rates(images, measure, unread)


def bundle_rate(
    device: Device, name: str, image: NDArray[np.float32], beta: float | None = None
) -> tuple[ImageRate, bytes]:
    """Encode one image (1, 3, H, W) float32 by a bundle; return its bytes, and the stream."""
    stream = device.encode(image, beta)[0]
    return stream_rate(device.codec, name, stream), stream


def stream_rate(codec: Codec, name: str, stream: bytes) -> ImageRate:
    """Return the bytes of a stream.

    Raises:
        BitstreamError: The stream is damaged, or of another model.
    """
    payload = codec.unframe(stream)[0]
    return ImageRate(image=name, payload_bytes=len(payload), stream_bytes=len(stream))


def summarise(rates: Sequence[ImageRate], field: str) -> Distribution | None:
    """Return the distribution of a field over images; None where an image lacks it."""
    values = [getattr(rate, field) for rate in rates]
    return None if None in values else Distribution.of(values)


def _rates(
    images: Iterable[Path], measure: Callable[[Path], ImageRate], others: Sequence[Unread]
) -> Rate:
    measured: list[ImageRate] = []
    unread: list[Unread] = []
    for path in images:
        try:
            measured.append(measure(path))
        except ImageError as error:
            unread.append(Unread(visible(path.name, keep=""), visible(error.reason, keep="")))
    if not measured:
        reason = f"none could be used ({unread[-1].reason})"
        raise ImageError(f"{len(unread)} files given", reason)
    return Rate(
        count=len(measured),
        payload_bytes=Distribution.of([rate.payload_bytes for rate in measured]),
        stream_bytes=Distribution.of([rate.stream_bytes for rate in measured]),
        estimated_bits=summarise(measured, "estimated_bits"),
        sc2bench_bytes=summarise(measured, "sc2bench_bytes"),
        images=measured,
        **skipped_parts([*unread, *others]),
    )
