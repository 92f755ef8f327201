"""The precision report of the edge: what it changes in outputs and answers."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from splitrun.bundle import Bundle
from splitrun.comparison import relative_error
from splitrun.errors import ParityError
from splitrun.halves import Edge
from splitrun.limits import Limits
from splitrun.precision_reports import EdgePrecisionReport
from splitrun.record import Arrays, Record
from splitrun.signals import check_stopped

from ...zoo.split_model import SplitModel
from ..graphs import EdgeGraph
from ..recording import edge_inputs
from .lowering import Lowering
from .report import CalibrationImages, Labelled, lost_predictions, read_labelled

MOST_CHANGED = {
    "fp16": 0.01,
    "bf16": 0.02,
    "int8": 0.05,
    "fp16-weights": 0.01,
    "int8-weights": 0.02,
}
"""Share of the answers that may change, beside that of one image: a hundred images tell no more."""


def inputs_of_edge(model: SplitModel, images: Iterable[Labelled]) -> Iterator[Arrays]:
    """Give the edge graph's inputs for images, as they come out of the streams of PyTorch."""
    for image, _ in images:
        yield edge_inputs(model, model.wire_tensors(torch.from_numpy(image)))


@torch.no_grad()
def measure_edge(
    model: SplitModel,
    bundle: Bundle,
    images: CalibrationImages | None,
    lowering: Lowering,
    records: Sequence[Record] = (),
) -> EdgePrecisionReport:
    """Compare the edge graph of a bundle with the model in fp32, on the same symbols.

    Args:
        model: Model in evaluation mode.
        bundle: Its bundle with one tail, whose edge graph is of a lower precision.
        images: Images whose held-out part is compared; None compares made images.
        lowering: What wrote the graph: it says how many images it saw.
        records: Records that parity is checked on: the worst error of an output is of them too.

    Raises:
        ParityError: An output is not a number.
    """
    edge, exact = Edge(bundle, stand_in=True), EdgeGraph(model).eval()
    worst = 0.0
    for record in records:
        found = edge.graph(list(record.edge.inputs.values()))
        worst = max(worst, *map(relative_error, found, record.edge.outputs.values()))
    answers = changed = labelled = before = here = held_out = 0
    errors: list[float] = []
    for image, label in read_labelled(model.spec.preprocessing, images):
        check_stopped()
        held_out += 1
        inputs = edge_inputs(model, model.wire_tensors(torch.from_numpy(image)))
        found = edge.graph(list(inputs.values()))
        expected = [tensor.numpy() for tensor in exact(*map(torch.from_numpy, inputs.values()))]
        worst = max(worst, *map(relative_error, found, expected))
        errors.append(_error(found, expected))
        if model.spec.task == "object-detection":
            continue
        # Of (1, classes) one, of (1, classes, height, width) one for each pixel.
        ours, theirs = found[0].argmax(1), expected[0].argmax(1)
        answers += ours.size
        changed += int((ours != theirs).sum())
        if label is not None:
            labelled += 1
            before += int(theirs.item() == label)
            here += int(ours.item() == label)
    if math.isinf(worst):
        raise ParityError(
            f"With the edge in {lowering.precision}, an output is not a number.",
            next_step="Choose another --edge-precision.",
        )
    return EdgePrecisionReport(
        calibrated=lowering.calibrated,
        held_out=held_out,
        real_images=images is not None,
        answers=answers,
        answers_changed=changed,
        output_error=float(np.mean(errors)),
        worst_error=worst,
        labelled=labelled,
        correct_fp32=before,
        correct=here,
        warnings=images.warnings if images else (),
    )


def _error(found: Sequence[NDArray[np.float32]], expected: Sequence[NDArray[np.float32]]) -> float:
    """Return the largest root mean square of a tensor's differences, relative to its own."""

    def power(values: NDArray[np.float32]) -> float:
        return float(np.square(values, dtype=np.float64).mean()) ** 0.5

    return max(
        power(ours - theirs) / (power(theirs) or 1.0)
        for ours, theirs in zip(found, expected, strict=True)
    )


def exceeded_edge_limits(report: EdgePrecisionReport, limits: Limits, precision: str) -> list[str]:
    """Return in words which limits are exceeded."""
    found, most = [], MOST_CHANGED[precision]
    of_one_image = report.answers // max(report.held_out, 1)
    if report.answers_changed > of_one_image + most * report.answers:
        found.append(
            f"{report.answers_changed:,} of {report.answers:,} answers change "
            f"({most:.0%} and those of one image may)"
        )
    if report.worst_error > limits.output_tolerance:
        found.append(
            f"an output differs by {report.worst_error:.1%} of the largest "
            f"({limits.output_tolerance:.0%} is allowed)"
        )
    return found + lost_predictions(report.labelled, report.correct_fp32, report.correct)
