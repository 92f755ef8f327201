"""Fitting context tables to the symbols of images: linear prediction, least squares."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from splitrun.coding.context_models import combine, plane_of, weigh_side
from splitrun.coding.context_tables import MAX_SIDE_WEIGHT, MAX_WEIGHT, ONE, ContextTables
from splitrun.coding.pyramid import MAX_KINDS, Kinds, Sites, passes_of, walk
from splitrun.coding.tables import FactorizedTables

from .rows import count_rows, tables_from_counts

LEVELS = 3
"""Of the pyramid: the first pass takes every eighth place in both directions."""

SPREADS = 16
FRACTIONS = 5
"""Classes of what is predicted; their product is the number of tables."""

_RIDGE = 1.0
_REACH = 511
_SAMPLES = 1 << 20


@dataclass
class _Fitted:
    """What the passes gave so far: weights, and of each symbol what picks its row."""

    weights: NDArray[np.int32]
    side_weights: NDArray[np.int32]
    residuals: list[NDArray[np.int32]] = field(default_factory=list)
    spreads: list[NDArray[np.int32]] = field(default_factory=list)
    fractions: list[NDArray[np.uint8]] = field(default_factory=list)


def fit_context(
    symbols: NDArray[np.int32],
    *,
    limit: int,
    side: NDArray[np.uint8] | None = None,
    sides: int = 0,
) -> ContextTables:
    """Fit context tables.

    Args:
        symbols: Of N images, (N, C, h, w) int32.
        limit: Symbols count as so much at most in what is predicted from them.
        side: Indexes of the same shape that come with the symbols, such as a hyperprior's.
        sides: How many such indexes there are.
    """
    channels = symbols.shape[1]
    passes = passes_of(LEVELS)
    fitted = _Fitted(
        np.zeros((passes, 1 + MAX_KINDS, 2, channels), np.int32),
        np.zeros((passes, channels), np.int32),
    )
    values = np.zeros(0, np.int32) if side is None else _side_values(symbols, side, sides, limit)

    def code(number: int, kinds: Kinds, sites: Sites) -> NDArray[np.int32]:
        known = symbols[:, :, sites[0], sites[1]]
        flat = known.reshape(*known.shape[:2], -1)
        of_side = None
        if side is not None:
            of_side = values[side[:, :, sites[0], sites[1]].reshape(flat.shape)]
        residuals = _fit_pass(fitted, number, kinds, flat, limit, of_side)
        return plane_of(flat, residuals, limit).reshape(2, *known.shape)

    height, width = symbols.shape[2:]
    walk(height, width, LEVELS, code)
    spreads, fractions, rows = _classes(fitted)
    return ContextTables(
        weights=fitted.weights,
        side=values,
        side_weights=fitted.side_weights,
        spreads=spreads,
        fractions=fractions,
        limit=limit,
        rows=rows,
    )


def _classes(
    fitted: _Fitted,
) -> tuple[NDArray[np.int32], NDArray[np.int32], FactorizedTables]:
    """Part the predictions into classes: thresholds of spreads, of fractions, and a row of each."""
    residuals = np.concatenate(fitted.residuals, axis=None)
    spreads = np.concatenate(fitted.spreads, axis=None)
    fractions = np.concatenate(fitted.fractions, axis=None)
    of_spreads = _thresholds(np.maximum(spreads, 1), SPREADS)
    off = np.abs(fractions.astype(np.int32) - ONE // 2)
    near = _thresholds(off[off > 0], FRACTIONS // 2 + 1) if off.any() else np.zeros(0, np.int32)
    # Symmetric: as many classes to the one side of no remainder as to the other.
    of_fractions = np.concatenate((ONE // 2 - near[::-1] + 1, ONE // 2 + near))
    of_fractions = np.unique(of_fractions.clip(1, ONE - 1)).astype(np.int32)
    columns = of_fractions.size + 1
    rows = np.searchsorted(of_spreads, spreads, side="right") * columns
    rows += np.searchsorted(of_fractions, fractions, side="right")
    reach = max(1, int(_magnitude(residuals, _REACH).max()))
    counts = count_rows(residuals, rows, (of_spreads.size + 1) * columns, reach)
    expected = np.append(of_spreads, 2 * of_spreads[-1:]) / ONE
    expected = np.repeat(expected if expected.size else np.array([0.5]), columns)
    return of_spreads, of_fractions, tables_from_counts(counts, expected)


def _side_values(
    symbols: NDArray[np.int32], side: NDArray[np.uint8], sides: int, limit: int
) -> NDArray[np.int32]:
    """Return the mean magnitude of the symbols that come with each index.

    One that was never seen says what the next lower one does.
    """
    magnitude = _magnitude(symbols, limit).ravel()
    count = np.bincount(side.ravel(), minlength=sides)
    total = np.bincount(side.ravel(), magnitude, minlength=sides)
    mean = np.rint(ONE * total / np.maximum(count, 1)).astype(np.int32)
    seen = np.maximum.accumulate(np.where(count > 0, np.arange(sides), np.argmax(count > 0)))
    return mean[seen]


def _fit_pass(
    fitted: _Fitted,
    number: int,
    kinds: Kinds,
    symbols: NDArray[np.int32],
    limit: int,
    of_side: NDArray[np.int32] | None,
) -> NDArray[np.int32]:
    """Fit a pass to symbols (N, C, n); return them less their means."""
    weights = fitted.weights[number]
    means_of, spreads_of = ([kind[part] for kind in kinds] for part in (0, 1))
    solved = _solve(means_of, np.clip(symbols, -limit, limit))
    weights[: solved.shape[0], 0] = _weights(solved)
    mean = combine(weights[:, 0, :, None], means_of, symbols.shape) + ONE // 2
    residuals = symbols - (mean >> (ONE.bit_length() - 1))
    distance = _magnitude(residuals, limit)
    if of_side is None:
        solved = _solve(spreads_of, distance)
    else:
        solved = _solve([*spreads_of, of_side], distance)
        of_index = np.rint(ONE * ONE * solved[-1])
        fitted.side_weights[number] = of_index.clip(-MAX_SIDE_WEIGHT, MAX_SIDE_WEIGHT)
        solved = solved[:-1]
    weights[: solved.shape[0], 1] = _weights(solved)
    spread = combine(weights[:, 1, :, None], spreads_of, symbols.shape)
    if of_side is not None:
        spread += weigh_side(fitted.side_weights[number][:, None], of_side)
    fitted.residuals.append(residuals)
    fitted.spreads.append(spread)
    fitted.fractions.append((mean & (ONE - 1)).astype(np.uint8))
    return residuals


def _magnitude(values: NDArray[np.int32], limit: int) -> NDArray[np.int32]:
    # The smallest int32 has no magnitude in 32 bits.
    return np.abs(np.clip(values, -limit, limit))


def _weights(solved: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights and constants in 1/256, none larger than tables may hold."""
    return np.rint(ONE * solved).clip(-MAX_WEIGHT, MAX_WEIGHT)


def _solve(features: list[NDArray[np.int32]], target: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return least-squares weights, channel by channel: (1 + features, C), the constant first.

    Args:
        features: Each (N, C, n).
        target: (N, C, n).
    """
    given = [np.ones_like(target, np.float64), *(one.astype(np.float64) for one in features)]
    moments = np.array([[np.einsum("ncp,ncp->c", a, b) for b in given] for a in given])
    right = np.array([np.einsum("ncp,ncp->c", a, target) for a in given])
    moments = moments.transpose(2, 0, 1) + _RIDGE * np.eye(len(given))
    return np.linalg.solve(moments, right.T[..., None])[..., 0].T


def _thresholds(values: NDArray[np.int32], classes: int) -> NDArray[np.int32]:
    """Split values at what lets each class have an equal share of the sum of their square roots."""
    values = np.sort(values[:: max(1, values.size // _SAMPLES)])
    share = np.cumsum(np.sqrt(values))
    cuts = values[np.searchsorted(share, share[-1] * np.arange(1, classes) / classes)]
    return np.unique(cuts).astype(np.int32)
