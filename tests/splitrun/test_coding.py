"""Symbols to payloads and back, against a coder written from the documentation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import INT32, tables_and_symbols

from splitrun.coding import Coder, FactorizedCoder, FactorizedTables
from splitrun.errors import BitstreamError


class ReferenceCoder:
    """The coder that the docstring of ``factorized`` describes, in Python's integers alone.

    The range variant of asymmetric numeral systems (Duda, https://arxiv.org/abs/1311.2540,
    Section 3.3): 64 bits of state, words of 32 bits, models of 24 bits.
    """

    def __init__(self, tables):
        self.offset = tables.offset.tolist()
        self.escape = [length - 2 for length in tables.length.tolist()]
        scale = 1 << (24 - tables.precision)
        self.models = [
            intervals([int(b - a) * scale for a, b in itertools.pairwise(row[:length])])
            for row, length in zip(tables.cdf.tolist(), tables.length.tolist(), strict=True)
        ]
        counts = [65536 // (bits + 2) for bits in range(35)]
        counts = [count * 65536 // sum(counts) for count in counts]
        counts[0] += 65536 - sum(counts)
        self.classes = intervals([256 * count for count in counts])

    def encode(self, symbols):
        slots, classes, low, high = [], [], [], []
        for model, offset, escape, plane in zip(
            self.models, self.offset, self.escape, symbols.tolist(), strict=True
        ):
            for symbol in itertools.chain.from_iterable(plane):
                slot = symbol - offset
                if 0 <= slot < escape:
                    slots.append(model[slot])
                    continue
                slots.append(model[escape])
                magnitude = 2 * (slot - escape) if slot >= escape else -2 * slot - 1
                bits = magnitude.bit_length()
                classes.append(self.classes[bits])
                if bits > 1:
                    low.append(uniform(magnitude & 0xFFFF, min(bits - 1, 16)))
                if bits > 17:
                    high.append(uniform(magnitude >> 16, bits - 17))
        state, words = 0, []
        for start, count in reversed(slots + classes + low + high):
            if state >> 40 >= count:
                words.append(state & 0xFFFFFFFF)
                state >>= 32
            state = (state // count << 24) + state % count + start
        words += [state & 0xFFFFFFFF, state >> 32]
        return b"".join(word.to_bytes(4, "little") for word in words).rstrip(b"\0")

    def decode(self, payload, height, width):
        padded = payload + b"\0" * (-len(payload) % 4)
        words = [int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4)]
        state = 0

        def refill():
            nonlocal state
            while state < 1 << 32 and words:
                state = state << 32 | words.pop()

        def pop(model):
            nonlocal state
            position = state & 0xFFFFFF
            index, (start, count) = next(
                (i, (start, count))
                for i, (start, count) in enumerate(model)
                if start <= position < start + count
            )
            state = (state >> 24) * count + position - start
            refill()
            return index

        def pop_bits(bits):
            nonlocal state
            position = state & 0xFFFFFF
            value, state = position >> (24 - bits), (state >> 24 << (24 - bits))
            state += position & ((1 << (24 - bits)) - 1)
            refill()
            return value

        refill()
        slots = [[pop(model) for _ in range(height * width)] for model in self.models]
        escaped = [
            (channel, place)
            for channel, row in enumerate(slots)
            for place, slot in enumerate(row)
            if slot == self.escape[channel]
        ]
        classes = [pop(self.classes) for _ in escaped]
        magnitude = [1 << (bits - 1) if bits else 0 for bits in classes]
        for index, bits in enumerate(classes):
            if bits > 1:
                magnitude[index] |= pop_bits(min(bits - 1, 16))
        for index, bits in enumerate(classes):
            if bits > 17:
                magnitude[index] |= pop_bits(bits - 17) << 16
        assert (state, words) == (0, [])
        for (channel, place), size in zip(escaped, magnitude, strict=True):
            slots[channel][place] = (
                -(size + 1) // 2 if size % 2 else self.escape[channel] + size // 2
            )
        symbols = [
            [slot + offset for slot in row] for row, offset in zip(slots, self.offset, strict=True)
        ]
        return np.array(symbols).reshape(-1, height, width)


def intervals(counts):
    starts = [sum(counts[:index]) for index in range(len(counts))]
    assert sum(counts) == 1 << 24
    return list(zip(starts, counts, strict=True))


def uniform(value, bits):
    count = 1 << (24 - bits)
    return ((value & ((1 << bits) - 1)) * count, count)


def laplace_tables(channels, half_width=12):
    """Tables as training leaves them: a peak, and a rare escape."""
    rows = []
    for channel in range(channels):
        scale = 0.7 + 0.3 * channel
        weights = np.exp(-np.abs(np.arange(-half_width, half_width + 1)) / scale)
        counts = np.maximum(1, weights / weights.sum() * 65000).astype(int)
        rows.append([0, *np.cumsum(counts), 1 << 16])
    cdf = np.array(rows, np.int32)
    return FactorizedTables(
        cdf=cdf,
        length=np.full(channels, cdf.shape[1], np.int32),
        offset=np.full(channels, -half_width, np.int32),
        precision=16,
    )


def likely_symbols(tables, height, width, seed=0):
    """Symbols drawn from the tables' ordinary slots, with the tables' own probabilities."""
    rng = np.random.default_rng(seed)
    planes = []
    for row, length, offset in zip(tables.cdf, tables.length, tables.offset, strict=True):
        thresholds = rng.integers(0, row[length - 2], size=(height, width))
        planes.append(np.searchsorted(row[:length], thresholds, side="right") - 1 + offset)
    return np.array(planes, np.int32)


@settings(max_examples=200, deadline=None)
@given(tables_and_symbols())
def test_any_symbols_are_written_and_read_as_documented(case):
    tables, symbols = case
    coder, reference = FactorizedCoder(tables), ReferenceCoder(tables)
    payload = coder.encode(symbols)
    assert payload == reference.encode(symbols)
    (decoded,) = coder.decode(payload, *symbols.shape[1:])
    np.testing.assert_array_equal(decoded, symbols, strict=True)
    np.testing.assert_array_equal(reference.decode(payload, *symbols.shape[1:]), symbols)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 300), (1, 300, 1), (3, 1, 1), (3, 40, 1)])
def test_thin_shapes_come_back(shape):
    coder = FactorizedCoder(laplace_tables(shape[0]))
    symbols = np.random.default_rng(0).integers(-20, 21, shape).astype(np.int32)
    (decoded,) = coder.decode(coder.encode(symbols), *shape[1:])
    np.testing.assert_array_equal(decoded, symbols, strict=True)


@pytest.mark.parametrize("value", [INT32.min, INT32.max])
@pytest.mark.parametrize("offset", [INT32.min, 0, INT32.max - 4])
def test_the_farthest_escapes_come_back(value, offset):
    cdf = np.array([[0, 1, 3, 4]], np.int32)
    tables = FactorizedTables(cdf, np.array([4], np.int32), np.array([offset], np.int32), 2)
    symbols = np.full((1, 2, 3), value, np.int32)
    coder = FactorizedCoder(tables)
    (decoded,) = coder.decode(coder.encode(symbols), 2, 3)
    np.testing.assert_array_equal(decoded, symbols, strict=True)


def test_the_finest_table_is_coded_with_its_own_counts():
    # 65,536 slots of one count each: every symbol costs 16 bits, no more.
    cdf = np.arange((1 << 16) + 1, dtype=np.int32)[None]
    length, offset = np.array([cdf.size], np.int32), np.array([-32768], np.int32)
    coder = FactorizedCoder(FactorizedTables(cdf, length, offset, 16))
    symbols = np.random.default_rng(0).integers(-32768, 32767, (1, 40, 50)).astype(np.int32)
    payload = coder.encode(symbols)
    assert 3990 <= len(payload) <= 4004
    (decoded,) = coder.decode(payload, 40, 50)
    np.testing.assert_array_equal(decoded, symbols, strict=True)


def test_ideal_bits_is_the_information_content():
    tables = laplace_tables(3)
    symbols = likely_symbols(tables, 9, 11)
    symbols[0, 0, 0] = 1000
    expected = 0.0
    for row, length, offset, plane in zip(
        tables.cdf.tolist(), tables.length.tolist(), tables.offset.tolist(), symbols, strict=True
    ):
        for symbol in plane.ravel().tolist():
            slot = symbol - offset if 0 <= symbol - offset < length - 2 else length - 2
            expected -= math.log2((row[slot + 1] - row[slot]) / 65536)
    assert FactorizedCoder(tables).ideal_bits(symbols) == pytest.approx(expected, rel=1e-12)


def test_the_payload_is_as_small_as_the_tables_allow():
    tables = laplace_tables(24)
    symbols = likely_symbols(tables, 55, 55)
    coder = FactorizedCoder(tables)
    ideal = coder.ideal_bits(symbols)
    # The first symbol goes onto an empty state and may cost nothing; the last byte is filled up.
    assert ideal - 24 <= 8 * len(coder.encode(symbols)) <= 1.0001 * ideal + 8


def test_likely_symbols_cost_less_than_unlikely_ones():
    coder = FactorizedCoder(laplace_tables(2))
    shape = (2, 20, 20)
    sizes = [len(coder.encode(np.full(shape, value, np.int32))) for value in (0, 3, 10, 10_000)]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("behind", "height", "message"),
    [
        (b"\0", 8, "ends in a zero byte"),
        (b"\1\2\3\4", 8, "goes on after its last symbol"),
        (b"", 7, "goes on after its last symbol"),
    ],
)
def test_a_payload_with_something_behind_it_is_refused(behind, height, message):
    tables = laplace_tables(2)
    coder = FactorizedCoder(tables)
    with pytest.raises(BitstreamError, match=message):
        coder.decode(coder.encode(likely_symbols(tables, 8, 8)) + behind, height, 8)


def test_a_payload_that_holds_more_than_32_bits_is_refused():
    # The reference coder, unlike ours, takes symbols of any size.
    tables = laplace_tables(1)
    payload = ReferenceCoder(tables).encode(np.array([[[INT32.max + 1]]], np.int64))
    with pytest.raises(BitstreamError, match="beyond 32 bits"):
        FactorizedCoder(tables).decode(payload, 1, 1)


@pytest.mark.parametrize("method", sorted(Coder.__abstractmethods__))
def test_a_coder_that_lacks_a_method_cannot_be_made(method):
    methods = dict.fromkeys(Coder.__abstractmethods__ - {method}, lambda *_: None)
    with pytest.raises(TypeError, match=method):
        type("Unfinished", (Coder,), methods)()
    assert {"channels", "encode", "decode", "digest", "from_parts"} <= Coder.__abstractmethods__
