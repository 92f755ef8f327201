"""Fitting dense tables, for context coding of a quantiser's planes: least squares, zone by zone."""

import numpy as np
from numpy.typing import NDArray

from splitrun.coding.context.dense import (
    LIMIT,
    MAX_CONSTANT,
    MAX_WEIGHT,
    DensePlanes,
    DenseStep,
    DenseTables,
    features,
    low_classes,
)
from splitrun.coding.context.skeleton import ONE, magnitudes, number_of_passes, rounded

from .rows import count_rows, tables_from_counts

LEVELS = 3
BORDER = 4
"""Number of rows and columns at the border that are zones of their own: convolutions that pad make
as many unlike the others."""

SPREADS = np.rint(ONE * 2.0 ** (np.arange(-2, 13) / 2)).astype(np.int32)
"""Thresholds between classes of spreads, in 1/256: half octaves from half a symbol to 64."""

LOWS = 8
"""Number of classes of low means, for each class of spreads."""

_LOW = 3
"""Largest low mean, in spreads: the floor is within reach."""

_RIDGE = 100.0
_REACH = 511
_IMAGES = 32
"""Number of images looked at together, to save memory."""


def fit_dense(symbols: NDArray[np.int32]) -> DenseTables:
    """Fit dense tables to symbols (N, C, h, w) int32 of N images, 0 at their floor or below it.

    Raises:
        TablesError: There are more channels than tables can be for.
    """
    channels = symbols.shape[1]
    shape = number_of_passes(LEVELS), 1 + 4 * BORDER, 2, channels, features(channels)
    weights = np.zeros(shape, np.int32)
    planes = DensePlanes(symbols.shape, LEVELS, BORDER)
    fitted = []
    for step in planes.steps():
        target, own = step.of(symbols), weights[step.number, :, :, step.channel]
        mean = _fit(step, 0, target.clip(-LIMIT, LIMIT), own)
        off = target - rounded(mean)
        spread = _fit(step, 1, magnitudes(off, LIMIT), own)
        planes.put(step, target, off)
        fitted.append((target, mean, spread))
    return _with_rows(
        weights, *(np.concatenate(parts, axis=None) for parts in zip(*fitted, strict=True))
    )


def _with_rows(
    weights: NDArray[np.int32],
    symbols: NDArray[np.int32],
    means: NDArray[np.int32],
    spreads: NDArray[np.int32],
) -> DenseTables:
    """Part predictions into classes, and count the symbols of each."""
    classes = np.searchsorted(SPREADS, spreads, side="right")
    lows = np.zeros((SPREADS.size + 1, LOWS), np.int32)
    for number, thresholds in enumerate(lows):
        inside = classes == number
        if inside.any():
            thresholds[:] = _LOW * max(int(np.median(spreads[inside])), 1)
            low = np.sort(means[inside & (means < thresholds[-1])])
            if low.size:
                thresholds[:-1] = low[np.arange(1, LOWS) * low.size // LOWS]
    low = low_classes(lows, classes, means)
    coded = symbols - np.where(low < LOWS, 0, rounded(means)).astype(np.int32)
    reach = max(1, int(magnitudes(coded, _REACH).max()))
    number = lows.shape[0] * (LOWS + 1)
    counts = count_rows(coded, classes * (LOWS + 1) + low, number, reach)
    expected = np.append(SPREADS, 2 * SPREADS[-1]) / ONE
    rows = tables_from_counts(counts, expected.repeat(LOWS + 1))
    return DenseTables(weights, SPREADS, lows, rows)


def _fit(
    step: DenseStep, part: int, target: NDArray[np.int32], weights: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Fit the weights of one zone after another, put them in place, and return what they predict.

    Args:
        step: Step that is fitted.
        part: 0 for the mean, 1 for the spread.
        target: Symbols or distances (N, n).
        weights: The step's weights (zones, 2, features) int32, which are written.

    Returns:
        Predictions (N, n) int32, in 1/256.
    """
    zones = step.placed.zones
    # A latent of another size has zones that this one has not: they get the weights of the inside.
    within = zones == 0 if np.any(zones == 0) else np.full(zones.shape, True)
    _put(weights[:, part], step, _solve(step.known[part][..., within], target[:, within]))
    for zone in np.unique(zones[zones > 0]):
        at = zones == zone
        _put(weights[zone, part], step, _solve(step.known[part][..., at], target[:, at]))
    return step.predict(weights[:, part], part)


def _put(weights: NDArray[np.int32], step: DenseStep, solved: NDArray[np.float64]) -> None:
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
