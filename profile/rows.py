"""Rows of a table of results, from reports of accuracy and of latency."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import zoo
from ..progress import SILENT, Progress
from ..zoo.model_rows import ModelRow
from .accuracy_report import AccuracyReport
from .costs import Latency, architecture_of
from .series import series_names


def make_rows(
    reports: Sequence[AccuracyReport],
    latencies: Iterable[Latency] = (),
    *,
    progress: Progress = SILENT,
) -> list[ModelRow]:
    """Put what was measured of models into rows, and count their operations.

    Args:
        reports: Accuracy reports of any data.
        latencies: Latencies of their halves; of several of one half, the first is taken.
        progress: Progress to report to.
    """
    from .flops import count_edge_flops, count_flops

    latencies = list(latencies)
    counted: dict[str, tuple[int, int]] = {}
    rows = []
    named = list(zip(reports, series_names(reports), strict=True))
    for report, series in progress.track(named, "models"):
        spec = report.spec
        if (key := architecture_of(spec)) not in counted:
            model = zoo.build(spec)
            counted[key] = count_flops(model).macs, count_edge_flops(model).macs
        same = [one for one in latencies if one.is_of(report)]
        device = next((one for one in same if one.half == "device"), None)
        edge = next((one for one in same if one.half == "edge" and _on_same(one, device)), None)
        used = device or edge
        rows.append(
            ModelRow(
                model=spec.name,
                model_id=report.model_id,
                task=spec.task,
                method=spec.method,
                backbone=spec.backbone,
                series=series,
                coding=report.calibrated,
                rate_set_by=spec.strength,
                data=report.data.folder,
                data_sha256=report.data.sha256,
                images=report.data.images,
                metric=report.metric,
                score=report.score,
                top5=report.scores.get("top5") if spec.num_classes > 5 else None,
                stream_bytes=round(report.stream_bytes.mean, 1),
                bits_per_pixel=round(report.bits_per_pixel.mean, 5),
                encoder_bits=report.encoder.encoder_bits,
                device_macs=counted[key][0],
                edge_macs=counted[key][1],
                device_ms=_ms(device and device.median_ms),
                device_graph_ms=_ms(device and device.graph_ms),
                edge_ms=_ms(edge and edge.median_ms),
                edge_graph_ms=_ms(edge and edge.graph_ms),
                machine=used.machine if used else "",
                date=report.date,
                command=report.command,
            )
        )
    return rows


def _on_same(edge: Latency, device: Latency | None) -> bool:
    return device is None or edge.machine == device.machine


def _ms(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def read_reports(paths: Iterable[Path]) -> tuple[list[AccuracyReport], list[Latency]]:
    """Read reports of accuracy and of latency, from files or folders of them.

    Raises:
        ReportError: A file is neither.
    """
    from .accuracy_report import read_accuracy
    from .costs import is_accuracy, read_latencies

    reports, latencies = [], []
    for path in paths:
        for file in sorted(path.rglob("*.json")) if path.is_dir() else [path]:
            if is_accuracy(file):
                reports.append(read_accuracy(file))
            else:
                latencies += read_latencies([file])
    return reports, latencies
