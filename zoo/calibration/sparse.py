"""Fitting sparse tables, for context coding of latents, to the symbols of images: least squares."""

import numpy as np
from numpy.typing import NDArray

from splitrun.coding.context.skeleton import ONE, magnitudes, number_of_passes
from splitrun.coding.context.sparse import (
    MAX_GROUPS,
    MAX_SIDE_WEIGHT,
    MAX_WEIGHT,
    SparsePlanes,
    SparseTables,
    weighted_side,
    weighted_sum,
)
from splitrun.coding.tables import FactorizedTables

from .rows import count_rows, tables_from_counts

LEVELS = 3
"""Number of levels: the first pass takes every eighth place in both directions."""

SPREADS = 16
FRACTIONS = 5
"""Numbers of classes; their product is the number of rows."""

_RIDGE = 1.0
_REACH = 511
_SAMPLES = 1 << 20


def fit_sparse(
    symbols: NDArray[np.int32],
    *,
    limit: int,
    side: NDArray[np.uint8] | None = None,
    sides: int = 0,
) -> SparseTables:
    """Fit sparse tables.

    Args:
        symbols: Symbols of N images, (N, C, h, w) int32.
        limit: Largest magnitude that symbols count as in predictions.
        side: Scale indexes of the same shape that come with the symbols.
        sides: Number of such indexes.
    """
    channels, number = symbols.shape[1], number_of_passes(LEVELS)
    weights = np.zeros((number, 1 + MAX_GROUPS, 2, channels), np.int32)
    side_weights = np.zeros((number, channels), np.int32)
    values = np.zeros(0, np.int32) if side is None else _side_values(symbols, side, sides, limit)
    planes = SparsePlanes(symbols.shape, LEVELS, limit)
    fitted = []
    for step in planes.steps():
        target, own = step.of(symbols), weights[step.number]
        known = [step.placed(sums) for sums in step.known]
        known_means, known_spreads = ([sums[part] for sums in known] for part in (0, 1))
        solved = _solve(known_means, np.clip(target, -limit, limit))
        own[: solved.shape[0], 0] = _rounded(solved)
        mean = weighted_sum(own[:, 0, :, None], known_means, target.shape) + ONE // 2
        residuals = target - (mean >> (ONE.bit_length() - 1))
        distances = magnitudes(residuals, limit)
        of_side = None if side is None else values[step.of(side)]
        if of_side is None:
            solved = _solve(known_spreads, distances)
        else:
            *solved, of_index = _solve([*known_spreads, of_side], distances)
            solved, scaled = np.array(solved), np.rint(ONE * ONE * of_index)
            side_weights[step.number] = scaled.clip(-MAX_SIDE_WEIGHT, MAX_SIDE_WEIGHT)
        own[: solved.shape[0], 1] = _rounded(solved)
        spread = weighted_sum(own[:, 1, :, None], known_spreads, target.shape)
        if of_side is not None:
            spread += weighted_side(side_weights[step.number][:, None], of_side)
        planes.put(step, target, residuals)
        fitted.append((residuals, spread, (mean & (ONE - 1)).astype(np.uint8)))
    spreads, fractions, rows = _classes(
        *(np.concatenate(parts, axis=None) for parts in zip(*fitted, strict=True))
    )
    return SparseTables(weights, values, side_weights, spreads, fractions, limit, rows)


def _classes(
    residuals: NDArray[np.int32], spreads: NDArray[np.int32], fractions: NDArray[np.uint8]
) -> tuple[NDArray[np.int32], NDArray[np.int32], FactorizedTables]:
    """Return thresholds that part spreads and fractions into classes, and a row for each class."""
    of_spreads = _thresholds(np.maximum(spreads, 1), SPREADS)
    off = np.abs(fractions.astype(np.int32) - ONE // 2)
    near = _thresholds(off[off > 0], FRACTIONS // 2 + 1) if off.any() else np.zeros(0, np.int32)
    # Symmetric: as many classes to the one side of no remainder as to the other.
    of_fractions = np.concatenate((ONE // 2 - near[::-1] + 1, ONE // 2 + near))
    of_fractions = np.unique(of_fractions.clip(1, ONE - 1)).astype(np.int32)
    columns = of_fractions.size + 1
    rows = np.searchsorted(of_spreads, spreads, side="right") * columns
    rows += np.searchsorted(of_fractions, fractions, side="right")
    reach = max(1, int(magnitudes(residuals, _REACH).max()))
    counts = count_rows(residuals, rows, (of_spreads.size + 1) * columns, reach)
    expected = np.append(of_spreads, 2 * of_spreads[-1:]) / ONE
    expected = np.repeat(expected if expected.size else np.array([0.5]), columns)
    return of_spreads, of_fractions, tables_from_counts(counts, expected)


def _side_values(
    symbols: NDArray[np.int32], side: NDArray[np.uint8], sides: int, limit: int
) -> NDArray[np.int32]:
    """Return the mean magnitude of the symbols that come with each scale index.

    An index that was never seen has the value of the next lower one.
    """
    magnitude = magnitudes(symbols, limit).ravel()
    count = np.bincount(side.ravel(), minlength=sides)
    total = np.bincount(side.ravel(), magnitude, minlength=sides)
    mean = np.rint(ONE * total / np.maximum(count, 1)).astype(np.int32)
    seen = np.maximum.accumulate(np.where(count > 0, np.arange(sides), np.argmax(count > 0)))
    return mean[seen]


def _rounded(solved: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights and constants in 1/256, none larger than tables may hold."""
    return np.rint(ONE * solved).clip(-MAX_WEIGHT, MAX_WEIGHT)


def _solve(features: list[NDArray[np.int32]], target: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return least-squares weights, channel by channel: (1 + features, C), the constant first.

    Args:
        features: Arrays (N, C, n).
        target: (N, C, n).
    """
    given = [np.ones_like(target, np.float64), *(array.astype(np.float64) for array in features)]
    moments = np.array([[np.einsum("ncp,ncp->c", a, b) for b in given] for a in given])
    right = np.array([np.einsum("ncp,ncp->c", a, target) for a in given])
    moments = moments.transpose(2, 0, 1) + _RIDGE * np.eye(len(given))
    return np.linalg.solve(moments, right.T[..., None])[..., 0].T


def _thresholds(values: NDArray[np.int32], classes: int) -> NDArray[np.int32]:
    """Return thresholds between classes of equal shares in the sum of the values' square roots."""
    values = np.sort(values[:: max(1, values.size // _SAMPLES)])
    share = np.cumsum(np.sqrt(values))
    cuts = values[np.searchsorted(share, share[-1] * np.arange(1, classes) / classes)]
    return np.unique(cuts).astype(np.int32)
