"""The figure of a choice: total latency over the rate of the link, and where ways are equal."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..figures import Theme, dress_axes, save_figure
from ..ticks import labels, round_values, set_log_ticks
from .choose import Choice, Group
from .crossings import Course

_SLOWEST, _FASTEST = 1e3, 1e8
_LINES = ("-", "--", "-.", ":")


def draw_choice(choice: Choice, folder: Path) -> None:
    """Draw ``choice.svg`` and ``choice-dark.svg``, and the same as PNG."""
    save_figure(lambda theme: draw_figure(choice, theme), folder, "choice")


def draw_figure(choice: Choice, theme: Theme) -> Figure:
    """Draw a panel for each data set: a line for each way, and a ring where two cross."""
    groups = [group for group in choice.groups if group.courses]
    figure = Figure(figsize=(9.0, 5.2 * len(groups) + 0.4), dpi=110)
    FigureCanvasAgg(figure)
    for axes, group in zip(figure.subplots(len(groups), squeeze=False)[:, 0], groups, strict=True):
        _draw_group(axes, group, choice, theme)
    figure.subplots_adjust(0.1, 0.18 / len(groups), 0.97, 1 - 0.08 / len(groups), hspace=0.5)
    figure.text(0.02, 0.012, _note(choice), fontsize=8.5, color=theme.faint, va="bottom")
    return figure


def _draw_group(axes: Any, group: Group, choice: Choice, theme: Theme) -> None:
    rates = np.geomspace(_SLOWEST, _FASTEST, 200)
    for number, course in enumerate(group.courses):
        axes.plot(
            rates,
            [course.total_ms(rate) for rate in rates],
            _LINES[number % len(_LINES)],
            color=theme.series[number % len(theme.series)],
            linewidth=2.2 if number == 0 else 1.5,
            label=_label(course, group),
        )
    for cross in group.crossings:
        if cross.bits_per_second and _SLOWEST <= cross.bits_per_second <= _FASTEST:
            axes.plot(cross.bits_per_second, cross.total_ms, "o", mfc="none", mec=theme.ink, ms=9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    if choice.link:
        axes.axvline(choice.link.bits_per_second, color=theme.faint, linewidth=1, linestyle=":")
    axes.set_title(
        f"{group.images:,} images of {group.data}/", fontsize=11, color=theme.ink, loc="left"
    )
    axes.set_xlabel("rate of the link, bit/s", fontsize=10.5, color=theme.ink)
    axes.set_ylabel("image to answer, ms", fontsize=10.5, color=theme.ink)
    dress_axes(axes, theme, which="major")
    set_log_ticks(axes)
    low, high = axes.get_ylim()
    values = round_values(low, high, 6)
    axes.set_yticks(values, labels(values))
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=9, labelcolor=theme.ink, loc="upper right")


def _label(course: Course, group: Group) -> str:
    name = course.way if course.way == "all on the device" else course.model
    said = f"{name}: {course.score:.2%}, {course.stream_bytes:,.0f} bytes"
    for cross in group.crossings:
        if (cross.other, cross.other_way) == (course.model, course.way) and cross.bits_per_second:
            said += f"; equal at {cross.bits_per_second / 1e3:,.0f} kbit/s"
    return said


def _note(choice: Choice) -> str:
    frames = f" in the frames of {choice.link.name}" if choice.link else ""
    note = (
        f"Device: {choice.device.name}; edge: {choice.edge}. Bytes{frames}, the mean of an image. "
        "Each codec is the one of least bytes that is as accurate as the split model, or its most "
        "accurate. Ringed: it takes as long as the split model."
    )
    return textwrap.fill(note, 135)
