"""The precision report: what a precision below fp32 changes in symbols, bytes and predictions."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from splitrun.bundle import Bundle
from splitrun.comparison import Comparison, compare_integers, not_comparable, relative_error
from splitrun.errors import CalibrationError, DatasetError, DesyncError, ImageError, ParityError
from splitrun.halves import Device, StreamReader, Tensors
from splitrun.image_files import UnreadCount
from splitrun.image_reading import check_image
from splitrun.limits import Limits
from splitrun.precision_reports import PrecisionReport
from splitrun.preprocessing import Preprocessing
from splitrun.record import Record
from splitrun.signals import check_stopped

from ...progress import SILENT, Progress
from ...zoo.calibration.images import draw_images, parted
from ...zoo.datasets import labels_of, read_dataset
from ...zoo.split_model import SplitModel
from ..graphs import EdgeGraph
from ..recording import seeded_image
from .lowering import Lowering

MOST_INFLATION = {"fp16": 0.01, "bf16": 0.05, "int8": 0.05}
"""Share by which the payload may grow or shrink: a graph that loses its signal sends less."""

MOST_POINTS = 0.5
"""Points of top-1 that may be lost, beside one image: a hundred images tell no more."""

_MADE = 16
"""Number of images that are made where none are given."""

Labelled = tuple[NDArray[np.float32], int | None]
"""A preprocessed image (1, 3, H, W), and the index of its class where it is known."""


@dataclass(frozen=True)
class CalibrationImages:
    """The images of a folder: those to calibrate with, and those to compare on.

    Attributes:
        fitted: Images to calibrate with.
        held_out: Images to compare on.
        classes: Index of the class, for each image in a folder that is named after a class.
        unread: Numbers of files that are not read, by reason and ending.
        warnings: What speaks against relying on the images, in words.
    """

    fitted: list[Path]
    held_out: list[Path]
    classes: dict[Path, int]
    unread: Sequence[UnreadCount] = ()
    warnings: tuple[str, ...] = ()


def read_images(model: SplitModel, folder: Path, progress: Progress = SILENT) -> CalibrationImages:
    """Find the images of a folder that can be read, part them, and say what is not read.

    Raises:
        CalibrationError: There are fewer than 8, or there is no such folder.
    """
    try:
        drawn = draw_images(folder, check_image, progress=progress)
    except ImageError as error:
        raise CalibrationError(
            f"There are no images to calibrate with: {folder}: {error.reason}.",
            next_step="Give a folder with at least 8: --calibration DIR",
        ) from error
    usable = list(drawn.used)
    classes = _classes(model, folder, usable)
    return CalibrationImages(*parted(usable), classes, drawn.unread, drawn.warnings)


def _classes(model: SplitModel, folder: Path, usable: list[Path]) -> dict[Path, int]:
    if model.spec.task != "image-classification":
        return {}
    labels = labels_of(model.spec)
    # Folders of other names hold images too, which calibrate as well.
    numbers = {label: number for number, label in enumerate(labels)}
    found = {path: numbers[path.parent.name] for path in usable if path.parent.name in numbers}
    with contextlib.suppress(DatasetError):
        dataset = read_dataset(model.spec.task, folder, "train", labels)
        found |= {one.path: one.target for one in dataset.samples if isinstance(one.target, int)}
    return found


@torch.no_grad()
def measure_precision(
    model: SplitModel,
    bundle: Bundle,
    images: CalibrationImages | None,
    lowering: Lowering,
    records: Sequence[Record] = (),
) -> PrecisionReport:
    """Compare the device half of a bundle with the model in fp32.

    Args:
        model: Model in evaluation mode.
        bundle: Its bundle, with a device graph of a lower precision.
        images: Images whose held-out part is compared; None compares made images.
        lowering: What wrote the graph: it says what it left in fp32, and how many images it saw.
        records: Records that parity is checked on: the worst of them counts too.

    Raises:
        ParityError: What is sent is not a number.
    """
    device, reader = Device(bundle, stand_in=True), StreamReader(bundle, stand_in=True)
    edge = EdgeGraph(model).eval()  # in fp32, whatever the bundle's is in
    worst = _Worst()
    for record in records:
        worst.see(bundle, device.wire_tensors(record.device.image), record.device.wire)
    compared = Comparison()
    payloads: list[tuple[int, int]] = []
    correct: list[tuple[bool, bool]] = []
    for image, label in read_labelled(model.spec.preprocessing, images):
        check_stopped()
        exact = model.wire_tensors(torch.from_numpy(image))
        found = device.wire_tensors(image)
        sent = dict(zip(model.bottleneck.wire_names, exact, strict=True))
        compared += worst.see(bundle, found, sent)
        streams = [device.compress(*(tensor[0] for tensor in wire)) for wire in (exact, found)]
        payloads.append((streams[0].payload_bytes, streams[1].payload_bytes))
        if label is not None:
            before = int(model(torch.from_numpy(image)).argmax())
            correct.append((before == label, _prediction(reader, edge, streams[1]) == label))
    if math.isinf(worst.wire_error):
        raise ParityError(
            f"In {lowering.precision}, what is sent is not a number.",
            next_step="Choose another --precision.",
        )
    correct_fp32, correct_here = np.sum(correct, axis=0).tolist() if correct else (None, None)
    means = np.mean(payloads, axis=0)
    return PrecisionReport(
        calibrated=lowering.calibrated,
        unread=tuple(images.unread) if images else (),
        warnings=images.warnings if images else (),
        held_out=len(payloads),
        real_images=images is not None,
        symbols=compared.symbols,
        flips=compared.differing / max(compared.symbols, 1),
        changed=compared.changed,
        most_changed=worst.changed,
        largest_difference=worst.difference,
        wire_error=worst.wire_error,
        payload_bytes_fp32=float(means[0]),
        payload_bytes=float(means[1]),
        labelled=len(correct),
        correct_fp32=correct_fp32,
        correct=correct_here,
        kept_fp32=tuple(lowering.kept),
    )


@dataclass
class _Worst:
    """The most that a tensor of one image differs by, as parity and self-tests judge it."""

    changed: float = 0.0
    difference: int = 0
    wire_error: float = 0.0

    def see(self, bundle: Bundle, found: Tensors, exact: Mapping[str, NDArray[Any]]) -> Comparison:
        """Compare one image, and count its integers that can be compared."""
        left_out = not_comparable(bundle.precision, bundle.manifest.edge.hyper, found, exact)
        counted = Comparison()
        for (name, before), after in zip(exact.items(), found, strict=True):
            if name in left_out:
                continue
            if before.dtype.kind == "f":
                self.wire_error = max(self.wire_error, relative_error(after, before))
                continue
            here = compare_integers(after, before)
            self.changed = max(self.changed, here.changed)
            self.difference = max(self.difference, here.largest)
            counted += here
        return counted


def _prediction(reader: StreamReader, edge: EdgeGraph, stream: bytes) -> int | None:
    """Return the class that the edge finds; None where its scales are not the device's."""
    try:
        inputs = reader.decompress(stream)
    except DesyncError:
        return None
    return int(edge(*map(torch.from_numpy, inputs))[0].argmax())


def read_labelled(
    preprocessing: Preprocessing, images: CalibrationImages | None
) -> Iterator[Labelled]:
    """Read the held-out images, or make some where none are given."""
    if images is None:
        yield from ((seeded_image(preprocessing, number), None) for number in range(_MADE))
    else:
        for path in images.held_out:
            yield preprocessing.load(path), images.classes.get(path)


def exceeded_limits(report: PrecisionReport, limits: Limits, precision: str) -> list[str]:
    """Return in words which limits are exceeded."""
    found, most = [], MOST_INFLATION[precision]
    if report.most_changed > limits.changed:
        found.append(
            f"of the symbols that are not 0, {report.changed:.2%} differ, in one image up to "
            f"{report.most_changed:.2%} ({limits.changed:.0%} may)"
        )
    if report.wire_error > limits.wire_tolerance:
        found.append(
            f"what is sent differs by {report.wire_error:.1%} of the largest "
            f"({limits.wire_tolerance:.0%} is allowed)"
        )
    if report.largest_difference > limits.difference:
        found.append(
            f"a symbol differs by {report.largest_difference} ({limits.difference} is allowed)"
        )
    if abs(report.rate_inflation) > most:
        found.append(f"the payload changes by {report.rate_inflation:+.1%} ({most:.0%} is allowed)")
    if report.correct is not None and report.correct_fp32 is not None:
        found += lost_predictions(report.labelled, report.correct_fp32, report.correct)
    return found


def lost_predictions(labelled: int, correct_fp32: int, correct: int) -> list[str]:
    """Say how many images are no longer named correctly, where that is too many."""
    lost = correct_fp32 - correct
    if lost <= 1 + MOST_POINTS / 100 * labelled:
        return []
    return [
        f"{lost} of {labelled} images are no longer named correctly "
        f"({MOST_POINTS} points and one image are allowed)"
    ]
