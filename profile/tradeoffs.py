"""The three tradeoffs of the SC2 paper (TMLR 2023, Section 3.2), from accuracy reports.

R-D is accuracy over bytes per image; ExR-D is accuracy over bytes times what the encoder costs; the
third shows all three measures. The cost is the encoder's size or, as in the paper's Figure 9, its
operations, or latency on a device.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from splitrun.errors import ReportError, UnknownNameError
from splitrun.files import new_file
from splitrun.registry import close_matches

from .accuracy_report import AccuracyReport
from .costs import Cost, measure_costs
from .series import series_names


@dataclass(frozen=True)
class Point:
    """One model in the three tradeoffs.

    Attributes:
        series: Name of the models that differ in β, channels or quality only; ends in ``coding``.
        coding: Coding that calibration chose, such as context coding; empty for the coding that the
            model was trained with.
        model: Name of the model.
        setting: What sets the model's rate, in words.
        score: Accuracy, mAP or mIoU, a share in [0, 1].
        data_bytes: Mean of the stream, bytes per image.
        bits_per_pixel: Mean bits of the stream per pixel of the model's input.
        encoder_bits: Eq. 1 of the SC2 paper; 0 where the device holds no learned parameters.
        cost: What the encoder costs, by the tradeoff's measure; None where there is no value.
        exrd: ``cost · data_bytes``; None where there is no cost.
        on_rd_front: Whether no other point has fewer bytes and a higher score.
        on_exrd_front: Whether no other point has a lower ``exrd`` and a higher score.
    """

    series: str
    coding: str
    model: str
    setting: str
    score: float
    data_bytes: float
    bits_per_pixel: float
    encoder_bits: int
    cost: float | None
    exrd: float | None
    on_rd_front: bool
    on_exrd_front: bool

    @property
    def models(self) -> str:
        """Name of the series without its coding."""
        return self.series.removesuffix(f", {self.coding}")


@dataclass(frozen=True)
class BdRate:
    """Mean difference of bytes at equal score between two series.

    Attributes:
        series: Name of the series that is compared.
        against: Name of the series that it is compared with.
        percent: Mean difference, below 0 where ``series`` needs fewer bytes; None where the two
            have no score in common, or one has fewer than two points on its own front.
    """

    series: str
    against: str
    percent: float | None


@dataclass(frozen=True)
class Tradeoff:
    """Points of one task, measured on the same images.

    Attributes:
        metric: Name of the score.
        images: Number of images.
        data: Name of the data set's folder.
        cost: What the encoder's cost is measured by.
        points: Points by series, and by bytes within each.
    """

    metric: str
    images: int
    data: str
    cost: Cost
    points: tuple[Point, ...]

    def series(self) -> dict[str, list[Point]]:
        """Return the points of each series, by bytes."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.series, []).append(point)
        return found

    def bd_rates(self, against: str) -> list[BdRate]:
        """Compare all other series with one, by bytes at equal score.

        Raises:
            UnknownNameError: There is no such series.
        """
        series = self.series()
        if against not in series:
            raise UnknownNameError(
                "series",
                against,
                close_matches(against, series),
                next_step=f"The series are: {', '.join(series)}",
            )
        return [
            BdRate(name, against, bd_rate(points, series[against]))
            for name, points in series.items()
            if name != against
        ]


def collect(
    reports: Iterable[AccuracyReport], *, cost: str = "bits", profiles: Iterable[Path] = ()
) -> Tradeoff:
    """Put accuracy reports side by side.

    Args:
        reports: Reports of one task on the same images.
        cost: Name of the encoder's cost: ``bits``, ``macs``, ``flops`` or ``latency``.
        profiles: Reports of latency, as :func:`.costs.measure_costs` takes them.

    Raises:
        ReportError: There is none, or they are of different tasks or images; or latencies are
            missing, or of several machines.
        UnknownNameError: There is no such cost.
    """
    reports = list(reports)
    if not reports:
        raise ReportError("No accuracy report was given.")
    first = reports[0]
    for report in reports:
        if report.metric != first.metric:
            raise ReportError(
                f"{report.spec.name} was scored by {report.metric_name}, {first.spec.name} by "
                f"{first.metric_name}: they make no tradeoff."
            )
        found, expected = (one.data for one in (report, first))
        if (found.sha256, found.images) != (expected.sha256, expected.images):
            # Of the same files, one machine may read more than another.
            counts = f" ({found.images:,} and {expected.images:,})"
            raise ReportError(
                f"{report.spec.name} was evaluated on other images than {first.spec.name}{counts}.",
                next_step="Evaluate both on the same: splitzoo profile accuracy --data DIR",
            )
    measure, costs = measure_costs(reports, cost, profiles)
    rd = _front([(report.stream_bytes.mean, report.score) for report in reports])
    products = [
        None if cost is None else cost * report.stream_bytes.mean
        for cost, report in zip(costs, reports, strict=True)
    ]
    kept = [(index, product) for index, product in enumerate(products) if product is not None]
    front = _front([(product, reports[index].score) for index, product in kept])
    exrd = {kept[place][0] for place in front}
    points = [
        Point(
            series=", ".join(filter(None, (name, report.calibrated))),
            coding=report.calibrated,
            model=report.spec.name,
            setting=report.spec.strength,
            score=report.score,
            data_bytes=report.stream_bytes.mean,
            bits_per_pixel=report.bits_per_pixel.mean,
            encoder_bits=report.encoder.encoder_bits,
            cost=costs[index],
            exrd=products[index],
            on_rd_front=index in rd,
            on_exrd_front=index in exrd,
        )
        for index, (name, report) in enumerate(zip(series_names(reports), reports, strict=True))
    ]
    order = list(dict.fromkeys(point.models for point in points))
    points.sort(key=lambda point: (order.index(point.models), point.coding, point.data_bytes))
    data = first.data
    return Tradeoff(first.metric_name, data.images, data.folder, measure, tuple(points))


def _front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Return the indexes of the points that no other beats in size (less) and score (more)."""
    found: set[int] = set()
    best = -1.0
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            found.add(index)
            best = points[index][1]
    return found


def bd_rate(points: Sequence[Point], against: Sequence[Point]) -> float | None:
    """Return the Bjøntegaard difference of bytes at equal score, percent.

    The logarithm of the bytes, over the points on each series' own front, is interpolated over the
    score by monotone cubic pieces (PCHIP) and averaged over the scores that both reach.

    Bjøntegaard 2001, "Calculation of average PSNR differences between RD-curves" (VCEG-M33).
    """
    from scipy.interpolate import PchipInterpolator

    curves = []
    for series in (points, against):
        pairs = [(point.data_bytes, point.score) for point in series]
        chosen = sorted(pairs[index] for index in _front(pairs))
        if len(chosen) < 2:
            return None
        sizes, scores = np.array(chosen).T
        curves.append((scores, PchipInterpolator(scores, np.log(sizes))))
    low = max(scores[0] for scores, _ in curves)
    high = min(scores[-1] for scores, _ in curves)
    if low >= high:
        return None
    ours, theirs = (curve.integrate(low, high) / (high - low) for _, curve in curves)
    return 100 * (float(np.exp(ours - theirs)) - 1)


def save_points(tradeoff: Tradeoff, path: Path) -> None:
    """Write the points as CSV, one line each, whole or not at all; the cost has its own name.

    Raises:
        OutputError: The file cannot be written.
    """
    rows = [asdict(point) for point in tradeoff.points]
    for row in rows:
        cost = row.pop("cost")
        row.setdefault(tradeoff.cost.field, cost)
    with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
