import io
import itertools
import math
import pickle
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitzoo.errors import BitstreamError, TablesError
from splitzoo.zoo.coding import FactorizedCoder, FactorizedTables

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


@settings(max_examples=300, deadline=None)
@given(tables_and_symbols())
def test_any_symbols_come_back_under_any_tables(case):
    tables, symbols = case
    coder = FactorizedCoder(tables)
    decoded = coder.decode(coder.encode(symbols), *symbols.shape[1:])
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, symbols, strict=True)


@settings(max_examples=200, deadline=None)
@given(tables_and_symbols())
def test_the_payload_is_byte_for_byte_the_documented_one(case):
    tables, symbols = case
    assert FactorizedCoder(tables).encode(symbols) == ReferenceCoder(tables).encode(symbols)


@settings(max_examples=100, deadline=None)
@given(tables_and_symbols())
def test_a_decoder_written_from_the_documentation_reads_the_payload(case):
    tables, symbols = case
    payload = FactorizedCoder(tables).encode(symbols)
    decoded = ReferenceCoder(tables).decode(payload, *symbols.shape[1:])
    np.testing.assert_array_equal(decoded, symbols)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 300), (1, 300, 1), (3, 1, 1), (3, 40, 1)])
def test_thin_shapes_come_back(shape):
    coder = FactorizedCoder(laplace_tables(shape[0]))
    symbols = np.random.default_rng(0).integers(-20, 21, shape).astype(np.int32)
    decoded = coder.decode(coder.encode(symbols), *shape[1:])
    np.testing.assert_array_equal(decoded, symbols, strict=True)


@pytest.mark.parametrize("value", [INT32.min, INT32.max])
@pytest.mark.parametrize("offset", [INT32.min, 0, INT32.max - 4])
def test_the_farthest_escapes_come_back(value, offset):
    cdf = np.array([[0, 1, 3, 4]], np.int32)
    tables = FactorizedTables(cdf, np.array([4], np.int32), np.array([offset], np.int32), 2)
    symbols = np.full((1, 2, 3), value, np.int32)
    coder = FactorizedCoder(tables)
    np.testing.assert_array_equal(coder.decode(coder.encode(symbols), 2, 3), symbols, strict=True)


def test_the_finest_table_is_coded_with_its_own_counts():
    # 65,536 slots of one count each: every symbol costs 16 bits, no more.
    cdf = np.arange((1 << 16) + 1, dtype=np.int32)[None]
    length, offset = np.array([cdf.size], np.int32), np.array([-32768], np.int32)
    coder = FactorizedCoder(FactorizedTables(cdf, length, offset, 16))
    symbols = np.random.default_rng(0).integers(-32768, 32767, (1, 40, 50)).astype(np.int32)
    payload = coder.encode(symbols)
    assert 3990 <= len(payload) <= 4004
    np.testing.assert_array_equal(coder.decode(payload, 40, 50), symbols, strict=True)


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
    ("spoil", "message"),
    [
        (lambda payload: payload + b"\0", "ends in a zero byte"),
        (lambda payload: payload + b"\1\2\3\4", "goes on after its last symbol"),
    ],
)
def test_a_payload_with_something_behind_it_is_refused(spoil, message):
    tables = laplace_tables(2)
    coder = FactorizedCoder(tables)
    with pytest.raises(BitstreamError, match=message):
        coder.decode(spoil(coder.encode(likely_symbols(tables, 8, 8))), 8, 8)


def test_a_payload_of_another_shape_is_refused():
    tables = laplace_tables(2)
    coder = FactorizedCoder(tables)
    with pytest.raises(BitstreamError, match="goes on after its last symbol"):
        coder.decode(coder.encode(likely_symbols(tables, 8, 8)), 7, 8)


def test_a_payload_that_holds_more_than_32_bits_is_refused():
    # The reference coder, unlike ours, takes symbols of any size.
    tables = laplace_tables(1)
    payload = ReferenceCoder(tables).encode(np.array([[[INT32.max + 1]]], np.int64))
    with pytest.raises(BitstreamError, match="beyond 32 bits"):
        FactorizedCoder(tables).decode(payload, 1, 1)


VALID = {
    "cdf": np.array([[0, 1, 3, 4], [0, 2, 4, 0]], np.int32),
    "length": np.array([4, 3], np.int32),
    "offset": np.array([-1, 0], np.int32),
    "precision": np.int32(2),
}


def changed(**arrays):
    return {**VALID, **{name: np.asarray(value) for name, value in arrays.items()}}


def without(name):
    return {key: value for key, value in VALID.items() if key != name}


def zip_entry(name, **changes):
    """A ``.npz`` of valid tables in which one array's file is another."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for key, value in VALID.items():
            plain = io.BytesIO()
            np.save(plain, value)
            archive.writestr(f"{key}.npy", changes["data"] if key == name else plain.getvalue())
    return content.getvalue()


def array_header(shape, descr="<i4"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(16)


def saved(save=np.savez, **arrays):
    content = io.BytesIO()
    save(content, **arrays)
    return content.getvalue()


def patched(content, signature, position, value):
    """Overwrite one byte of every zip header of a kind, local or central."""
    patched = bytearray(content)
    start = patched.find(signature)
    while start >= 0:
        patched[start + position] = value
        start = patched.find(signature, start + 4)
    return bytes(patched)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param(changed(cdf=VALID["cdf"][0]), "rank 2", id="cdf of rank 1"),
        pytest.param(changed(length=VALID["length"][None]), "rank 1", id="length of rank 2"),
        pytest.param(changed(offset=0), "rank 1", id="offset of rank 0"),
        pytest.param(changed(precision=[2]), "rank 0", id="precision of rank 1"),
        pytest.param(changed(cdf=VALID["cdf"].astype(float)), "integer", id="float cdf"),
        pytest.param(changed(length=[4.0, 3.0]), "integer", id="float length"),
        pytest.param(changed(offset=[False, True]), "integer", id="bool offset"),
        pytest.param(changed(precision=2.0), "integer", id="float precision"),
        pytest.param(changed(precision=b"2"), "integer", id="bytes precision"),
        pytest.param(changed(offset=[None, 1]), "integer", id="objects"),
        pytest.param(changed(precision=0), "precision of 0 bits", id="precision 0"),
        pytest.param(changed(precision=-1), "precision of -1 bits", id="precision -1"),
        pytest.param(changed(precision=17), "precision of 17 bits", id="precision 17"),
        pytest.param(changed(precision=3), "row 0 does not rise from 0 to 8", id="other precision"),
        pytest.param(changed(cdf=[[0, 3, 1, 4], [0, 2, 4, 0]]), "row 0", id="decreasing row"),
        pytest.param(changed(cdf=[[0, 1, 3, 4], [0, 0, 4, 0]]), "row 1", id="slot without a count"),
        pytest.param(changed(cdf=[[1, 2, 3, 4], [0, 2, 4, 0]]), "row 0", id="row from 1"),
        pytest.param(changed(cdf=[[0, 1, 3, 5], [0, 2, 4, 0]]), "row 0", id="row beyond the top"),
        pytest.param(changed(cdf=[[0, 1, -3, 4], [0, 2, 4, 0]]), "row 0", id="negative entry"),
        pytest.param(
            # Each difference is positive modulo 2**32.
            changed(cdf=[[0, INT32.max, INT32.min, -1, 4]], length=[5], offset=[0]),
            "row 0",
            id="row that wraps around",
        ),
        pytest.param(changed(cdf=VALID["cdf"].astype(np.int64) << 32), "32 bits", id="huge cdf"),
        pytest.param(changed(offset=[1 << 31, 0]), "32 bits", id="offset of 2**31"),
        pytest.param(changed(offset=[-(1 << 31) - 1, 0]), "32 bits", id="offset below int32"),
        pytest.param(
            changed(offset=np.array([1 << 63, 0], np.uint64)), "32 bits", id="offset of 2**63"
        ),
        pytest.param(changed(offset=[INT32.max - 3, 0]), "32-bit range", id="offset too far up"),
        pytest.param(changed(length=[4, 2]), "below 3", id="length 2"),
        pytest.param(changed(length=[4, -3]), "below 3", id="negative length"),
        pytest.param(changed(length=[5, 3]), "beyond its row", id="length beyond the row"),
        pytest.param(changed(length=[4]), "2 rows and 1 lengths", id="too few lengths"),
        pytest.param(changed(offset=[0, 0, 0]), "2 rows and 3 offsets", id="too many offsets"),
        pytest.param(
            changed(cdf=np.zeros((0, 4), int), length=np.zeros(0, int), offset=np.zeros(0, int)),
            "0 rows",
            id="no channel",
        ),
        pytest.param(
            changed(
                cdf=np.tile([0, 2, 4], (65537, 1)),
                length=np.full(65537, 3),
                offset=np.zeros(65537, int),
            ),
            "65537 rows",
            id="too many channels",
        ),
    ],
)
def test_wrong_arrays_are_refused(arrays, message):
    with pytest.raises(TablesError, match=message):
        FactorizedTables(**arrays)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        VALID | {"more": 1},
        *(without(name) for name in VALID),
    ],
    ids=["none", "one too many", *(f"no {name}" for name in VALID)],
)
def test_a_file_of_other_arrays_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "tables.npz", **arrays)
    with pytest.raises(TablesError, match="it holds"):
        FactorizedTables.load(tmp_path / "tables.npz")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a zip file", id="no zip"),
        pytest.param(saved(**VALID)[:-30], id="truncated"),
        pytest.param(saved(**without("offset")), id="array missing"),
        pytest.param(saved(**changed(cdf=VALID["cdf"].astype(np.float32))), id="float"),
        pytest.param(saved(**changed(offset=[None, {}])), id="pickled objects"),
        pytest.param(pickle.dumps(VALID), id="pickle"),
        pytest.param(zip_entry("cdf", data=pickle.dumps(VALID["cdf"])), id="pickle in a zip"),
        pytest.param(zip_entry("cdf", data=b""), id="empty array file"),
        pytest.param(zip_entry("cdf", data=array_header("(2, 400)")), id="array cut short"),
        pytest.param(zip_entry("cdf", data=array_header("(1 << 9,)")), id="shape to evaluate"),
        pytest.param(zip_entry("cdf", data=array_header("((((")), id="header that does not parse"),
        pytest.param(zip_entry("cdf", data=array_header("(-1, 4)")), id="negative shape"),
        pytest.param(zip_entry("cdf", data=array_header(f"({1 << 50},)")), id="claims 4 PiB"),
        pytest.param(zip_entry("cdf", data=array_header(f"({1 << 70},)")), id="claims 2**70"),
        pytest.param(zip_entry("cdf", data=array_header("(2, 4)", "|O")), id="claims objects"),
        pytest.param(patched(saved(**VALID), b"PK\1\2", 10, 99), id="unknown compression"),
        pytest.param(patched(saved(**VALID), b"PK\1\2", 6, 255), id="later zip version"),
        pytest.param(
            patched(patched(saved(**VALID), b"PK\1\2", 8, 1), b"PK\3\4", 6, 1), id="encrypted"
        ),
        pytest.param(
            patched(saved(np.savez_compressed, **VALID), b"PK\3\4", 57, 0xFF), id="broken deflate"
        ),
    ],
)
def test_a_hostile_or_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "tables.npz").write_bytes(content)
    with pytest.raises(TablesError):
        FactorizedTables.load(tmp_path / "tables.npz")


def test_a_file_that_unpacks_to_more_than_64_mib_is_refused_unread(tmp_path):
    path = tmp_path / "tables.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cdf.npy", bytes((1 << 26) + 1))
    assert path.stat().st_size < 1 << 17
    with pytest.raises(TablesError, match="unpacks to more than 64 MiB"):
        FactorizedTables.load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(TablesError, match="Cannot read entropy tables"):
            FactorizedTables.load(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), compressed=st.booleans())
def test_a_file_with_changed_bytes_is_refused_or_holds_valid_tables(
    tmp_path_factory, data, compressed
):
    content = bytearray(saved(np.savez_compressed if compressed else np.savez, **VALID))
    places = st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1)):
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "changed.npz"
    path.write_bytes(content)
    try:
        with warnings.catch_warnings():
            # numpy warns of headers as Python 2 wrote them, zipfile of names that come twice.
            warnings.simplefilter("ignore", UserWarning)
            tables = FactorizedTables.load(path)
    except TablesError:
        return
    coder, symbols = FactorizedCoder(tables), np.zeros((tables.channels, 1, 2), np.int32)
    np.testing.assert_array_equal(coder.decode(coder.encode(symbols), 1, 2), symbols, strict=True)


@settings(max_examples=50, deadline=None)
@given(tables=any_tables())
def test_saved_tables_come_back(tmp_path_factory, tables):
    path = tmp_path_factory.getbasetemp() / "tables.npz"
    tables.save(path)
    loaded = FactorizedTables.load(path)
    for name in ("cdf", "length", "offset"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(tables, name), strict=True)
    assert loaded.precision == tables.precision
    assert loaded.digest() == tables.digest()


def test_tables_cannot_be_changed():
    tables = FactorizedTables(**VALID)
    for name in ("cdf", "length", "offset"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(tables, name)[0] = 1


def test_the_digest_ignores_padding_and_nothing_else():
    original = FactorizedTables(**VALID).digest()
    assert len(original) == 32
    padded = changed(cdf=[[0, 1, 3, 4, 7, 7], [0, 2, 4, 9, 7, 7]])
    assert FactorizedTables(**padded).digest() == original
    others = [
        changed(cdf=[[0, 2, 3, 4], [0, 2, 4, 0]]),
        changed(cdf=[[0, 1, 3, 4], [0, 2, 3, 4]], length=[4, 4]),
        changed(offset=[-1, 1]),
        changed(cdf=2 * VALID["cdf"], precision=3),
        changed(cdf=VALID["cdf"][::-1], length=[3, 4], offset=[0, -1]),
    ]
    digests = {FactorizedTables(**other).digest() for other in others}
    assert len(digests | {original}) == 6
