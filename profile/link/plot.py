"""The figure of a link: for each way from image to answer, where the time goes."""

import textwrap
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..figures import Theme, dress_axes, save_figure
from .halves import STAGES
from .run import LinkReport

_WIDTH = 11.0
_ROW, _BELOW, _ABOVE = 0.62, 0.95, 0.45
"""Heights of a way, of what stands below all of them, and above: inches."""

_SERIES = (0, 1, 2, 3, 4, 5, 9)
"""Colours of the stages in the theme's series; the ink among them is for the marks."""


def draw_link(report: LinkReport, folder: Path) -> None:
    """Draw ``link.svg`` and ``link-dark.svg``, and the same as PNG."""
    save_figure(lambda theme: draw_figure(report, theme), folder, "link")


def draw_figure(report: LinkReport, theme: Theme) -> Figure:
    """Draw a bar for each way: medians of its steps, end to end, and marks at p90 and p99."""
    rows = _ROW * len(report.ways)
    height = _BELOW + rows + _ABOVE
    figure = Figure(figsize=(_WIDTH, height), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.22, _BELOW / height, 0.75, rows / height))
    places = range(len(report.ways))
    left = [0.0] * len(report.ways)
    for number, stage in zip(_SERIES, STAGES, strict=True):
        widths = [way.stages[stage].p50_ms for way in report.ways]
        axes.barh(places, widths, 0.56, left, color=theme.series[number], label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, way in enumerate(report.ways):
        total = way.stages["total"]
        for ms, size in ((total.p90_ms, 7), (total.p99_ms, 11)):
            axes.plot([ms], [place], "|", color=theme.ink, markersize=size, markeredgewidth=1.4)
        axes.annotate(
            f"{total.p50_ms:,.0f} ms, {way.score:.1%}",
            (max(total.p99_ms, left[place]), place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=theme.ink,
        )
    axes.set_yticks(places, [_name(way.name, way.quality, way.bytes_mean) for way in report.ways])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(*left, *(way.stages["total"].p99_ms for way in report.ways)))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("ms from image to answer", fontsize=10.5, color=theme.ink)
    axes.set_axisbelow(True)
    dress_axes(axes, theme, axis="x")
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="upper center",
        ncols=len(STAGES),
        frameon=False,
        fontsize=9.5,
        labelcolor=theme.ink,
    )
    figure.text(0.02, 0.12 / height, _note(report), fontsize=9, color=theme.faint, va="bottom")
    return figure


def _note(report: LinkReport) -> str:
    link = report.link
    # A rate that was given is its own name.
    rate = f" ({link.bits_per_second / 1e3:,.6g} kbit/s)" if link.source else ""
    note = (
        f"{report.images} images over {link.name}{rate}, round trip {report.rtt_ms:g} ms. Bars: "
        f"median of each step; marks: p90 and p99 of all; beside them: median of all, share "
        f"{report.score_of}."
    )
    return textwrap.fill(note, 155)


def _name(name: str, quality: int | None, bytes_mean: float) -> str:
    said = name if quality is None else f"{name}, quality {quality}"
    return f"{said}\n{bytes_mean:,.0f} bytes"
