"""The figure of a link: for each way from image to answer, where the time goes."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .link_halves import STAGES
from .link_run import LinkReport
from .tradeoff_plot import DARK, FORMATS, LIGHT, Theme

_WIDTH = 11.0


def draw_link(report: LinkReport, folder: Path) -> None:
    """Draw ``link.svg`` and ``link-dark.svg``, and the same as PNG."""
    for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
        with matplotlib.rc_context({"svg.hashsalt": "splitzoo", "svg.fonttype": "none"}):
            figure = draw_figure(report, theme)
            for form in FORMATS:
                metadata: dict[str, Any] = {"Date": None} if form == ".svg" else {"Software": None}
                path = folder / f"link{suffix}{form}"
                figure.savefig(path, facecolor=theme.page, metadata=metadata)


def draw_figure(report: LinkReport, theme: Theme) -> Figure:
    """Draw a bar for each way: medians of its steps, end to end, and marks at p90 and p99."""
    height = 1.9 + 0.62 * len(report.ways)
    figure = Figure(figsize=(_WIDTH, height), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.22, 0.95 / height, 0.75, 0.62 * len(report.ways) / height))
    places = range(len(report.ways))
    left = [0.0] * len(report.ways)
    for number, stage in enumerate(STAGES):
        widths = [way.stages[stage].p50_ms for way in report.ways]
        axes.barh(places, widths, 0.56, left, color=theme.series[number], label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, way in enumerate(report.ways):
        total = way.stages["total"]
        for ms, size in ((total.p90_ms, 7), (total.p99_ms, 11)):
            axes.plot([ms], [place], "|", color=theme.ink, markersize=size, markeredgewidth=1.4)
        end = max(total.p99_ms, left[place])
        said = f"{total.p50_ms:,.0f} ms, {way.score:.1%}"
        axes.annotate(
            said,
            (end, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=theme.ink,
        )
    axes.set_yticks(places, [_name(way.name, way.quality, way.bytes_mean) for way in report.ways])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.2 * max(way.stages["total"].p99_ms for way in report.ways))
    axes.set_xlabel("ms from image to answer", fontsize=10.5, color=theme.ink)
    axes.set_facecolor(theme.page)
    axes.grid(True, axis="x", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink, labelsize=9.5)
    for spine in axes.spines.values():
        spine.set_color(theme.grid)
    legend = figure.legend(
        *axes.get_legend_handles_labels(),
        loc="upper center",
        ncols=len(STAGES),
        frameon=False,
        fontsize=9.5,
    )
    for text in legend.get_texts():
        text.set_color(theme.ink)
    note = (
        f"{report.images} images over {report.link.name} ({report.link.bits_per_second / 1e3:,.6g} "
        f"kbit/s), round trip {report.rtt_ms:g} ms. Bars: medians; marks: p90 and p99 of all. "
        f"%: {report.score_of}."
    )
    text = figure.text(0.02, 0.12 / height, note, fontsize=9, color=theme.faint, va="bottom")
    for shown in (text, *axes.get_yticklabels(), *axes.texts):
        shown.set_parse_math(False)
    return figure


def _name(name: str, quality: int | None, bytes_mean: float) -> str:
    said = name if quality is None else f"{name}, quality {quality}"
    return f"{said}\n{bytes_mean:,.0f} bytes"
