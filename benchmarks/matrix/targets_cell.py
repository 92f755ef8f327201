"""One cell of the matrix of targets: a model exported to one target, and what of it held."""

import importlib
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Literal

from splitrun.bundle import Bundle, open_bundle
from splitrun.errors import (
    BundleError,
    CalibrationError,
    DependencyError,
    SplitzooError,
    UnknownNameError,
)
from splitrun.manifest import Manifest
from splitrun.tensorrt.builder import build
from splitzoo import export
from splitzoo.export.targets import TARGETS
from splitzoo.export.tensorrt_operators import check_supported
from splitzoo.zoo.split_model import SplitModel

State = Literal["exported", "refused", "failed", "not tried"]

_FORESEEN = (BundleError, CalibrationError, UnknownNameError)
_MOST_WORDS = 240


@dataclass(frozen=True)
class Column:
    """A target and a precision to export to."""

    target: str
    precision: str
    aot: bool = False

    @property
    def title(self) -> str:
        """Name of the column in the table."""
        if self.aot:
            return f"{self.target} --aot"
        alone = len(TARGETS.get(self.target).precisions) == 1
        return self.target if alone else f"{self.target} {self.precision}"


@dataclass(frozen=True)
class Built:
    """A graph that was given to TensorRT-RTX.

    Attributes:
        graph: Name of the graph in the bundle.
        reason: Why it could not be built; empty where it was.
    """

    graph: str
    reason: str = ""


@dataclass(frozen=True)
class Cell:
    """One export.

    Attributes:
        column: Title of the column.
        state: Refused where splitzoo rules a model and a target out; failed where another library
            fails, or parity does not hold.
        reason: Why it is not exported.
        symbols: Integers compared with PyTorch's, over the images of parity; 0 where floats are
            sent.
        symbols_differing: Number of these that differ.
        sent_tolerance: Tolerance of floats that are sent, relative to the largest.
        output_error: Largest relative error of the edge's output.
        flips: Share, below fp32, of the symbols that differ on images held out.
        largest_difference: Largest difference of a symbol below fp32.
        rate_inflation: Share by which the payload grows below fp32.
        beyond: Limits that the export exceeds; it was made with ``--accept``.
        built: Outcome of TensorRT-RTX for each graph, where the target is a Jetson.
        seconds: Time that the export took.
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
        model: Model in evaluation mode.
        column: Column to export to.
        images: Folder of images for precisions below fp32.
    """
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        try:
            cell = _export(model, column, images, folder)
        except Exception as error:  # noqa: BLE001  # the table is there to show it
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
    if open_bundle(folder).device.graph.engine != "tensorrt":
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
    # An error with a cause comes from another library: its reason was not foreseen.
    return "refused" if isinstance(error, _FORESEEN) and error.__cause__ is None else "failed"


def _words(error: Exception, name: str, temporary: str) -> str:
    """Return the first sentence of an error, so that models with the same reason share it."""
    ours = isinstance(error, SplitzooError)
    text = error.message if ours else f"{type(error).__name__}: {error}"
    # A bundle that is being written has a temporary name.
    text = re.sub(rf"{re.escape(temporary)}/[.]?bundle([.]\w+)?", "BUNDLE", text)
    text = text.replace(name, "The model").strip()
    sentence = re.split(r"(?<=[.!?])\s|\n", text, maxsplit=1)[0]
    short = sentence if len(sentence) <= _MOST_WORDS else f"{sentence[:_MOST_WORDS]}…"
    return short.replace("|", "\\|")


def rtx_version() -> str:
    """Return the version of TensorRT-RTX; empty where it cannot be imported."""
    module = _find()
    return str(module.__version__) if module else ""


def build_graphs(bundle: Bundle, names: Sequence[str] = ()) -> tuple[Built, ...]:
    """Build TensorRT-RTX engines of a bundle's ONNX files, without a GPU; they are not kept.

    Args:
        bundle: Bundle for one image at a time.
        names: Names of graphs; by default, all.

    Returns:
        One result for each graph; none where TensorRT-RTX cannot be imported.
    """
    module = _find()
    if module is None:
        return ()
    built = []
    for name in names or bundle.graphs:
        path = bundle.path(bundle.graphs[name].file)
        try:
            build(module, path)
            # The edge's graphs were written for ONNX Runtime, and are not checked yet.
            check_supported(path)
        except BundleError as error:
            built.append(Built(name, error.message))
        else:
            built.append(Built(name))
    return tuple(built)


def _find() -> ModuleType | None:
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError, RuntimeError):
        return None
