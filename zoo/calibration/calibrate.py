"""Calibrating a model: its symbols of photographs, codings of them, and the one that is kept."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from ...errors import CalibrationError, ImageError
from ..coding.coder import Array, Coder
from ..coding.factorized import ContextCoder, FactorizedCoder
from ..coding.hyperprior import ContextHyperpriorCoder, HyperpriorCoder
from ..coding.quantised import ContextQuantisedCoder, QuantisedCoder
from ..preprocessing import list_images
from ..split_model import SplitModel
from .context import fit_context
from .record import Calibration, CalibrationRecord
from .rows import count_rows, tables_from_counts

MOST_IMAGES = 384
LEAST_IMAGES = 8
_HELD_OUT = 4
"""One photograph of so many is not fitted to."""

_MOST_SYMBOLS = 1 << 25
_LIMIT = 15
_VALUE_LIMIT = 255
_REACH = 1023

Track = Callable[[Sequence[Path]], Iterable[Path]]


def calibrate(
    model: SplitModel,
    folder: Path,
    *,
    most: int = MOST_IMAGES,
    command: str = "",
    track: Track = iter,
) -> Calibration | None:
    """Fit a model's entropy tables to photographs, and give the model those that send fewest bytes.

    Weights, symbols and answers stay as they are. Three quarters of the photographs are fitted to;
    on the others, codings are compared: the learned tables; tables counted channel by channel;
    tables that the symbols before pick (see ``coding.context_models``). One is kept only where it
    sends less on average, and of no photograph 2% + 16 bytes more than the learned tables do.

    Args:
        model: To be calibrated, in place.
        folder: Of photographs, like those that the model will see.
        most: Photographs to use, drawn at random with a fixed seed.
        command: For the record.
        track: Goes over the photographs and shows it.

    Returns:
        What was done; None where the learned tables are the best.

    Raises:
        CalibrationError: There are fewer than 8 usable photographs, or the model's coder has
            nothing to fit: codecs of pictures and autoregressive coders.
        ImageError: The folder does not exist, or holds no image.
    """
    refuse_without_tables(model)
    symbols = sum(int(np.prod(tensor.shape)) for tensor in model.spec.wire)
    most = min(most, max(LEAST_IMAGES, _MOST_SYMBOLS // symbols))
    images = sent_tensors(model, folder, most=most, track=track)
    fitted = [one for number, one in enumerate(images) if number % _HELD_OUT]
    held_out = images[::_HELD_OUT]
    coders = codings(model, fitted)
    first = next(iter(coders))
    sizes = {
        name: np.array([len(coder.encode(*one)) for one in held_out])
        for name, coder in coders.items()
    }
    fair = {name: size for name, size in sizes.items() if np.all(size <= 1.02 * sizes[first] + 16)}
    kept = min(fair, key=lambda name: fair[name].mean())
    if kept == first:
        model.calibration = None
        return None
    record = CalibrationRecord(
        kind=coders[kept].kind,
        fitted=len(fitted),
        held_out=len(held_out),
        payload_bytes={name: float(size.mean()) for name, size in sizes.items()},
        kept=kept,
        command=command,
    )
    model.calibration = Calibration(coders[kept].arrays(), record)
    return model.calibration


def refuse_without_tables(model: SplitModel) -> None:
    """Refuse a model whose coder has nothing to fit.

    Raises:
        CalibrationError: It is a codec of pictures, or autoregressive.
    """
    model.eval()
    _ = model.codec  # makes the tables of a model that was just trained
    learned = model.coder.coder()
    if type(learned) not in _MAKERS:
        raise CalibrationError(
            f"{model.spec.name} sends what a coder of kind {learned.kind} writes, and that has no "
            "tables to fit.",
            next_step="Models with a learned density or 8-bit values can be calibrated.",
        )


def codings(model: SplitModel, images: list[tuple[Array, ...]]) -> dict[str, Coder]:
    """Fit every coding that a model's tensors can have.

    Args:
        model: With a coder that has tables to fit.
        images: What :func:`sent_tensors` gave.

    Returns:
        Coders by name, the one that the model was trained with first.
    """
    learned = model.coder.coder()
    first = "raw values" if isinstance(learned, QuantisedCoder) else "learned tables"
    return {first: learned} | _MAKERS[type(learned)](images, learned)


def sent_tensors(
    model: SplitModel, folder: Path, *, most: int, track: Track = iter
) -> list[tuple[Array, ...]]:
    """Run the device half: the wire tensors of each usable photograph, each (C, h, w).

    Raises:
        CalibrationError: There are fewer than 8.
        ImageError: The folder does not exist, or holds no image.
    """
    found = list_images(folder)
    chosen = sorted(random.Random(0).sample(found, min(most, len(found))))
    # Which ones are held out must not follow from the folders that they are sorted by.
    random.Random(1).shuffle(chosen)
    sent, broken = [], 0
    for path in track(chosen):
        try:
            image = model.spec.preprocessing.load(path)
        except ImageError:
            broken += 1
            continue
        tensors = model.wire_tensors(torch.from_numpy(image))
        sent.append(tuple(tensor[0] for tensor in tensors))
    if len(sent) < LEAST_IMAGES:
        unusable = f", {broken} of them unusable" if broken else ""
        raise CalibrationError(
            f"{folder} has {len(chosen)} images{unusable}: calibration takes {LEAST_IMAGES} at "
            "least, and some hundred are better.",
            next_step="Give photographs like those that the camera will see.",
        )
    return sent


def _factorized(images: list[tuple[Array, ...]], _learned: Coder) -> dict[str, Coder]:
    symbols = np.stack([one[0] for one in images])
    channels = symbols.shape[1]
    reach = min(_REACH, max(1, int(np.abs(symbols.astype(np.int64)).max())))
    rows = np.broadcast_to(np.arange(channels)[:, None, None], symbols.shape)
    counted = tables_from_counts(count_rows(symbols, rows, channels, reach))
    return {
        "counted tables": FactorizedCoder(counted),
        "context coding": ContextCoder(fit_context(symbols, limit=_LIMIT)),
    }


def _hyperprior(images: list[tuple[Array, ...]], learned: Coder) -> dict[str, Coder]:
    symbols, hyper_symbols, indexes = (np.stack(tensors) for tensors in zip(*images, strict=True))
    assert isinstance(learned, HyperpriorCoder)
    tables = fit_context(
        symbols, limit=_LIMIT, side=indexes.astype(np.uint8), sides=learned.tables.channels
    )
    return {
        "context coding": ContextHyperpriorCoder(fit_context(hyper_symbols, limit=_LIMIT), tables),
    }


def _quantised(images: list[tuple[Array, ...]], _learned: Coder) -> dict[str, Coder]:
    values = np.stack([one[0].astype(np.int32) - np.int32(one[2].item()) for one in images])
    return {"context coding": ContextQuantisedCoder(fit_context(values, limit=_VALUE_LIMIT))}


_MAKERS: dict[type, Callable[[list[tuple[Array, ...]], Coder], dict[str, Coder]]] = {
    FactorizedCoder: _factorized,
    HyperpriorCoder: _hyperprior,
    QuantisedCoder: _quantised,
}
