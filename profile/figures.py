"""Figures for a light page and for a dark one: their colours, and how they are written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

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


def save_figure(
    draw: Callable[[Theme], Figure], folder: Path, name: str, *, forms: Sequence[str] = FORMATS
) -> None:
    """Write a figure as ``NAME.svg`` and ``NAME-dark.svg``, and the same as PNG.

    Args:
        draw: Function that draws it in the colours of a theme.
        folder: Folder for the files.
        name: Name of the files.
        forms: Suffixes of the forms to write.
    """
    for theme, suffix in ((LIGHT, ""), (DARK, "-dark")):
        # Equal values give equal files: no date, and names that do not depend on the process.
        with matplotlib.rc_context({"svg.hashsalt": "splitzoo", "svg.fonttype": "none"}):
            figure = draw(theme)
            _show_as_written(figure)
            for form in forms:
                metadata: dict[str, Any] = {"Date": None} if form == ".svg" else {"Software": None}
                path = folder / f"{name}{suffix}{form}"
                figure.savefig(path, facecolor=theme.page, metadata=metadata)


def dress_axes(axes: Any, theme: Theme, **grid: Any) -> None:
    """Give axes the colours of a theme.

    Args:
        axes: Axes of matplotlib.
        theme: Colours.
        grid: Options of ``Axes.grid``, such as ``axis="x"``.
    """
    axes.set_facecolor(theme.page)
    axes.grid(True, color=theme.grid, linewidth=0.8, **grid)
    axes.tick_params(colors=theme.ink, which="both", labelsize=9.5)
    for spine in axes.spines.values():
        spine.set_color(theme.grid)


def add_legend(axes: Any, theme: Theme, bottom: float, columns: int) -> None:
    """Add the legend of axes at the foot of their figure.

    Args:
        axes: Axes of matplotlib whose lines have labels.
        theme: Colours.
        bottom: Height of its lower edge, as a part of the figure's.
        columns: Number of columns.
    """
    legend = axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="lower center",
        bbox_to_anchor=(0.5, bottom),
        ncols=columns,
        frameon=False,
        fontsize=9.5,
        handlelength=3,
    )
    for text in legend.get_texts():
        text.set_color(theme.ink)


def _show_as_written(figure: Figure) -> None:
    """Show names and notes as they are: a dollar sign would make formulas of them."""
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes)):
        texts += legend.get_texts() if legend else []
    for text in texts:
        text.set_parse_math(False)
