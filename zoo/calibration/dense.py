"""Fitting dense tables to the planes of images: least squares, zone by zone."""

import numpy as np
from numpy.typing import NDArray

from splitrun.coding.context_tables import ONE
from splitrun.coding.dense_models import Planes, Step, distances
from splitrun.coding.dense_tables import (
    LIMIT,
    MAX_CONSTANT,
    MAX_WEIGHT,
    DenseTables,
    features,
    low_classes,
    rounded,
)
from splitrun.coding.pyramid import passes_of

from .rows import count_rows, tables_from_counts

LEVELS = 3
BORDER = 4
"""Convolutions with paddings make as many rows and columns unlike the others."""

SPREADS = np.rint(ONE * 2.0 ** (np.arange(-2, 13) / 2)).astype(np.int32)
"""Half octaves between half a symbol and 64: thresholds between classes, in 1/256."""

LOWS = 8
"""Classes of low means, of each class of spreads."""

_LOW = 3
"""A mean up to so many times the spread is low: the floor is within reach."""

_RIDGE = 100.0
_REACH = 511
_IMAGES = 32
"""Looked at together, to save memory."""


def fit_dense(symbols: NDArray[np.int32]) -> DenseTables:
    """Fit dense tables to symbols (N, C, h, w) int32 of N images, 0 at their floor or below it.

    Raises:
        TablesError: There are more channels than tables can be for.
    """
    channels = symbols.shape[1]
    flat = symbols.reshape(*symbols.shape[:2], -1)
    shape = passes_of(LEVELS), 1 + 4 * BORDER, 2, channels, features(channels)
    weights = np.zeros(shape, np.int32)
    planes = Planes(symbols.shape, LEVELS, BORDER)
    found = []
    for step in planes.steps():
        target = flat[:, step.channel][:, step.at.places]
        of_step = weights[step.number, :, :, step.channel]
        mean = _fit(step, 0, target.clip(-LIMIT, LIMIT), of_step)
        spread = _fit(step, 1, distances(target, rounded(mean)), of_step)
        planes.put(step, target, rounded(mean))
        found.append((target, mean, spread))
    coded, means, spreads = (np.concatenate(one, axis=None) for one in zip(*found, strict=True))
    return _with_rows(weights, coded, means, spreads)


def _with_rows(
    weights: NDArray[np.int32],
    symbols: NDArray[np.int32],
    means: NDArray[np.int32],
    spreads: NDArray[np.int32],
) -> DenseTables:
    """Part what is predicted into classes, and count each one's symbols."""
    classes = np.searchsorted(SPREADS, spreads, side="right")
    lows = np.zeros((SPREADS.size + 1, LOWS), np.int32)
    for number, target in enumerate(lows):
        inside = classes == number
        if inside.any():
            target[:] = _LOW * max(int(np.median(spreads[inside])), 1)
            low = np.sort(means[inside & (means < target[-1])])
            if low.size:
                target[:-1] = low[np.arange(1, LOWS) * low.size // LOWS]
    low = low_classes(lows, classes, means)
    coded = symbols - np.where(low < LOWS, 0, rounded(means)).astype(np.int32)
    reach = max(1, int(np.abs(coded.clip(-_REACH, _REACH)).max()))
    number = lows.shape[0] * (LOWS + 1)
    counts = count_rows(coded, classes * (LOWS + 1) + low, number, reach)
    expected = np.append(SPREADS, 2 * SPREADS[-1]) / ONE
    rows = tables_from_counts(counts, expected.repeat(LOWS + 1))
    return DenseTables(weights=weights, spreads=SPREADS, lows=lows, rows=rows)


def _fit(
    step: Step, part: int, target: NDArray[np.int32], of_step: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Fit the weights of one zone after another, put them in place, and return what they give.

    Args:
        step: That is fitted.
        part: 0 for the mean, 1 for the spread.
        target: (N, n) symbols or distances.
        of_step: (zones, 2, features) int32, in which they are written.

    Returns:
        (N, n) int32, in 1/256.
    """
    zones = step.at.zones
    # A latent of another size has zones that this one has not: they are as what is inside.
    within = zones == 0 if np.any(zones == 0) else np.full(zones.shape, True)
    _put(of_step[:, part], step, _solve(step.known[part][..., within], target[:, within]))
    for zone in np.unique(zones[zones > 0]):
        at = zones == zone
        _put(of_step[zone, part], step, _solve(step.known[part][..., at], target[:, at]))
    return step.predict(of_step[:, part], part)


def _put(weights: NDArray[np.int32], step: Step, solved: NDArray[np.float64]) -> None:
    """Round weights to 1/256, and put them where a prediction's (…, features) are."""
    scaled = np.rint(ONE * solved)
    weights[..., 0] = scaled[0].clip(-MAX_CONSTANT, MAX_CONSTANT)
    weights[..., step.columns] = scaled[1:].clip(-MAX_WEIGHT, MAX_WEIGHT)


def _solve(known: NDArray[np.int32], target: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return least-squares weights, the constant first.

    Args:
        known: (f, N, n).
        target: (N, n).
    """
    size = 1 + len(known)
    moments, right = _RIDGE * np.eye(size), np.zeros(size)
    moments[0, 0] = 0.0  # a constant may be what it is
    for first in range(0, known.shape[1], _IMAGES):
        goal = target[first : first + _IMAGES].ravel()
        given = np.ones((size, goal.size))
        given[1:] = known[:, first : first + _IMAGES].reshape(-1, goal.size)
        moments += given @ given.T
        right += given @ goal
    return np.linalg.solve(moments, right)
