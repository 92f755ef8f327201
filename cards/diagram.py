"""The diagram of a split: which part runs where, and what crosses the link."""

import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ..profile.accuracy_report import AccuracyReport
from ..profile.figures import LIGHT, Theme, save_figure
from ..profile.report import Compute, EncoderProfile
from ..zoo.hub_push import SPLIT_NAME
from ..zoo.spec import ModelSpec

_LIGHT = {"device": "#d9ecff", "edge": "#e3f4e1", "link": "#fff1d6"}
_DARK = {"device": "#18344e", "edge": "#1c3a25", "link": "#4a3a17"}


def draw_split(
    spec: ModelSpec,
    profile: EncoderProfile | None,
    folder: Path,
    *,
    accuracy: AccuracyReport | None = None,
) -> None:
    """Draw the split of a model, as SVG for a light page and for a dark one.

    Args:
        spec: Spec of the model, for parts and shapes.
        profile: Report for operations, latency and bytes; None leaves them out.
        folder: Folder for ``split.svg`` and ``split-dark.svg``.
        accuracy: Report for accuracy and bytes, which replace the profile's.
    """
    save_figure(
        lambda theme: draw_figure(spec, profile, theme, accuracy=accuracy),
        folder,
        SPLIT_NAME,
        forms=(".svg",),
    )


def draw_figure(
    spec: ModelSpec,
    profile: EncoderProfile | None,
    theme: Theme,
    *,
    accuracy: AccuracyReport | None = None,
) -> Figure:
    """Draw the diagram in the colours of a theme; see :func:`draw_split`."""
    fills = _LIGHT if theme is LIGHT else _DARK
    figure = Figure(figsize=(11, 2.9))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 110), ylim=(2.5, 31.5))
    axes.axis("off")

    _place(axes, 1.5, 41, "DEVICE", fills["device"], theme)
    _place(axes, 68.5, 40, "EDGE", fills["edge"], theme)
    image = "×".join(map(str, spec.input_shape))
    wire = spec.wire[0]
    latent = "×".join(map(str, wire.shape))
    _part(axes, 3.5, 9.5, "image", image, theme)
    _part(axes, 16, 12, "encoder", _encoder_facts(profile), theme)
    coder = "entropy\ncoder" if spec.bottleneck.kind in _ENTROPY_CODED else "coder"
    _part(axes, 30.5, 10, coder, "", theme)
    _part(axes, 70.5, 10, coder, "", theme)
    _part(axes, 83, 12, "decoder", _edge_facts(spec, profile), theme)
    _part(axes, 97.5, 9, "prediction", _OUTPUTS[spec.task].format(spec.num_classes), theme)
    for start, end in ((13, 16), (28, 30.5), (80.5, 83), (95, 97.5)):
        _arrow(axes, start, end, theme)
    for x in (29.2, 81.8):
        axes.text(x, 7.2, f"{latent} {wire.name}", ha="center", fontsize=8.5, color=theme.faint)

    axes.add_patch(
        FancyBboxPatch((46, 12.5), 19, 10, boxstyle="round,pad=0.3", fc=fills["link"], ec="none")
    )
    axes.text(55.5, 25.3, "LINK", ha="center", fontsize=9, color=theme.faint, weight="bold")
    axes.text(
        55.5,
        17.5,
        _link_facts(profile, accuracy),
        ha="center",
        va="center",
        fontsize=11,
        color=theme.ink,
    )
    _arrow(axes, 40.5, 46, theme)
    _arrow(axes, 65, 70.5, theme)
    return figure


_ENTROPY_CODED = (
    "factorized-prior",
    "variable-rate",
    "scale-hyperprior",
    "mean-scale-hyperprior",
    "entropy-bottleneck",
    "neural-input-codec",
)
_OUTPUTS = {
    "image-classification": "{}\nlogits",
    "object-detection": "boxes,\nlabels",
    "semantic-segmentation": "{} classes\nper pixel",
}


def _edge_part(spec: ModelSpec) -> str:
    name = textwrap.fill(spec.backbone.replace("_", "_ "), 14).replace("_ ", "_")
    if spec.cut is None:
        return f"all of\n{name}"
    *_, block, last = ("", *spec.cut.split("."))
    return f"{name}\nafter {f'{block}.{last}' if last.isdigit() else last}"


def _encoder_facts(profile: EncoderProfile | None) -> str:
    if profile is None:
        return ""
    return (
        f"{profile.size.parameters:,}\nparameters\n{_gigamacs(profile.compute)}\n"
        f"{profile.latency.steps['encoder'].p50_ms:.1f} ms"
    )


def _edge_facts(spec: ModelSpec, profile: EncoderProfile | None) -> str:
    counted = f"\n{_gigamacs(profile.edge_compute)}" if profile else ""
    return f"+ {_edge_part(spec)}{counted}"


def _gigamacs(compute: Compute) -> str:
    return f"{'' if compute.complete else '≥ '}{compute.macs / 1e9:.2f} GMAC"


def _link_facts(profile: EncoderProfile | None, accuracy: AccuracyReport | None) -> str:
    if accuracy is not None:
        return (
            f"{accuracy.stream_bytes.mean:,.0f} bytes\nper image,\n"
            f"{accuracy.metric_name} {accuracy.score:.1%}"
        )
    if profile is None or profile.rate is None:
        return "bytes"
    note = "\n(untrained)" if profile.weights == "random" else ""
    return f"{profile.rate.stream_bytes.mean:,.0f} bytes\nper image{note}"


def _place(axes: Axes, x: float, width: float, name: str, color: str, theme: Theme) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, 4), width, 26, boxstyle="round,pad=0,rounding_size=1.2", fc=color, ec="none"
        )
    )
    axes.text(x + 1.8, 27.2, name, fontsize=10, color=theme.faint, weight="bold")


def _part(axes: Axes, x: float, width: float, name: str, facts: str, theme: Theme) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (x, 10.5),
            width,
            14,
            boxstyle="round,pad=0,rounding_size=0.8",
            fc=theme.page,
            ec=theme.faint,
            lw=0.8,
        )
    )
    middle = x + width / 2
    axes.text(
        middle,
        21.8 if facts else 17.5,
        name,
        ha="center",
        va="center",
        fontsize=10.5,
        color=theme.ink,
    )
    axes.text(middle, 15.6, facts, ha="center", va="center", fontsize=8, color=theme.faint)


def _arrow(axes: Axes, start: float, end: float, theme: Theme) -> None:
    axes.add_patch(
        FancyArrowPatch(
            (start, 17.5), (end, 17.5), arrowstyle="-|>", mutation_scale=9, color=theme.ink, lw=1.1
        )
    )
