"""Integer tables from counts of symbols."""

import numpy as np
from numpy.typing import NDArray

from splitrun.coding.tables import MAX_PRECISION, FactorizedTables

_TOTAL = 1 << MAX_PRECISION
_PSEUDO_COUNT = 2.0
"""Number of symbols of a two-sided geometric distribution that each row starts with."""

_NEGLIGIBLE = 0.25 / _TOTAL


def count_rows(
    symbols: NDArray[np.integer], rows: NDArray[np.integer], number: int, reach: int
) -> NDArray[np.int64]:
    """Count symbols by their rows.

    Args:
        symbols: Symbols of any shape.
        rows: Row of each, below ``number``.
        number: Number of rows.
        reach: Largest magnitude with a column of its own; others are counted in the last column.

    Returns:
        (number, 2 · reach + 2): from ``-reach`` to ``reach``, and those beyond.
    """
    width = 2 * reach + 2
    place = symbols.astype(np.int64).ravel() + reach
    place[(place < 0) | (place > 2 * reach)] = width - 1
    place += rows.astype(np.int64).ravel() * width
    return np.bincount(place, minlength=number * width).reshape(number, width)


def tables_from_counts(
    counts: NDArray[np.int64], spreads: NDArray[np.float64] | None = None
) -> FactorizedTables:
    """Make tables from counts, smoothed.

    Symbols that a row has not seen get the probability of a two-sided geometric distribution of its
    mean magnitude; those beyond the row are escaped.

    Args:
        counts: Result of :func:`count_rows`, (rows, 2 · reach + 2).
        spreads: (rows,) mean magnitudes to start from, for rows that have seen little.
    """
    reach = counts.shape[1] // 2 - 1
    values = np.arange(-reach, reach + 1)
    made = []
    for row, start in zip(counts, np.full(len(counts), 0.5) if spreads is None else spreads):  # noqa: B905  # equally long
        seen, beyond = row[:-1], row[-1]
        total = int(row.sum())
        magnitude = (seen @ np.abs(values) + beyond * reach + start) / (total + 1)
        # Mean magnitude m of p(v) ~ q**|v| is 2q / (1 - q**2).
        q = (np.sqrt(1 + magnitude**2) - 1) / magnitude if magnitude > 1e-9 else 0.0
        smooth = (1 - q) / (1 + q) * q ** np.abs(values)
        share = (seen + _PSEUDO_COUNT * smooth) / (total + _PSEUDO_COUNT)
        kept = np.flatnonzero((seen > 0) | (share > _NEGLIGIBLE))
        # All that was seen may lie beyond: then the row holds one symbol, and the rest is escaped.
        first, last = (int(kept[0]), int(kept[-1])) if kept.size else (reach, reach)
        ordinary = share[first : last + 1]
        made.append((values[first], _quantised(ordinary, max(0.0, 1 - float(ordinary.sum())))))
    length = np.array([len(row) for _, row in made], np.int32)
    cdf = np.zeros((len(made), int(length.max())), np.int32)
    for target, (_, row) in zip(cdf, made, strict=True):
        target[: len(row)] = row
    offset = np.array([first for first, _ in made], np.int32)
    return FactorizedTables(cdf, length, offset, MAX_PRECISION)


def _quantised(ordinary: NDArray[np.float64], escape: float) -> NDArray[np.int64]:
    """Return cumulative counts of at least 1 each, of the symbols and the escape slot."""
    share = np.append(ordinary, escape)
    counts = 1 + np.floor(share / share.sum() * (_TOTAL - len(share))).astype(np.int64)
    counts[np.argmax(counts)] += _TOTAL - counts.sum()
    return np.append(0, np.cumsum(counts))
