"""Context coding: symbols under tables that the symbols before them pick."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from rows_picked import rows_picked
from strategies import INT32, SPARSE_SYMBOLS, sparse_tables

from splitrun.coding import CODERS, Codec, load_coder, save_coder
from splitrun.coding.context.sparse import SparseModels, SparsePlanes
from splitrun.coding.factorized import ContextCoder
from splitrun.coding.hyperprior import ContextHyperpriorCoder
from splitrun.coding.relu_range import ReluQuantisedCoder, ReluRange
from splitrun.errors import BitstreamError, TablesError
from splitzoo.zoo.calibration.dense import fit_dense
from splitzoo.zoo.calibration.sparse import fit_sparse

GOLDEN = Path(__file__).parents[1] / "golden" / "context"
STREAM_ID = b"test"
KINDS = ("context", "hyperprior-context", "quantised-relu")
ENDS = np.array([[-2, -np.inf], [np.inf, 3]], np.float32)
"""Ends of the ranges of two channels, which are clipped below −2 and above 3."""
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 19), st.integers(1, 19))


def clustered(seed, *shape, scale=0.8):
    """Sparse symbols whose magnitudes cluster, as latents' do."""
    rng = np.random.default_rng(seed)
    *rest, height, width = shape
    coarse = rng.gamma(0.4, 1.0, (*rest, -(-height // 5), -(-width // 5)))
    spread = scale * coarse.repeat(5, -2).repeat(5, -1)[..., :height, :width]
    return np.rint(rng.normal(size=shape) * spread).astype(np.int32)


@st.composite
def tables_and_symbols(draw):
    shape = draw(SHAPES)
    symbols = draw(
        numpy_strategies.arrays(np.int32, shape, elements=SPARSE_SYMBOLS, fill=st.just(0))
    )
    return draw(sparse_tables(shape[0])), symbols


@settings(max_examples=100, deadline=None)
@given(tables_and_symbols())
def test_any_symbols_come_back_under_any_tables(case):
    found, symbols = case
    coder = ContextCoder(found)
    (decoded,) = coder.decode(coder.encode(symbols), *symbols.shape[1:])
    np.testing.assert_array_equal(decoded, symbols, strict=True)


@settings(max_examples=60, deadline=None)
@given(st.data(), SHAPES)
def test_any_symbols_come_back_with_a_hyperprior(data, shape):
    elements = {"elements": SPARSE_SYMBOLS, "fill": st.just(0)}
    y = data.draw(numpy_strategies.arrays(np.int32, shape, **elements))
    z = data.draw(numpy_strategies.arrays(np.int32, (2, 2, 3), **elements))
    indexes = data.draw(numpy_strategies.arrays(np.int32, shape, elements=st.integers(0, 4)))
    coder = ContextHyperpriorCoder(
        data.draw(sparse_tables(2)), data.draw(sparse_tables(shape[0], 5))
    )
    seen = []

    def hyper(symbols):
        seen.append(symbols)
        return indexes, indexes.astype(np.float32)

    decoded, rest = coder.decode(coder.encode(y, z, indexes), 2, 3, hyper)
    np.testing.assert_array_equal(decoded, y, strict=True)
    np.testing.assert_array_equal(seen[0], z, strict=True)
    assert rest.dtype == np.float32


def test_both_sides_pick_the_same_rows_pass_by_pass(monkeypatch):
    symbols = clustered(0, 3, 21, 34)
    models = SparseModels(fit_sparse(clustered(1, 8, 3, 21, 34), limit=15))
    rows = rows_picked(monkeypatch, models, symbols)
    assert len(rows) == 10
    assert len(np.unique(np.concatenate(rows, axis=None))) > 10


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (8, 8), (17, 30)])
@pytest.mark.parametrize("levels", [0, 1, 3, 6])
def test_each_place_is_coded_once_and_knows_neighbours_that_are(size, levels):
    """Against the places themselves: the image in the docstring of ``skeleton``, counted out."""
    symbols, off = np.random.default_rng(0).integers(-9, 9, (2, 1, 1, *size)).astype(np.int32)
    image = np.stack((symbols, np.abs(off)))[:, 0, 0]
    coded = np.zeros(size, int)
    near = (
        [[(-1, -1), (-1, 1), (1, -1), (1, 1)]],
        [[(0, -1), (0, 1)], [(-1, 0), (1, 0)]],
        [[(-1, 0), (1, 0)], [(0, -1), (0, 1)], [(-1, -1), (-1, 1), (1, -1), (1, 1)]],
    )
    planes = SparsePlanes(symbols.shape, levels, 9)
    for step in planes.steps():
        rows, columns = (np.arange(n)[s] for n, s in zip(size, step.at[1:], strict=True))
        level, kind = divmod(step.number - 1, 3)
        distance = 1 << (levels - 1 - level) if step.number else 0
        neighbours = near[kind] if step.number else []
        for sums, offsets in zip(step.known, neighbours, strict=True):
            expected = []
            for row, column in itertools.product(rows, columns):
                places = [
                    (row + distance * down, column + distance * right) for down, right in offsets
                ]
                inside = [(y, x) for y, x in places if 0 <= y < size[0] and 0 <= x < size[1]]
                assert all(coded[place] for place in inside)
                expected.append(sum((image[:, y, x] for y, x in inside), np.zeros(2, np.int32)))
            np.testing.assert_array_equal(step.placed(sums)[:, 0, 0].T, expected)
        coded[step.at[1:]] += 1
        planes.put(step, step.of(symbols), step.of(off))
    assert np.all(coded == 1)


def test_clusters_are_coded_in_fewer_bytes_and_near_the_ideal():
    fitted, others = clustered(2, 60, 4, 40, 40), clustered(3, 10, 4, 40, 40)
    coder = ContextCoder(fit_sparse(fitted, limit=15))
    plain = [np.unique(others[:, c], return_counts=True)[1] / others[:, c].size for c in range(4)]
    entropy = sum(-(share * np.log2(share)).sum() for share in plain) * 40 * 40 / 8
    sizes = [len(coder.encode(one)) for one in others]
    ideal = [coder.ideal_bits(one) / 8 for one in others]
    assert np.mean(sizes) < 0.9 * entropy
    for size, least in zip(sizes, ideal, strict=True):
        assert least - 1 <= size <= 1.01 * least + 16


def test_symbols_that_fitting_never_saw_are_escaped():
    coder = ContextCoder(fit_sparse(np.zeros((8, 1, 9, 9), np.int32), limit=15))
    symbols = np.zeros((1, 9, 9), np.int32)
    assert len(coder.encode(symbols)) <= 8
    symbols[0, 4, 4] = INT32.min
    np.testing.assert_array_equal(coder.decode(coder.encode(symbols), 9, 9)[0], symbols)


def example():
    symbols = clustered(4, 12, 2, 11, 14)
    indexes = np.minimum(np.abs(clustered(5, 12, 2, 11, 14)), 6).astype(np.uint8)
    return symbols, indexes


def coders():
    symbols, indexes = example()
    values = np.clip(symbols * 9, -100, 100)
    return {
        "context": ContextCoder(fit_sparse(symbols, limit=15)),
        "hyperprior-context": ContextHyperpriorCoder(
            fit_sparse(symbols[:, :, :3, :4], limit=15),
            fit_sparse(symbols, limit=15, side=indexes, sides=7),
        ),
        "quantised-relu": ReluQuantisedCoder(fit_dense(values.clip(0)), ReluRange(ENDS)),
    }


def sent(kind):
    symbols, indexes = example()
    if kind == "context":
        return (symbols[0],)
    if kind == "hyperprior-context":
        return symbols[0], symbols[1, :, :3, :4], indexes[0].astype(np.int32)
    values = (np.clip(symbols[0] * 9, -100, 100) + 120).astype(np.uint8)
    return values, np.full((1, 1, 1), 0.25, np.float32), np.full((1, 1, 1), 120, np.int32)


def hyper_of(tensors):
    return (lambda _: (tensors[2],)) if len(tensors) == 3 and tensors[0].dtype != np.uint8 else None


@pytest.mark.parametrize("kind", KINDS)
def test_golden_streams_are_written_and_read_as_ever(request, kind):
    path = GOLDEN / f"{kind}.npz"
    if request.config.getoption("rewrite_golden"):
        coder, tensors = coders()[kind], sent(kind)
        stream = Codec(coder, STREAM_ID, coder.shape(*tensors)).compress(*tensors)
        GOLDEN.mkdir(exist_ok=True)
        named = {f"sent_{number}": tensor for number, tensor in enumerate(tensors)}
        np.savez_compressed(path, stream=np.frombuffer(stream, np.uint8), **named, **coder.arrays())
    with np.load(path) as golden:
        coder = CODERS[kind].from_parts({}, golden)
        tensors = tuple(golden[f"sent_{number}"] for number in range(coder.num_inputs))
        stream = golden["stream"].tobytes()
    codec = Codec(coder, STREAM_ID, coder.shape(*tensors))
    assert codec.compress(*tensors) == stream
    decoded = codec.decompress(stream, hyper_of(tensors))
    for one, other in zip(decoded, coder.decoded(*tensors), strict=False):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_coder_in_a_file_is_the_same(tmp_path, kind):
    coder, tensors = coders()[kind], sent(kind)
    save_coder(coder, tmp_path / "tables.npz")
    loaded = load_coder(kind, {}, tmp_path / "tables.npz")
    assert loaded.digest() == coder.digest()
    assert loaded.encode(*tensors) == coder.encode(*tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_changed_payloads_give_an_error_or_symbols_in_bounded_time(kind):
    coder, tensors = coders()[kind], sent(kind)
    payload = coder.encode(*tensors)
    shape = coder.shape(*tensors)
    rng = np.random.default_rng(6)
    began = time.monotonic()
    for _ in range(300):
        changed = bytearray(payload)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(len(changed))] = rng.integers(256)
        cut = bytes(changed[: rng.integers(len(changed) + 1)] if rng.random() < 0.3 else changed)
        try:
            decoded = coder.decode(cut, *shape, hyper_of(tensors))
        except BitstreamError:
            continue
        assert decoded[0].shape == tensors[0].shape
    assert time.monotonic() - began < 60


def test_the_channels_must_be_those_of_the_tables():
    coder = coders()["context"]
    with pytest.raises(TablesError, match="tables are for 2 channels"):
        coder.encode(np.zeros((3, 4, 4), np.int32))
    coder, tensors = coders()["hyperprior-context"], sent("hyperprior-context")
    payload = coder.encode(*tensors)
    with pytest.raises(BitstreamError, match="scale indexes of 3 channels"):
        coder.decode(payload, 3, 4, lambda _: (np.zeros((3, 11, 14), np.int32),))


HOSTILE = {
    "weights": [
        lambda one: one[:, :, :, :0],
        lambda one: one[:-1],
        lambda one: one[:, :3],
        lambda one: one.astype(np.float32),
        lambda one: one * 0 + (1 << 17),
        lambda one: np.zeros((1 + 3 * 7, 4, 2, 2), np.int32),
    ],
    "side_weights": [lambda one: one[:, :1], lambda one: one + (1 << 20)],
    "spreads": [lambda one: one[::-1], lambda one: one - one, lambda one: one * 0 + (1 << 30)],
    "fractions": [lambda one: one + 256, lambda one: one[:0]],
    "limit": [lambda one: one * 0, lambda one: one + 256, lambda one: np.array([3])],
    "side": [lambda one: np.full(300, 1, np.int32), lambda one: np.array([1 << 20])],
    "row_cdf": [lambda one: one * 0, lambda one: one[:3]],
    "row_precision": [lambda one: one + 30],
}


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("context", ""),
        ("hyperprior-context", "hyper_"),
        ("hyperprior-context", ""),
    ],
)
def test_hostile_tables_are_refused(tmp_path, kind, prefix):
    coder = coders()[kind]
    cases = [(name, change) for name, changes in HOSTILE.items() for change in changes]
    if kind == "hyperprior-context":
        cases.append(("side", lambda one: np.zeros(0 if one.size else 3, np.int32)))
    for name, change in cases:
        arrays = coder.arrays()
        arrays[prefix + name] = change(np.asarray(arrays[prefix + name]))
        np.savez(tmp_path / "tables.npz", **arrays)
        with pytest.raises(TablesError, match="tables"):
            load_coder(kind, {}, tmp_path / "tables.npz")
