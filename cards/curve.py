"""The picture of the R-D curves of a model's family, with the model marked."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..profile.accuracy_report import AccuracyReport
from ..profile.figures import Theme, add_legend, dress_axes, save_figure
from ..profile.rd_points import RdPoint
from ..profile.ticks import set_log_ticks
from ..profile.tradeoff_plot import figure_styles
from ..zoo.hub_push import CURVE_NAME

_WIDTH = 9.0
_TALL = 4.2
"""Width of the picture and height of its axes, inches."""


def draw_curve(points: Sequence[RdPoint], marked: AccuracyReport, folder: Path) -> None:
    """Draw accuracy over bytes per image, as SVG for a light page and for a dark one.

    Args:
        points: Points of all series, by bytes within each.
        marked: Report of the model to mark.
        folder: Folder for ``rd.svg`` and ``rd-dark.svg``.
    """
    save_figure(
        lambda theme: draw_figure(points, marked, theme), folder, CURVE_NAME, forms=(".svg",)
    )


def draw_figure(points: Sequence[RdPoint], marked: AccuracyReport, theme: Theme) -> Figure:
    """Draw the picture in the colours of a theme; see :func:`draw_curve`."""
    styles = figure_styles(points, theme)
    shown = [style["label"] for style in styles.values() if style["label"][0] != "_"]
    columns = max(1, min(4, int(_WIDTH / (0.9 + 0.075 * max(map(len, shown))))))
    below = 0.7 + 0.2 * -(-(len(shown) + 1) // columns)
    height = below + _TALL + 0.2
    figure = Figure(figsize=(_WIDTH, height), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, below / height, 0.91, _TALL / height))
    for name, style in styles.items():
        some = [point for point in points if point.series == name]
        axes.plot([p.stream_bytes for p in some], [100 * p.score for p in some], **style)
    x, y = marked.stream_bytes.mean, 100 * marked.score
    axes.plot(
        [x],
        [y],
        marker="*",
        markersize=19,
        color=theme.ink,
        markeredgecolor=theme.page,
        linestyle="none",
        label=f"this model: {y:.1f}%, {x:,.0f} bytes",
        zorder=6,
    )
    axes.set_xscale("log")
    axes.set_xlabel("bytes per image", fontsize=10.5, color=theme.ink)
    axes.set_ylabel(f"{marked.metric_name}, %", fontsize=10.5, color=theme.ink)
    dress_axes(axes, theme, which="major")
    set_log_ticks(axes)
    add_legend(axes, theme, bottom=0.02, columns=columns)
    return figure
