"""What a precision below fp32 changes is measured, and then refused or taken as it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from splitrun.bundle import Bundle
from splitrun.errors import ParityError
from splitrun.manifest import Manifest
from splitrun.precision_reports import EdgePrecisionReport, PrecisionReport
from splitrun.record import Record

from ...zoo.split_model import SplitModel
from .edge_report import exceeded_edge_limits, measure_edge
from .lowering import Lowering
from .report import CalibrationImages, exceeded_limits, measure_precision

_Report = TypeVar("_Report", PrecisionReport, EdgePrecisionReport)


def judge_device(
    model: SplitModel,
    bundle: Bundle,
    images: CalibrationImages | None,
    lowering: Lowering,
    records: Sequence[Record],
    *,
    accept: bool,
) -> Manifest:
    """Compare a device graph below fp32, and return the manifest with the report.

    Args:
        model: Model in evaluation mode.
        bundle: Its bundle, with that graph.
        images: Images to compare on, and those that ranges were taken from; None makes some.
        lowering: What wrote the graph.
        records: Records that parity is checked on.
        accept: Whether to widen the bundle's limits to what is beyond them.

    Raises:
        ParityError: It is beyond the limits, and not accepted; or what is sent is not a number.
    """
    manifest, limits = bundle.manifest, bundle.limits
    report = measure_precision(model, bundle, images, lowering, records)
    exceeded = exceeded_limits(report, limits, lowering.precision)
    remedy = "Keep more in fp32 (--keep-fp32 last --keep-fp32 gdn)"
    report = taken(report, exceeded, f"In {lowering.precision}", remedy, accept=accept)
    if report.accepted:
        # On other images and processors it may be somewhat more.
        limits = replace(
            limits,
            changed=min(1.0, max(limits.changed, 2 * report.most_changed)),
            difference=max(limits.difference, 2 * report.largest_difference),
            wire_tolerance=max(limits.wire_tolerance, 2 * report.wire_error),
        )
    parity = replace(manifest.parity, limits=limits)
    return replace(manifest, precision_report=report, parity=parity)


def judge_edge(
    model: SplitModel,
    bundle: Bundle,
    images: CalibrationImages | None,
    lowering: Lowering,
    records: Sequence[Record],
    *,
    accept: bool,
) -> Manifest:
    """Compare the edge graph of the only tail, which is below fp32; see :func:`judge_device`."""
    manifest, limits = bundle.manifest, bundle.limits
    report = measure_edge(model, bundle, images, lowering, records)
    exceeded = exceeded_edge_limits(report, limits, lowering.precision)
    where, remedy = f"With the edge in {lowering.precision}", "Choose another --edge-precision"
    report = taken(report, exceeded, where, remedy, accept=accept)
    if report.accepted:
        most = max(limits.output_tolerance, 2 * report.worst_error)
        limits = replace(limits, output_tolerance=most)
    ((name, tail),) = manifest.edge.tails.items()
    edge = replace(manifest.edge, tails={name: replace(tail, precision_report=report)})
    return replace(manifest, edge=edge, parity=replace(manifest.parity, limits=limits))


def taken(
    report: _Report, exceeded: Sequence[str], where: str, remedy: str, *, accept: bool
) -> _Report:
    """Return a report with the limits that are exceeded and accepted.

    Args:
        report: Report of a precision.
        exceeded: Limits that it exceeds, in words.
        where: Beginning of the message, such as ``"In int8"``.
        remedy: Next step that may help.
        accept: Whether to take it as it is.

    Raises:
        ParityError: It exceeds limits, and is not accepted; the message names them all.
    """
    if exceeded and not accept:
        images = "other images" if report.real_images else "photographs (--calibration DIR)"
        raise ParityError(
            f"{where}, {'; '.join(exceeded)}.",
            next_step=f"{remedy}, give {images}, or take it as it is with --accept.",
        )
    return replace(report, accepted=tuple(exceeded))
