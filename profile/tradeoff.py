"""The three tradeoffs of the SC2 paper (TMLR 2023, Section 3.2), from accuracy reports.

R-D is accuracy over bytes per image; ExR-D accuracy over bytes times encoder size; the third sets
the three against one another.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from splitrun.errors import ReportError, UnknownNameError
from splitrun.files import new_file
from splitrun.registry import close_matches

from ..zoo.spec import ModelSpec
from .accuracy_report import AccuracyReport

_METHODS = {
    "entropic-student": "Entropic Student",
    "end-to-end": "end to end",
    "channel-reduction": "CR + BQ",
}
_PRIORS = {
    "factorized-prior": "FP",
    "scale-hyperprior": "SHP",
    "mean-scale-hyperprior": "MSHP",
}
_CODECS = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "heic": "HEIC", "bpg": "BPG"}


@dataclass(frozen=True)
class Point:
    """One model in the three tradeoffs.

    Attributes:
        series: Of models that differ in β, channels or quality alone.
        coding: What calibration made of it, such as context coding; empty for the coding that it
            was trained with. The series' name ends in it.
        model: Its name.
        setting: What sets its rate, in words.
        score: Accuracy, mAP or mIoU, a share in [0, 1].
        data_bytes: Mean of the stream, bytes per image.
        bits_per_pixel: Of the model's input.
        encoder_bits: Eq. 1 of the SC2 paper; 0 where the device holds no learned parameters.
        exrd: ``encoder_bits · data_bytes``; None where the device holds none.
        on_rd_front: No other point has fewer bytes and a higher score.
        on_exrd_front: The same of ``exrd``.
    """

    series: str
    coding: str
    model: str
    setting: str
    score: float
    data_bytes: float
    bits_per_pixel: float
    encoder_bits: int
    exrd: float | None
    on_rd_front: bool
    on_exrd_front: bool

    @property
    def models(self) -> str:
        """The series' name without what says how it is coded."""
        return self.series.removesuffix(f", {self.coding}")


@dataclass(frozen=True)
class BdRate:
    """Mean difference of bytes at equal score between two series.

    Attributes:
        percent: Below 0 where ``series`` needs fewer bytes; None where the two have no score in
            common, or one has fewer than two points on its own front.
    """

    series: str
    against: str
    percent: float | None


@dataclass(frozen=True)
class Tradeoff:
    """Points of one task, measured on the same images, series by series, each by its bytes."""

    metric: str
    images: int
    data: str
    points: tuple[Point, ...]

    def series(self) -> dict[str, list[Point]]:
        """Return the points of each series, by bytes."""
        found: dict[str, list[Point]] = {}
        for one in self.points:
            found.setdefault(one.series, []).append(one)
        return found

    def bd_rates(self, against: str) -> list[BdRate]:
        """Compare all series with one.

        Raises:
            UnknownNameError: There is no such series.
        """
        series = self.series()
        if against not in series:
            raise UnknownNameError(
                "series",
                against,
                close_matches(against, series),
                next_step=f"There are: {', '.join(series)}",
            )
        return [
            BdRate(name, against, bd_rate(points, series[against]))
            for name, points in series.items()
            if name != against
        ]


def collect(reports: Iterable[AccuracyReport]) -> Tradeoff:
    """Put accuracy reports side by side.

    Raises:
        ReportError: There is none, or they are of different tasks or images.
    """
    reports = list(reports)
    if not reports:
        raise ReportError("No accuracy report was given.")
    first = reports[0]
    for one in reports:
        if one.metric != first.metric:
            raise ReportError(
                f"{one.spec.name} was scored by {one.metric_name}, {first.spec.name} by "
                f"{first.metric_name}: they make no tradeoff."
            )
        if one.data.sha256 != first.data.sha256:
            raise ReportError(
                f"{one.spec.name} was evaluated on other images than {first.spec.name}.",
                next_step="Evaluate both on the same: splitzoo profile accuracy --data DIR",
            )
    backbones = {one.spec.backbone for one in reports}
    rd = _front([(one.stream_bytes.mean, one.score) for one in reports])
    products = [one.encoder.encoder_bits * one.stream_bytes.mean for one in reports]
    kept = [place for place, product in enumerate(products) if product]
    exrd = {kept[place] for place in _front([(products[i], reports[i].score) for i in kept])}
    points = [
        Point(
            series=series_of(one.spec, named=len(backbones) > 1)
            + (f", {one.calibrated}" if one.calibrated else ""),
            coding=one.calibrated,
            model=one.spec.name,
            setting=one.spec.strength,
            score=one.score,
            data_bytes=one.stream_bytes.mean,
            bits_per_pixel=one.bits_per_pixel.mean,
            encoder_bits=one.encoder.encoder_bits,
            exrd=products[place] or None,
            on_rd_front=place in rd,
            on_exrd_front=place in exrd,
        )
        for place, one in enumerate(reports)
    ]
    order = list(dict.fromkeys(one.models for one in points))
    points.sort(key=lambda one: (order.index(one.models), one.coding, one.data_bytes))
    return Tradeoff(first.metric_name, first.data.images, first.data.folder, tuple(points))


def series_of(spec: ModelSpec, *, named: bool = False) -> str:
    """Name the series of a model: of those that differ in β, channels or quality alone.

    Args:
        spec: Of the model.
        named: Name the backbone too.
    """
    kind = spec.bottleneck.kind
    if spec.method in _METHODS:
        prior = _PRIORS.get(kind)
        name = _METHODS[spec.method] + (f", {prior}" if prior else "")
    elif kind == "entropy-bottleneck":
        name = f"EB after {spec.cut}"
    elif kind == "neural-input-codec":
        name = f"{getattr(spec.bottleneck, 'architecture', '')} input"
    else:
        codec = str(getattr(spec.bottleneck, "codec", ""))
        codec = _CODECS.get(codec, codec.upper())
        name = f"{codec} after {spec.cut}" if kind == "feature-codec" else f"{codec} input"
    return f"{name}, {spec.backbone}" if named else name


def _front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Return the places of the points that no other beats in size (less) and score (more)."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    found: set[int] = set()
    best = -1.0
    for place in order:
        if points[place][1] > best:
            found.add(place)
            best = points[place][1]
    return found


def bd_rate(points: Sequence[Point], against: Sequence[Point]) -> float | None:
    """Return the Bjøntegaard difference of bytes at equal score, percent.

    The logarithm of the bytes is interpolated over the score by monotone cubic pieces (PCHIP), over
    the points on each series' own front, and averaged over the scores that both reach.

    Bjøntegaard 2001, "Calculation of average PSNR differences between RD-curves" (VCEG-M33).
    """
    from scipy.interpolate import PchipInterpolator

    curves = []
    for series in (points, against):
        pairs = [(one.data_bytes, one.score) for one in series]
        chosen = sorted(pairs[place] for place in _front(pairs))
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
    """Write the points as CSV, one line each, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(Point.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(one) for one in tradeoff.points)
