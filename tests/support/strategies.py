"""What hypothesis draws from in several files."""

import numpy as np
from hypothesis import strategies as st

from splitrun.coding import FactorizedTables
from splitrun.coding.context.skeleton import number_of_passes
from splitrun.coding.context.sparse import SparseTables

INT32 = np.iinfo(np.int32)
INT32_RANGE = st.integers(INT32.min, INT32.max)
# Wherever an escape's magnitude gets another bit, or its bits another field.
INT32_EDGES = st.sampled_from([INT32.min, INT32.min + 1, -1, 0, 1, INT32.max - 1, INT32.max])


@st.composite
def any_tables(draw):
    precision = draw(st.integers(1, 16))
    top = 1 << precision
    rows = []
    for _ in range(draw(st.integers(1, 5))):
        slots = draw(st.integers(2, min(top, 40)))
        cuts = st.lists(
            st.sampled_from(range(1, top)), unique=True, min_size=slots - 1, max_size=slots - 1
        )
        rows.append([0, *sorted(draw(cuts)), top])
    length = [len(row) for row in rows]
    # Padding is anything: nobody may look at it.
    width = max(length) + draw(st.integers(0, 2))
    padding = draw(INT32_RANGE)
    offset = [
        draw(st.integers(-50, 50) | st.integers(INT32.min, INT32.max - n) | st.just(INT32.max - n))
        for n in length
    ]
    return FactorizedTables(
        cdf=np.array([row + [padding] * (width - len(row)) for row in rows], np.int32),
        length=np.array(length, np.int32),
        offset=np.array(offset, np.int32),
        precision=precision,
    )


def row_tables(draw, number):
    """Tables of so many rows of a few ordinary symbols, near 0."""
    cuts = st.sets(st.integers(1, 65535), min_size=1, max_size=9)
    rows = [[0, *sorted(draw(cuts)), 65536] for _ in range(number)]
    width = max(map(len, rows))
    return FactorizedTables(
        np.array([row + [0] * (width - len(row)) for row in rows]),
        np.array([len(row) for row in rows]),
        np.array([draw(st.integers(-9, 3)) for _ in rows]),
        16,
    )


WEIGHTS = st.integers(-600, 600) | st.integers(-(1 << 16), 1 << 16)
SPARSE_SYMBOLS = st.integers(-4, 4) | st.integers(-300, 300) | INT32_RANGE


@st.composite
def sparse_tables(draw, channels, sides=0):
    levels = draw(st.integers(0, 3))
    spreads = sorted(draw(st.sets(st.integers(1, 900), max_size=4)))
    fractions = sorted(draw(st.sets(st.integers(1, 255), max_size=3)))
    passes = number_of_passes(levels)
    draws = st.lists(WEIGHTS, min_size=8 * passes, max_size=8 * passes)
    weights = np.array(draw(draws), np.int32).reshape(passes, 4, 2, 1)
    return SparseTables(
        weights=weights.repeat(channels, 3),
        side=np.array(draw(st.lists(st.integers(0, 999), min_size=sides, max_size=sides)), "i4"),
        side_weights=np.full((passes, channels), draw(st.integers(-300, 300)), np.int32),
        spreads=np.array(spreads, np.int32),
        fractions=np.array(fractions, np.int32),
        limit=draw(st.integers(1, 255)),
        rows=row_tables(draw, (len(spreads) + 1) * (len(fractions) + 1)),
    )


def damaged(data, payload):
    """A payload cut short, with changed bytes, and with bytes behind it."""
    places = st.tuples(st.integers(0, len(payload) - 1), st.integers(1, 255))
    changed = bytearray(payload[: data.draw(st.integers(0, len(payload)))])
    for place, change in data.draw(st.lists(places, max_size=3)):
        if place < len(changed):
            changed[place] ^= change
    return bytes(changed) + data.draw(st.binary(max_size=9))


@st.composite
def tables_and_symbols(draw):
    tables = draw(any_tables())
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rows = []
    for offset, length in zip(tables.offset.tolist(), tables.length.tolist(), strict=True):
        inside = st.integers(offset, offset + length - 3)
        near = st.integers(max(offset - 70_000, INT32.min), min(offset + 70_000, INT32.max))
        symbol = inside | inside | near | INT32_RANGE | INT32_EDGES
        rows.append(draw(st.lists(symbol, min_size=height * width, max_size=height * width)))
    return tables, np.array(rows, np.int32).reshape(-1, height, width)


def peaked_tables(rows, reach, precision):
    """Rows of falling peaks, without any float: row r reaches from −(r + reach) to r + reach."""
    widest = 2 * (rows - 1 + reach) + 1
    cdf = np.zeros((rows, widest + 2), np.int32)
    for row in range(rows):
        centre = row + reach
        weights = [4 << min(i, 2 * centre - i) for i in range(2 * centre + 1)]
        weights[centre] += (1 << precision) - 1 - sum(weights)
        cdf[row, : len(weights) + 2] = np.cumsum([0, *weights, 1])
    reaches = np.arange(rows, dtype=np.int32) + reach
    return FactorizedTables(cdf, 2 * reaches + 3, -reaches, precision)
