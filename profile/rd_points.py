"""Points of the R-D curves of models that were measured on the same images."""

from collections.abc import Iterable, Sequence

from ..zoo.model_rows import ModelRow
from .accuracy_report import AccuracyReport
from .report import Part
from .series import series_names


class RdPoint(Part):
    """One model at one rate.

    Attributes:
        model: Name of the model.
        models: Name of the models that differ in β, channels or quality only.
        coding: Coding that calibration chose; empty for the coding that the model was trained with.
        setting: What sets the rate, in words.
        score: Share in [0, 1] by the main metric.
        stream_bytes: Bytes per image, mean.
    """

    model: str
    models: str
    coding: str
    setting: str
    score: float
    stream_bytes: float

    @property
    def series(self) -> str:
        """Name of the models, with their coding."""
        return ", ".join(filter(None, (self.models, self.coding)))


def points_of_rows(rows: Iterable[ModelRow], beside: AccuracyReport) -> list[RdPoint]:
    """Return the points of the rows that were measured on the images of a report."""
    return _in_order(
        RdPoint(
            model=row.model,
            models=row.series,
            coding=row.coding,
            setting=row.rate_set_by,
            score=row.score,
            stream_bytes=row.stream_bytes,
        )
        for row in rows
        if (row.data_sha256, row.metric) == (beside.data.sha256, beside.metric)
    )


def points_of_reports(reports: Sequence[AccuracyReport], beside: AccuracyReport) -> list[RdPoint]:
    """Return the points of the reports that were measured on the images of another."""
    same = [
        report
        for report in reports
        if (report.data.sha256, report.metric) == (beside.data.sha256, beside.metric)
    ]
    return _in_order(
        RdPoint(
            model=report.spec.name,
            models=name,
            coding=report.calibrated,
            setting=report.spec.strength,
            score=report.score,
            stream_bytes=report.stream_bytes.mean,
        )
        for name, report in zip(series_names(same), same, strict=True)
    )


def _in_order(points: Iterable[RdPoint]) -> list[RdPoint]:
    return sorted(points, key=lambda point: (point.series, point.stream_bytes))
