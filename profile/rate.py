"""What is sent: bytes per image on real photographs, through the real bitstream."""

import pickle
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from ..errors import ImageError
from ..export.runtime.halves import Device
from ..zoo.preprocessing import Preprocessing
from ..zoo.split_model import SplitModel
from .report import Distribution, ImageRate, Rate, SkippedImage

_PICKLED = ("factorized-prior", "entropy-bottleneck")
COUNTED_BY_SC2BENCH = (*_PICKLED, "input-codec")
"""Kinds of bottleneck whose bytes sc2bench would count as here."""


def model_rates(model: SplitModel, images: Iterable[Path]) -> Rate:
    """Measure a model in PyTorch.

    Raises:
        ImageError: No image could be used.
    """

    @torch.no_grad()
    def measure(path: Path) -> ImageRate:
        latent = model.encoder(torch.from_numpy(model.spec.preprocessing.load(path)))
        tensors = [tensor[0].numpy() for tensor in model.coder.send(latent)]
        payload = model.codec.coder.encode(*tensors)
        likelihoods = model.coder.likelihoods(latent)
        return ImageRate(
            image=path.name,
            payload_bytes=len(payload),
            stream_bytes=len(model.codec.frame(payload, model.codec.coder.shape(*tensors))),
            estimated_bits=-sum(float(one.log2().sum()) for one in likelihoods) or None,
            sc2bench_bytes=_sc2bench_bytes(model, payload, latent.shape[-2:]),
        )

    return _rates(images, measure)


def _sc2bench_bytes(model: SplitModel, payload: bytes, shape: torch.Size) -> int | None:
    """Return the size that sc2bench reports: of a pickle around the payload, or of a file.

    What it pickles for hyperpriors and 8-bit values is in another form than what is sent here, so
    it has no size for them.
    """
    kind = model.spec.bottleneck.kind
    if kind == "input-codec":
        return len(payload)
    if kind not in _PICKLED:
        return None
    return sys.getsizeof(pickle.dumps({"strings": [[payload]], "shape": shape}))


def bundle_rates(device: Device, preprocessing: Preprocessing, images: Iterable[Path]) -> Rate:
    """Measure a bundle's device half.

    Raises:
        ImageError: No image could be used.
    """

    def measure(path: Path) -> ImageRate:
        stream = device.encode(preprocessing.load(path))[0]
        payload = device.codec.unframe(stream)[0]
        return ImageRate(image=path.name, payload_bytes=len(payload), stream_bytes=len(stream))

    return _rates(images, measure)


def _rates(images: Iterable[Path], measure: Callable[[Path], ImageRate]) -> Rate:
    measured: list[ImageRate] = []
    skipped: list[SkippedImage] = []
    for path in images:
        try:
            measured.append(measure(path))
        except ImageError as error:
            skipped.append(SkippedImage(image=path.name, reason=error.reason))
    if not measured:
        raise ImageError(f"{len(skipped)} files given", f"none could be used ({skipped[0].reason})")

    def over(field: str) -> Distribution | None:
        values = [getattr(one, field) for one in measured]
        return None if None in values else Distribution.of(values)

    return Rate(
        count=len(measured),
        payload_bytes=Distribution.of([one.payload_bytes for one in measured]),
        stream_bytes=Distribution.of([one.stream_bytes for one in measured]),
        estimated_bits=over("estimated_bits"),
        sc2bench_bytes=over("sc2bench_bytes"),
        images=measured,
        skipped=skipped,
    )
