"""Calibrating a model: fit several codings to its symbols of images, and keep the smallest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from splitrun.coding import Coder, FactorizedCoder, FactorizedTables
from splitrun.coding.coder import Array
from splitrun.coding.context.dense import MAX_CHANNELS, MAX_CONTEXT_VALUES
from splitrun.coding.factorized import ContextCoder
from splitrun.coding.hyperprior import ContextHyperpriorCoder, HyperpriorCoder
from splitrun.coding.integer_hyperprior import IntegerHyperpriorCoder
from splitrun.coding.quantised import QuantisedCoder
from splitrun.coding.relu_range import ReluQuantisedCoder
from splitrun.coding.variable_rate import VariableRateCoder, VariableRateContextCoder
from splitrun.errors import CalibrationError

from ...progress import SILENT, Progress
from ..bottlenecks.channel_reduction import relu_range
from ..parts import in_floats
from ..split_model import SplitModel
from .dense import fit_dense
from .images import (
    LEAST_IMAGES,
    MOST_IMAGES,
    RECOMMENDED_IMAGES,
    DrawnImages,
    draw_images,
    parted,
)
from .record import Calibration, CalibrationRecord
from .rows import count_rows, tables_from_counts
from .sparse import fit_sparse

_MOST_SYMBOLS = 1 << 25
_MOST_VALUES = 1 << 23
"""Largest numbers of symbols, and of 8-bit values, that are fitted to at once, to save memory: each
of the latter is predicted from many."""

_LIMIT = 15
_REACH = 1023

_PRESENT = "present tables"

Tensors = tuple[Array, ...]
"""Wire tensors of one image, each (C, h, w)."""


def calibrate(
    model: SplitModel,
    folder: Path,
    *,
    most: int = MOST_IMAGES,
    command: str = "",
    progress: Progress = SILENT,
) -> Calibration | None:
    """Fit a model's entropy tables to images, and give the model those that send fewest bytes.

    Weights and outputs stay as they are, bit for bit. So do symbols, except for values of CR + BQ
    that the edge's ReLU clips (see ``splitrun.coding.relu_range``). Three quarters of the images
    are fitted to; on the others, codings are compared: the learned tables, tables counted channel
    by channel, and context coding (see ``splitrun.coding.context``). A new one is kept only where
    it sends less on average, and for no image 2% + 16 bytes more than the learned tables; of a
    model of variable rate, at all its levels.

    Args:
        model: Model to calibrate, in place.
        folder: Folder of images like those that the model will see.
        most: Largest number of images to use, drawn at random with a fixed seed.
        command: Command line, for the record.
        progress: Progress, told of each image.

    Returns:
        Calibration that the model has now; None where no new tables send less.

    Raises:
        CalibrationError: There are fewer than 8 usable images, or the model's coder has no tables
            to fit: image codecs and autoregressive coders.
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
    symbols *= len(learned.betas) or 1
    at_once = _MOST_VALUES if learned.is_quantised else _MOST_SYMBOLS
    possible = max(LEAST_IMAGES, at_once // symbols)
    drawn = draw_sent(
        model,
        folder,
        most=min(most, possible),
        recommended=min(RECOMMENDED_IMAGES, possible),
        progress=progress,
    )
    fitted, held_out = parted(list(drawn.used.values()))
    coders = codings(model, fitted)
    first = next(iter(coders))
    if model.calibration is not None:
        coders[_PRESENT] = model.calibration.coder()
    sizes = {
        name: np.array([len(at.encode(*tensors)) for tensors in held_out for at in _levels(coder)])
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
        float_payload_bytes=_float_payload(model, held_out),
        kept=kept,
        unread=tuple(drawn.unread),
        warnings=drawn.warnings,
        command=command,
    )
    model.calibration = Calibration(coders[kept].arrays(), record)
    return model.calibration


@torch.no_grad()
def _float_payload(model: SplitModel, images: list[Tensors]) -> float | None:
    """Return the mean payload with h_s in floats; None where the model has none in integers."""
    floats = in_floats(model)
    if floats is model:
        return None
    coder = floats.bottleneck.entropy_coder()
    wires = (floats.bottleneck.to_wire(torch.from_numpy(latent[None])) for latent, _ in images)
    sizes = [len(coder.encode(*(tensor[0].numpy() for tensor in wire))) for wire in wires]
    return float(np.mean(sizes))


def can_be_calibrated(model: SplitModel) -> bool:
    """Return whether a model's coder has tables to fit."""
    return type(model.bottleneck.entropy_coder()) in _MAKERS


def codings(model: SplitModel, images: list[Tensors]) -> dict[str, Coder]:
    """Fit every coding that a model's tensors can have.

    Args:
        model: Model whose coder has tables to fit.
        images: Result of :func:`sent_tensors`.

    Returns:
        Coders by name, first the one that the model was trained with.
    """
    learned = model.bottleneck.entropy_coder()
    first = "raw values" if learned.is_quantised else "learned tables"
    return {first: learned} | _MAKERS[type(learned)](images, model)


def sent_tensors(model: SplitModel, folder: Path, *, most: int) -> list[Tensors]:
    """Run the device half, and return the wire tensors of each usable image.

    Raises:
        CalibrationError: There are fewer than 8.
        ImageError: The folder does not exist, or holds no image.
    """
    return list(draw_sent(model, folder, most=most).used.values())


def draw_sent(
    model: SplitModel,
    folder: Path,
    *,
    most: int,
    recommended: int = RECOMMENDED_IMAGES,
    progress: Progress = SILENT,
) -> DrawnImages[Tensors]:
    """Draw images, and run the device half on them; see :func:`sent_tensors`."""

    def send(path: Path) -> Tensors:
        image = torch.from_numpy(model.spec.preprocessing.load(path))
        return tuple(tensor[0] for tensor in model.wire_tensors(image))

    return draw_images(folder, send, most=most, recommended=recommended, progress=progress)


def _factorized(images: list[Tensors], _model: SplitModel) -> dict[str, Coder]:
    symbols = np.stack([tensors[0] for tensors in images])
    return {
        "counted tables": FactorizedCoder(_counted(symbols)),
        "context coding": ContextCoder(fit_sparse(symbols, limit=_LIMIT)),
    }


def _levels(coder: Coder) -> list[Coder]:
    """Return the coder at each of its levels, or the only one."""
    return [coder.at(beta) for beta in coder.betas] or [coder]


def _variable_rate(images: list[Tensors], model: SplitModel) -> dict[str, Coder]:
    learned = model.bottleneck.entropy_coder()
    assert isinstance(learned, VariableRateCoder)
    levels, number = learned.levels, range(len(learned.betas))
    # Each level's symbols are channels of their own, as in the tables.
    symbols = [
        (np.concatenate([levels.symbols(latent, level) for level in number]),)
        for (latent,) in images
    ]
    coders = _factorized(symbols, model)
    kinds = {"counted tables": VariableRateCoder, "context coding": VariableRateContextCoder}
    return {
        name: kinds[name](coder.tables, levels, learned.level)  # pyright: ignore
        for name, coder in coders.items()
    }


def _counted(symbols: Array, indexes: Array | None = None, scales: int = 0) -> FactorizedTables:
    """Count symbols (N, C, h, w) by their scale indexes; without these, channel by channel."""
    channels = symbols.shape[1]
    rows = np.arange(channels)[:, None, None] if indexes is None else indexes
    reach = min(_REACH, max(1, int(np.abs(symbols.astype(np.int64)).max())))
    rows = np.broadcast_to(rows, symbols.shape)
    return tables_from_counts(count_rows(symbols, rows, scales or channels, reach))


def _hyperprior(images: list[Tensors], model: SplitModel) -> dict[str, Coder]:
    return _hyperprior_coders(images, model.bottleneck.entropy_coder())


def _integer_hyperprior(images: list[Tensors], model: SplitModel) -> dict[str, Coder]:
    learned = model.bottleneck.entropy_coder()
    assert isinstance(learned, IntegerHyperpriorCoder)
    coders = _hyperprior_coders([learned.sent(*tensors) for tensors in images], learned.inner)
    return {name: learned.around(coder) for name, coder in coders.items()}


def _hyperprior_coders(images: list[Tensors], learned: Coder) -> dict[str, Coder]:
    symbols, hyper_symbols, indexes = (np.stack(tensors) for tensors in zip(*images, strict=True))
    assert isinstance(learned, HyperpriorCoder)
    scales = learned.rows
    tables = fit_sparse(symbols, limit=_LIMIT, side=indexes.astype(np.uint8), sides=scales)
    counted = _counted(hyper_symbols), _counted(symbols, indexes, scales)
    return {
        "counted tables": HyperpriorCoder(*counted),
        "context coding": ContextHyperpriorCoder(fit_sparse(hyper_symbols, limit=_LIMIT), tables),
    }


def _quantised(images: list[Tensors], model: SplitModel) -> dict[str, Coder]:
    if images[0][0].size > MAX_CONTEXT_VALUES or images[0][0].shape[0] > MAX_CHANNELS:
        return {}
    kept = relu_range(model.decoder.get_submodule("g_s"))
    distances = [
        kept.distances(values, kept.origins(scale.item(), zero_point.item()))
        for values, scale, zero_point in images
    ]
    return {"context coding": ReluQuantisedCoder(fit_dense(np.stack(distances)), kept)}


_MAKERS: dict[type, Callable[[list[Tensors], SplitModel], dict[str, Coder]]] = {
    FactorizedCoder: _factorized,
    HyperpriorCoder: _hyperprior,
    IntegerHyperpriorCoder: _integer_hyperprior,
    VariableRateCoder: _variable_rate,
    QuantisedCoder: _quantised,
}
