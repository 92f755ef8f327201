"""Ticks of logarithmic axes at round numbers, few enough not to touch, labelled plainly."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

_UNITS = ((1e12, 1e12, "T"), (1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
_STEPS = ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))


def round_values(low: float, high: float, most: int) -> list[float]:
    """Return 2 to ``most`` round values from ``low`` to ``high``, both above 0.

    They are 1, 2 and 5 or the like in each decade, then every other decade or so. A range in which
    fewer than two of these lie is divided evenly.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [[step * 10.0**decade for decade in decades for step in steps] for steps in _STEPS]
    choices += [[10.0**decade for decade in decades if decade % each == 0] for each in (2, 3, 5)]
    for choice in choices:
        inside = [value for value in choice if low <= value <= high]
        if 2 <= len(inside) <= most and high / low > 2:
            return inside
    even = MaxNLocator(nbins=most - 1, steps=[1, 2, 5, 10]).tick_values(low, high)
    inside = [float(value) for value in even if low <= value <= high]
    # The locator may give more than its bins.
    return inside[:: -(-len(inside) // most) or 1]


def labels(values: Sequence[float]) -> list[str]:
    """Return numbers as people write them: 0.2, 1,500, 20k, 3M; all digits where needed."""
    found = [_label(value) for value in values]
    return found if len(set(found)) == len(found) else [f"{value:,.12g}" for value in values]


def _label(value: float) -> str:
    for size, unit, letter in _UNITS:
        if value >= size:
            return f"{value / unit:.4g}{letter}"
    return f"{value:,.0f}" if value >= 1e3 else f"{value:.4g}"


def set_log_ticks(axes: Any, most: int = 6) -> None:
    """Give a logarithmic x axis round ticks."""
    low, high = axes.get_xlim()
    values = round_values(low, high, most)
    axes.set_xticks(values, labels(values))
    axes.minorticks_off()


def set_exponent_ticks(axis: Any, limits: tuple[float, float], most: int = 4) -> None:
    """Give an axis in space, whose coordinates are decimal logarithms, round ticks."""
    low, high = sorted(limits)
    values = round_values(10**low, 10**high, most)
    axis.set_ticks(np.log10(values), labels(values))
