"""Calibrating a model: its symbols of images, codings of them, and the one that is kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from splitrun.coding.coder import Array, Coder
from splitrun.coding.dense_models import MAX_SYMBOLS
from splitrun.coding.dense_tables import MAX_CHANNELS
from splitrun.coding.factorized import ContextCoder, FactorizedCoder
from splitrun.coding.hyperprior import ContextHyperpriorCoder, HyperpriorCoder
from splitrun.coding.quantised import QuantisedCoder
from splitrun.coding.relu_range import ReluQuantisedCoder
from splitrun.coding.tables import FactorizedTables
from splitrun.errors import CalibrationError, ImageError
from splitrun.signals import check_stopped

from ...progress import SILENT, Progress
from ..bottlenecks.channel_reduction import relu_range
from ..split_model import SplitModel
from .context import fit_context
from .dense import fit_dense
from .images import LEAST_IMAGES, MOST_IMAGES, check_enough, choose, parted
from .record import Calibration, CalibrationRecord
from .rows import count_rows, tables_from_counts

_MOST_SYMBOLS = 1 << 25
_MOST_VALUES = 1 << 23
"""That are fitted to at once, to save memory: of 8-bit values, each is predicted from many."""

_LIMIT = 15
_REACH = 1023

_PRESENT = "present tables"

Tensors = tuple[Array, ...]
"""What the device half gives for one image, each (C, h, w)."""


def calibrate(
    model: SplitModel,
    folder: Path,
    *,
    most: int = MOST_IMAGES,
    command: str = "",
    progress: Progress = SILENT,
) -> Calibration | None:
    """Fit a model's entropy tables to images, and give the model those that send fewest bytes.

    Weights and answers stay as they are, bit for bit, and so do symbols, but for those of CR + BQ
    of which the edge makes 0 (see ``coding.live``). Three quarters of the images are fitted
    to; on the others, codings are compared: the learned tables; tables counted channel by channel;
    tables that the symbols before pick (see ``coding.context_models``). One is kept only where it
    sends less on average, and of no image 2% + 16 bytes more than the learned tables do.

    Args:
        model: To be calibrated, in place.
        folder: Of images, like those that the model will see.
        most: Images to use, drawn at random with a fixed seed.
        command: For the record.
        progress: Told of each image.

    Returns:
        What the model has now; None where no new tables send less.

    Raises:
        CalibrationError: There are fewer than 8 usable images, or the model's coder has
            nothing to fit: codecs of images and autoregressive coders.
        ImageError: The folder does not exist, or holds no image.
    """
    model.eval()
    _ = model.codec  # makes the tables of a model that was just trained
    learned = model.bottleneck.entropy_coder()
    if type(learned) not in _MAKERS:
        raise CalibrationError(
            f"{model.spec.name} sends what a coder of kind {learned.kind} writes, and that has no "
            "tables to fit.",
            next_step="Models with a learned density or 8-bit values can be calibrated.",
        )
    symbols = sum(int(np.prod(tensor.shape)) for tensor in model.spec.wire)
    at_once = _MOST_VALUES if isinstance(learned, QuantisedCoder) else _MOST_SYMBOLS
    most = min(most, max(LEAST_IMAGES, at_once // symbols))
    images = sent_tensors(model, folder, most=most, progress=progress)
    fitted, held_out = parted(images)
    coders = codings(model, fitted)
    first = next(iter(coders))
    if model.calibration is not None:
        coders[_PRESENT] = model.calibration.coder()
    sizes = {
        name: np.array([len(coder.encode(*one)) for one in held_out])
        for name, coder in coders.items()
    }
    fair = {name: size for name, size in sizes.items() if np.all(size <= 1.02 * sizes[first] + 16)}
    kept = min(fair, key=lambda name: fair[name].mean())
    if kept == first:
        model.calibration = None
    if kept in (first, _PRESENT):
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


def can_be_calibrated(model: SplitModel) -> bool:
    """Say whether a model's coder has tables to fit."""
    return type(model.bottleneck.entropy_coder()) in _MAKERS


def codings(model: SplitModel, images: list[Tensors]) -> dict[str, Coder]:
    """Fit every coding that a model's tensors can have.

    Args:
        model: With a coder that has tables to fit.
        images: What :func:`sent_tensors` gave.

    Returns:
        Coders by name, the one that the model was trained with first.
    """
    learned = model.bottleneck.entropy_coder()
    first = "raw values" if isinstance(learned, QuantisedCoder) else "learned tables"
    return {first: learned} | _MAKERS[type(learned)](images, model)


def sent_tensors(
    model: SplitModel, folder: Path, *, most: int, progress: Progress = SILENT
) -> list[Tensors]:
    """Run the device half: the wire tensors of each usable image, each (C, h, w).

    Raises:
        CalibrationError: There are fewer than 8.
        ImageError: The folder does not exist, or holds no image.
    """
    chosen, sent = choose(folder, most), []
    for path in progress.track(chosen, "images"):
        check_stopped()
        try:
            image = model.spec.preprocessing.load(path)
        except ImageError:
            continue
        tensors = model.wire_tensors(torch.from_numpy(image))
        sent.append(tuple(tensor[0] for tensor in tensors))
    check_enough(folder, len(chosen), len(sent))
    return sent


def _factorized(images: list[Tensors], _model: SplitModel) -> dict[str, Coder]:
    symbols = np.stack([one[0] for one in images])
    channels = symbols.shape[1]
    rows = np.broadcast_to(np.arange(channels)[:, None, None], symbols.shape)
    return {
        "counted tables": FactorizedCoder(_counted(symbols, rows, channels)),
        "context coding": ContextCoder(fit_context(symbols, limit=_LIMIT)),
    }


def _counted(symbols: Array, rows: Array, number: int) -> FactorizedTables:
    reach = min(_REACH, max(1, int(np.abs(symbols.astype(np.int64)).max())))
    return tables_from_counts(count_rows(symbols, rows, number, reach))


def _hyperprior(images: list[Tensors], model: SplitModel) -> dict[str, Coder]:
    learned = model.bottleneck.entropy_coder()
    symbols, hyper_symbols, indexes = (np.stack(tensors) for tensors in zip(*images, strict=True))
    assert isinstance(learned, HyperpriorCoder)
    scales = learned.tables.channels
    tables = fit_context(symbols, limit=_LIMIT, side=indexes.astype(np.uint8), sides=scales)
    channels = hyper_symbols.shape[1]
    rows = np.broadcast_to(np.arange(channels)[:, None, None], hyper_symbols.shape)
    counted = _counted(hyper_symbols, rows, channels), _counted(symbols, indexes, scales)
    return {
        "counted tables": HyperpriorCoder(*counted),
        "context coding": ContextHyperpriorCoder(fit_context(hyper_symbols, limit=_LIMIT), tables),
    }


def _quantised(images: list[Tensors], model: SplitModel) -> dict[str, Coder]:
    if images[0][0].size > MAX_SYMBOLS or images[0][0].shape[0] > MAX_CHANNELS:
        return {}
    live = relu_range(model.decoder.get_submodule("g_s"))
    distances = [
        live.distances(values, live.origins(scale.item(), zero_point.item()))
        for values, scale, zero_point in images
    ]
    tables = fit_dense(np.stack(distances))
    return {"context coding": ReluQuantisedCoder(tables, live)}


_MAKERS: dict[type, Callable[[list[Tensors], SplitModel], dict[str, Coder]]] = {
    FactorizedCoder: _factorized,
    HyperpriorCoder: _hyperprior,
    QuantisedCoder: _quantised,
}
