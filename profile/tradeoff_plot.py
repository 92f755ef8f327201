"""The figure of the three tradeoffs: R-D, ExR-D, and all three measures at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from splitrun.files import new_folder

from .tradeoffs import Point, Tradeoff, save_points

FORMATS = (".svg", ".png")


@dataclass(frozen=True)
class Theme:
    """Colours of a figure; series have colours that the colour-blind tell apart (Okabe and Ito)."""

    page: str
    ink: str
    faint: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    page="#ffffff",
    ink="#1c2733",
    faint="#5b6b7a",
    grid="#dde3e8",
    series=(
        *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b4c9a", "#8c6d1f", "#1c2733", "#56b4e9"),
        *("#e69f00", "#7f7f7f", "#a5391f", "#3b7d3b"),
    ),
)
DARK = Theme(
    page="#12181f",
    ink="#e6edf3",
    faint="#9aa9b8",
    grid="#2b3642",
    series=(
        *("#56b4e9", "#ff8b4d", "#2fd0a0", "#f0a3cd", "#b79df0", "#e0c060", "#e6edf3", "#3f8fd0"),
        *("#ffc14d", "#b0b0b0", "#ff7a66", "#86d386"),
    ),
)
_MARKERS = "osD^vPX<>hp*"
_LINES = ("-", "--", "-.", ":")
# In print without colour, markers and dashes still tell the series apart.


def save_tradeoff(
    tradeoff: Tradeoff, folder: Path, *, title: str = "", force: bool = False
) -> None:
    """Write the figure and its points (``tradeoff.csv``) into a folder, whole or not at all.

    With ``force``, those that the folder holds are replaced.

    Raises:
        OutputError: The folder is taken or cannot be written.
    """
    with new_folder(folder, force=force) as temporary:
        save_points(tradeoff, temporary / "tradeoff.csv")
        draw_tradeoff(tradeoff, temporary, title=title)


def draw_tradeoff(tradeoff: Tradeoff, folder: Path, *, title: str = "") -> None:
    """Draw the three panels, for a light page and for a dark one, as SVG and PNG.

    Args:
        tradeoff: Points to draw.
        folder: Folder for ``tradeoff.svg``, ``tradeoff-dark.svg``, and the same as PNG.
        title: Note below the panels; by default the data set.
    """
    for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
        # Equal points give equal files: no date, and names that do not depend on the process.
        with matplotlib.rc_context({"svg.hashsalt": "splitzoo", "svg.fonttype": "none"}):
            figure = _figure(tradeoff, theme, title)
            for form in FORMATS:
                path = folder / f"tradeoff{suffix}{form}"
                metadata: dict[str, Any] = {"Date": None} if form == ".svg" else {"Software": None}
                figure.savefig(path, facecolor=theme.page, metadata=metadata)


def _figure(tradeoff: Tradeoff, theme: Theme, title: str) -> Figure:
    figure = Figure(figsize=(15, 5.6), dpi=110)
    FigureCanvasAgg(figure)
    rate = figure.add_axes((0.05, 0.3, 0.275, 0.62))
    product = figure.add_axes((0.375, 0.3, 0.275, 0.62))
    three: Any = figure.add_axes((0.69, 0.22, 0.28, 0.72), projection="3d")
    series = tradeoff.series()
    models = list(dict.fromkeys(point.models for point in tradeoff.points))
    for name, points in series.items():
        number = models.index(points[0].models)
        colour = theme.series[number % len(theme.series)]
        style = {
            "color": colour,
            "marker": _MARKERS[number % len(_MARKERS)],
            # The same models in another coding: the same colour and marker, hollow.
            "markerfacecolor": theme.page if points[0].coding else colour,
            "linestyle": _LINES[number % len(_LINES)],
            "linewidth": 1.6,
            "markersize": 6.5,
            # One line of the legend stands for both; the note explains hollow markers.
            "label": "_" + name if points[0].coding and points[0].models in series else name,
        }
        rate.plot(_kilobytes(points), _percent(points), **style)
        held = [point for point in points if point.exrd]
        if held:
            xs = [point.exrd / 1024 for point in held if point.exrd]
            product.plot(xs, _percent(held), **style)
            _three_way(three, held, style, theme)
    _fronts(rate, product, tradeoff.points, theme)
    label = f"{tradeoff.metric}, %"
    _dress(rate, "Supervised R-D", "data size, KB per image", label, theme)
    _dress(product, "ExR-D", "encoder size, bits × data size, KB", label, theme)
    _dress_three(three, label, theme)
    handles, labels = rate.get_legend_handles_labels()
    legend = figure.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.05),
        ncols=min(len(labels), 6),
        frameon=False,
        fontsize=10,
        handlelength=3,
    )
    for text in legend.get_texts():
        text.set_color(theme.ink)
    said = title or f"{tradeoff.images} images of {tradeoff.data}/"
    codings = ", ".join(sorted({point.coding for point in tradeoff.points if point.coding}))
    said += f"; hollow: the same models, {codings}" if codings else ""
    note = (
        f"{said}; ringed: no other point has less and scores more. KB: 1,024 bytes. Codecs of "
        "images hold no parameters: first panel alone."
    )
    figure.text(0.05, 0.018, note, fontsize=9.5, color=theme.faint)
    return figure


def _kilobytes(points: Sequence[Point]) -> list[float]:
    return [point.data_bytes / 1024 for point in points]


def _percent(points: Sequence[Point]) -> list[float]:
    return [100 * point.score for point in points]


def _fronts(rate: Any, product: Any, points: Sequence[Point], theme: Theme) -> None:
    ring = {"s": 150, "facecolors": "none", "edgecolors": theme.ink, "linewidths": 1.1, "zorder": 5}
    front = [point for point in points if point.on_rd_front]
    rate.scatter(_kilobytes(front), _percent(front), **ring)
    front = [point for point in points if point.on_exrd_front and point.exrd]
    product.scatter([(point.exrd or 0) / 1024 for point in front], _percent(front), **ring)


def _dress(axes: Any, title: str, x: str, y: str, theme: Theme) -> None:
    axes.set_xscale("log")
    axes.set_title(title, fontsize=12, color=theme.ink, loc="left")
    axes.set_xlabel(x, fontsize=10.5, color=theme.ink)
    axes.set_ylabel(y, fontsize=10.5, color=theme.ink)
    axes.set_facecolor(theme.page)
    axes.grid(True, which="major", color=theme.grid, linewidth=0.8)
    axes.tick_params(colors=theme.ink, which="both", labelsize=9.5)
    for spine in axes.spines.values():
        spine.set_color(theme.grid)
    from matplotlib.ticker import FuncFormatter, NullFormatter

    # Few decades: numbers are read more easily than powers of ten.
    low, high = axes.get_xlim()
    if high / low < 1e4 and high < 1e5:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _three_way(axes: Any, points: Sequence[Point], style: dict[str, Any], theme: Theme) -> None:
    """Draw a series in space."""
    xs = [np.log10(point.encoder_bits) for point in points]
    ys = [np.log10(point.data_bytes / 1024) for point in points]
    axes.plot(xs, ys, _percent(points), **style)


def _dress_three(axes: Any, label: str, theme: Theme) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    floor = axes.get_zlim()[0]
    for line in list(axes.lines):
        xs, ys, zs = line.get_data_3d()
        for x, y, z in zip(xs, ys, zs, strict=True):
            axes.plot([x, x], [y, y], [floor, z], color=theme.faint, linewidth=0.6, alpha=0.7)
    axes.set_zlim(bottom=floor)
    axes.set_title("three-way", fontsize=12, color=theme.ink, loc="left", y=0.97)
    axes.set_xlabel("encoder size, Kbit", fontsize=9.5, color=theme.ink)
    axes.set_ylabel("data size, KB", fontsize=9.5, color=theme.ink)
    axes.set_zlabel(label, fontsize=9.5, color=theme.ink)
    axes.set_facecolor(theme.page)
    thousands = FuncFormatter(lambda value, _: f"{10**value / 1000:,.0f}")
    axes.xaxis.set_major_formatter(thousands)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{10**value:.2g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    axes.view_init(elev=18, azim=-58)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color(theme.page)
        axis.line.set_color(theme.faint)
        axis._axinfo["grid"]["color"] = theme.grid
        axis.set_tick_params(colors=theme.ink, labelsize=8.5)
