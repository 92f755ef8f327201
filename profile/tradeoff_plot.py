"""The figure of the three tradeoffs: R-D, ExR-D, and all three measures at once."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from splitrun.files import new_folder

from .figures import Theme, add_legend, dress_axes, save_figure
from .rd_points import RdPoint
from .ticks import set_exponent_ticks, set_log_ticks
from .tradeoffs import Point, Tradeoff, save_points

WIDTH = 15.0
"""Width of the figure, inches; its height is what the legend and the note need."""


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
    save_figure(lambda theme: draw_figure(tradeoff, theme, title), folder, "tradeoff")


def draw_figure(tradeoff: Tradeoff, theme: Theme, title: str) -> Figure:
    """Draw the three panels, a legend and a note; see :func:`draw_tradeoff`."""
    series = tradeoff.series()
    styles = figure_styles(tradeoff.points, theme)
    shown = [style["label"] for style in styles.values() if style["label"][0] != "_"]
    columns = max(1, min(6, int(WIDTH / (0.9 + 0.08 * max(map(len, shown))))))
    rows = -(-len(shown) // columns)
    note = textwrap.fill(_note(tradeoff, title, styles), 200)
    # Inches from below: note, legend, labels of the axes, panels, titles.
    legend_at = 0.25 + 0.19 * note.count("\n")
    below = legend_at + 0.1 + 0.27 * rows + 0.7
    height = below + 3.45 + 0.45
    figure = Figure(figsize=(WIDTH, height), dpi=110)
    FigureCanvasAgg(figure)
    bottom, tall = below / height, 3.45 / height
    rate = figure.add_axes((0.05, bottom, 0.275, tall))
    product = figure.add_axes((0.375, bottom, 0.275, tall))
    three: Any = figure.add_axes(
        (0.69, bottom - 0.5 / height, 0.28, tall + 0.6 / height), projection="3d"
    )
    for name, points in series.items():
        style = styles[name]
        rate.plot(_kilobytes(points), _percent(points), **style)
        costed = [point for point in points if point.cost]
        if costed:
            product.plot(_products(costed), _percent(costed), **style)
            xs = [math.log10(point.cost or 1) for point in costed]
            ys = [math.log10(kilobytes) for kilobytes in _kilobytes(costed)]
            three.plot(xs, ys, _percent(costed), **style)
    _rings(rate, product, tradeoff.points, theme)
    label, words = f"{tradeoff.metric}, %", tradeoff.cost.words
    _dress(rate, "Supervised R-D", "data size, KB per image", label, theme)
    _dress(product, "ExR-D", f"{words} × data size, KB", label, theme)
    _dress_three(three, (words, "data size, KB", label), theme)
    if not any(point.cost for point in tradeoff.points):
        product.remove()
        three.remove()
        rate.set_position((0.05, bottom, 0.92, tall))
    add_legend(rate, theme, legend_at / height, columns)
    figure.text(0.05, 0.1 / height, note, fontsize=9.5, color=theme.faint, va="bottom")
    return figure


def figure_styles(points: Sequence[Point | RdPoint], theme: Theme) -> dict[str, dict[str, Any]]:
    """Return a style for each series; the same models in another coding differ in filling."""
    models = list(dict.fromkeys(point.models for point in points))
    codings = {name: [one.coding for one in points if one.models == name] for name in models}
    styles = {}
    for point in points:
        number = models.index(point.models)
        turn = number // len(_MARKERS)  # once all were used, other pairs of marker and line
        colour = theme.series[number % len(theme.series)]
        companion = bool(point.coding) and "" in codings[point.models]
        styles[point.series] = {
            "color": colour,
            "marker": _MARKERS[(number + turn) % len(_MARKERS)],
            "markerfacecolor": theme.page if companion else colour,
            "linestyle": _LINES[(number + turn) % len(_LINES)],
            "linewidth": 1.6,
            "markersize": 6.5,
            # One line of the legend stands for both; the note explains hollow markers.
            "label": f"_{point.series}" if companion else point.series,
        }
    return styles


def _note(tradeoff: Tradeoff, title: str, styles: dict[str, dict[str, Any]]) -> str:
    said = [title or f"{tradeoff.images} images of {tradeoff.data}/"]
    hollow = {one.coding for one in tradeoff.points if styles[one.series]["label"][0] == "_"}
    if hollow:
        said.append(f"hollow: the same models, {', '.join(sorted(hollow))}")
    said.append("ringed: no other point has less and scores more")
    note = f"{'; '.join(said)}. KB: 1,024 bytes."
    if tradeoff.cost.what:
        name, _, _ = tradeoff.cost.words.partition(",")
        note += f" {name.capitalize()}: {tradeoff.cost.what}."
    left_out = [point for point in tradeoff.points if not point.cost]
    if left_out and tradeoff.cost.field == "device_ms":
        note += " Models whose latency was not given: first panel alone."
    elif 0 < len(left_out) < len(tradeoff.points):
        note += " Codecs of images hold no parameters: first panel alone."
    return note


def _kilobytes(points: Sequence[Point]) -> list[float]:
    return [point.data_bytes / 1024 for point in points]


def _percent(points: Sequence[Point]) -> list[float]:
    return [100 * point.score for point in points]


def _products(points: Sequence[Point]) -> list[float]:
    return [(point.exrd or 0) / 1024 for point in points]


def _rings(rate: Any, product: Any, points: Sequence[Point], theme: Theme) -> None:
    ring = {"s": 150, "facecolors": "none", "edgecolors": theme.ink, "linewidths": 1.1, "zorder": 5}
    front = [point for point in points if point.on_rd_front]
    rate.scatter(_kilobytes(front), _percent(front), **ring)
    front = [point for point in points if point.on_exrd_front and point.exrd]
    product.scatter(_products(front), _percent(front), **ring)


def _dress(axes: Any, title: str, x: str, y: str, theme: Theme) -> None:
    axes.set_xscale("log")
    axes.set_title(title, fontsize=12, color=theme.ink, loc="left")
    axes.set_xlabel(x, fontsize=10.5, color=theme.ink)
    axes.set_ylabel(y, fontsize=10.5, color=theme.ink)
    dress_axes(axes, theme, which="major")
    if axes.lines:
        set_log_ticks(axes)


def _dress_three(axes: Any, labels: Sequence[str], theme: Theme) -> None:
    floor = axes.get_zlim()[0]
    for line in list(axes.lines):
        for x, y, z in zip(*line.get_data_3d(), strict=True):
            axes.plot([x, x], [y, y], [floor, z], color=theme.faint, linewidth=0.6, alpha=0.7)
    axes.set_zlim(bottom=floor)
    axes.set_title("three-way", fontsize=12, color=theme.ink, loc="left", y=0.97)
    for axis, label in zip((axes.xaxis, axes.yaxis, axes.zaxis), labels, strict=True):
        axis.set_label_text(label, fontsize=9.5, color=theme.ink)
    axes.set_facecolor(theme.page)
    set_exponent_ticks(axes.xaxis, axes.get_xlim())
    set_exponent_ticks(axes.yaxis, axes.get_ylim())
    axes.view_init(elev=18, azim=-58)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_pane_color(theme.page)
        axis.line.set_color(theme.faint)
        axis._axinfo["grid"]["color"] = theme.grid
        axis.set_tick_params(colors=theme.ink, labelsize=8.5)
