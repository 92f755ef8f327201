"""Names of the series of a tradeoff: models that differ in β, channels or quality only."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ..zoo.bottleneck_specs import shape_text
from ..zoo.spec import ModelSpec
from .accuracy_report import AccuracyReport
from .report import parts_of

_METHODS = {
    "entropic-student": "Entropic Student",
    "end-to-end": "end to end",
    "channel-reduction": "CR + BQ",
    "shallow-injection": "shallow injection",
}
_PRIORS = {
    "factorized-prior": "FP",
    "variable-rate": "FP of variable rate",
    "scale-hyperprior": "SHP",
    "mean-scale-hyperprior": "MSHP",
}
_CODECS = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF", "heic": "HEIC", "bpg": "BPG"}
_STRENGTH = re.compile(r"-(beta[0-9.e-]+|bq\d+ch|q\d+)(?=[-_]|$)")


def series_names(reports: Sequence[AccuracyReport]) -> list[str]:
    """Name the series of each report, without its coding.

    A name says of the models what tells their series from the others, and no more. What was
    measured twice, in another engine or after another training, makes two series.
    """
    labels = [series_of(report.spec) for report in reports]
    if len({report.spec.backbone for report in reports}) > 1:
        labels = _with(labels, [report.spec.backbone for report in reports], range(len(labels)))
    for fact in _FACTS:
        said = [fact(report) for report in reports]
        for members in _groups(labels):
            if len({said[index] for index in members}) > 1:
                labels = _with(labels, said, members)
    engines = [report.runtime.split()[0] for report in reports]
    for members in _groups(labels):
        measured = Counter(_setting(reports[index]) for index in members)
        if max(measured.values()) > 1 and len({engines[index] for index in members}) > 1:
            labels = _with(labels, engines, members)
    met: Counter[tuple[str, str, str]] = Counter()
    for index, report in enumerate(reports):
        met[key := (labels[index], *_setting(report))] += 1
        labels[index] += f", run {met[key]}" if met[key] > 1 else ""
    return labels


def _groups(labels: Sequence[str]) -> list[list[int]]:
    found: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        found.setdefault(label, []).append(index)
    return list(found.values())


def _with(labels: Sequence[str], said: Sequence[str], members: Iterable[int]) -> list[str]:
    more = {index: f", {said[index]}" for index in members if said[index]}
    return [label + more.get(index, "") for index, label in enumerate(labels)]


def _setting(report: AccuracyReport) -> tuple[str, str]:
    return report.spec.strength, report.calibrated


def _precision(report: AccuracyReport) -> str:
    _, precision = parts_of(report.runtime)
    _, edge, of_edge = report.runtime.partition(", edge ")
    return "" if precision == "fp32" and not edge else precision + edge + of_edge


def _sizes(report: AccuracyReport) -> str:
    # Where these set the rate, the models are of one series.
    if report.spec.bottleneck.kind in ("channel-reduction", "neural-input-codec"):
        return ""
    return f"{report.encoder.encoder_bits:,} encoder bits"


_FACTS: tuple[Callable[[AccuracyReport], str], ...] = (
    lambda report: "random weights" if report.weights == "random" else "",
    _precision,
    lambda report: f"after {report.spec.cut}" if report.spec.cut else "",
    lambda report: report.spec.dataset,
    lambda report: shape_text(report.spec.input_shape[1:]),
    _sizes,
    lambda report: (
        _STRENGTH.sub("", report.spec.name) if _STRENGTH.search(report.spec.name) else ""
    ),
)


def series_of(spec: ModelSpec) -> str:
    """Return the method of a model, with its prior, codec or cut."""
    kind = spec.bottleneck.kind
    if spec.method in _METHODS:
        prior = _PRIORS.get(kind)
        return _METHODS[spec.method] + (f", {prior}" if prior else "")
    if kind == "entropy-bottleneck":
        return f"EB after {spec.cut}"
    if kind == "neural-input-codec":
        return f"{getattr(spec.bottleneck, 'architecture', '')} input"
    codec = str(getattr(spec.bottleneck, "codec", ""))
    codec = _CODECS.get(codec, codec.upper())
    return f"{codec} after {spec.cut}" if kind == "feature-codec" else f"{codec} input"
