"""One cell of the matrix of targets: a model exported to one target, and what of it held."""

import re
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.matrix.tensorrt_rtx import Built, build_graphs
from splitrun.bundle import open_bundle
from splitrun.errors import (
    BundleError,
    CalibrationError,
    DependencyError,
    SplitzooError,
    UnknownNameError,
)
from splitrun.manifest import Manifest
from splitzoo import export
from splitzoo.export.targets import TARGETS
from splitzoo.zoo.split_model import SplitModel

State = Literal["exported", "refused", "failed", "not tried"]

_FORESEEN = (BundleError, CalibrationError, UnknownNameError)
_MOST_WORDS = 240


@dataclass(frozen=True)
class Column:
    """A target, and how it is exported to."""

    target: str
    precision: str
    aot: bool = False

    @property
    def title(self) -> str:
        """As it is called in the table."""
        if self.aot:
            return f"{self.target} --aot"
        alone = len(TARGETS.get(self.target).precisions) == 1
        return self.target if alone else f"{self.target} {self.precision}"


@dataclass(frozen=True)
class Cell:
    """One export.

    Attributes:
        column: Its title.
        state: Refused is what this project says of a model and a target; failed is what another
            library says, and parity that does not hold.
        reason: Where it is not exported.
        symbols: Integers compared with PyTorch's, over the images of parity; 0 where floats are
            sent.
        symbols_differing: Of these.
        sent_tolerance: Of floats that are sent, relative to the largest.
        output_error: Largest of the edge's, relative.
        flips: Below fp32, share of the symbols that differ, on images held out.
        largest_difference: Likewise, of a symbol.
        rate_inflation: Likewise, share by which the payload grows.
        beyond: Limits that this is beyond; it was exported with ``--accept``.
        built: For a Jetson, what TensorRT-RTX made of the graphs.
        seconds: That it took.
    """

    column: str
    state: State
    reason: str = ""
    symbols: int = 0
    symbols_differing: int = 0
    sent_tolerance: float = 0.0
    output_error: float = 0.0
    flips: float | None = None
    largest_difference: int = 0
    rate_inflation: float | None = None
    beyond: tuple[str, ...] = ()
    built: tuple[Built, ...] = ()
    seconds: float = 0.0


def measure_cell(model: SplitModel, column: Column, images: Path) -> Cell:
    """Export a model, and note how it compares with PyTorch.

    Args:
        model: In evaluation mode.
        column: To export to.
        images: Folder, for what is below fp32.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        try:
            cell = _export(model, column, images, folder)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what the table is for
            cell = Cell(column.title, _state(error), _words(error, model.spec.name, temporary))
    return replace(cell, seconds=round(time.perf_counter() - begun, 1))


def _export(model: SplitModel, column: Column, images: Path, folder: Path) -> Cell:
    lower = column.precision != "fp32"
    manifest = export.split(
        model,
        folder,
        target=column.target,
        precision=column.precision,
        aot=column.aot,
        calibration=images if lower else None,
        keep_tables=True,
        accept=lower,
    )
    cell = _cell(column, manifest)
    if open_bundle(folder).device.engine != "tensorrt":
        return cell
    # The edge's graphs are in fp32, whatever the device's are.
    return replace(cell, built=build_graphs(open_bundle(folder), ("device",) if lower else ()))


def _cell(column: Column, manifest: Manifest) -> Cell:
    parity, effect = manifest.parity, manifest.precision_report
    return Cell(
        column=column.title,
        state="exported",
        symbols=parity.symbols,
        symbols_differing=parity.symbols_differing,
        sent_tolerance=parity.limits.wire_tolerance,
        output_error=parity.output_max_relative_error,
        flips=effect.flips if effect else None,
        largest_difference=effect.largest_difference if effect else 0,
        rate_inflation=effect.rate_inflation if effect else None,
        beyond=tuple(effect.accepted) if effect else (),
    )


def _state(error: Exception) -> State:
    if isinstance(error, DependencyError):
        return "not tried"
    # Where another library's error is told as ours, its reason was not foreseen.
    return "refused" if isinstance(error, _FORESEEN) and error.__cause__ is None else "failed"


def _words(error: Exception, name: str, temporary: str) -> str:
    """Return the first sentence of an error, so that models with the same reason share it."""
    ours = isinstance(error, SplitzooError)
    text = error.message if ours else f"{type(error).__name__}: {error}"
    # A bundle that is being written has a name of its own.
    text = re.sub(rf"{re.escape(temporary)}/[.]?bundle([.]\w+)?", "BUNDLE", text)
    text = text.replace(name, "The model").strip()
    sentence = re.split(r"(?<=[.!?])\s|\n", text, maxsplit=1)[0]
    short = sentence if len(sentence) <= _MOST_WORDS else f"{sentence[:_MOST_WORDS]}…"
    return short.replace("|", "\\|")
