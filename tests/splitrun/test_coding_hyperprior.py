"""A latent and its hyperprior, in one payload and back; scale indexes that disagree."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.models.base import get_scale_table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from strategies import INT32, INT32_RANGE, any_tables, damaged, peaked_tables

from splitrun.coding import Codec, FactorizedTables
from splitrun.coding.hyperprior import HyperpriorCoder
from splitrun.errors import BitstreamError, DesyncError, TablesError

GOLDEN = Path(__file__).parents[1] / "golden" / "hyperprior"
STREAM_ID = b"\1\2\3\4"
SENT = ("symbols", "hyper_symbols", "indexes")
SHAPES = arrays_of.array_shapes(min_dims=3, max_dims=3, max_side=4)
SYMBOLS = st.integers(-60, 60) | INT32_RANGE | st.sampled_from([INT32.min, 0, INT32.max])


@st.composite
def cases(draw):
    """A coder, and what the device graph could give for it: symbols of y and z, indexes."""
    coder = HyperpriorCoder(draw(any_tables()), draw(any_tables()))
    shape, (_, *hyper_shape) = draw(SHAPES), draw(SHAPES)
    rows = st.integers(0, coder.tables.channels - 1)
    return (
        coder,
        draw(arrays_of.arrays(np.int32, shape, elements=SYMBOLS)),
        draw(arrays_of.arrays(np.int32, (coder.channels, *hyper_shape), elements=SYMBOLS)),
        draw(arrays_of.arrays(np.int32, shape, elements=rows)),
    )


def small_tables(rows=3):
    return peaked_tables(rows, 1, 8)


def tensors(seed=0, spread=1.0):
    """Symbols of y (4, 5, 6) and z (2, 2, 3), and indexes, for ``small_tables``."""
    rng = np.random.default_rng(seed)
    indexes = rng.integers(0, 3, (4, 5, 6)).astype(np.int32)
    symbols = np.rint(rng.normal(size=indexes.shape) * spread * (indexes + 1) / 2)
    hyper_symbols = np.rint(rng.normal(size=(2, 2, 3)) * spread)
    return symbols.astype(np.int32), hyper_symbols.astype(np.int32), indexes


@pytest.fixture(scope="module")
def coder():
    return HyperpriorCoder(small_tables(2), small_tables())


def decode(coder, payload, hyper_symbols, indexes):
    """Decode with a hyper-decoder that makes the same indexes of any z."""
    return coder.decode(payload, *hyper_symbols.shape[1:], lambda z: (indexes, z))


@settings(max_examples=80, deadline=None)
@given(cases())
def test_any_symbols_come_back_under_any_tables_and_indexes(case):
    coder, *sent = case
    symbols, hyper_symbols, indexes = sent
    received, z = decode(coder, coder.encode(*sent), hyper_symbols, indexes)
    np.testing.assert_array_equal(received, symbols, strict=True)
    np.testing.assert_array_equal(z, hyper_symbols, strict=True)
    assert coder.shape(*sent) == hyper_symbols.shape[1:]


@settings(max_examples=80, deadline=None)
@given(cases(), st.data())
def test_a_damaged_payload_is_refused_or_is_what_its_symbols_encode_to(case, data):
    coder, *sent = case
    _, hyper_symbols, indexes = sent
    changed = damaged(data, coder.encode(*sent))
    try:
        received, z = decode(coder, changed, hyper_symbols, indexes)
    except BitstreamError:
        return
    assert coder.encode(received, z, indexes) == changed


@settings(max_examples=100, deadline=None)
@given(cases(), st.data())
def test_one_other_index_is_always_noticed(case, data):
    coder, *sent = case
    _, hyper_symbols, indexes = sent
    other = indexes.copy()
    place = data.draw(st.integers(0, indexes.size - 1))
    other.flat[place] += data.draw(st.integers(1, 4))
    other.flat[place] %= coder.tables.channels
    if np.array_equal(other, indexes):
        return
    with pytest.raises(DesyncError, match="not those that the device computed") as caught:
        decode(coder, coder.encode(*sent), hyper_symbols, other)
    assert "same engine" in caught.value.next_step


def test_indexes_of_another_size_are_noticed(coder):
    symbols, hyper_symbols, indexes = tensors()
    payload = coder.encode(symbols, hyper_symbols, np.zeros_like(indexes))
    with pytest.raises(DesyncError):
        decode(coder, payload, hyper_symbols, np.zeros((4, 5, 5), np.int32))


@pytest.mark.parametrize(
    ("indexes", "message"),
    [
        pytest.param(np.zeros((4, 5, 6), np.float32), "are float32", id="floats"),
        pytest.param(np.zeros((4, 5, 6), bool), "are bool", id="truths"),
        pytest.param(np.zeros((1, 4, 5, 6), np.int32), r"\(1, 4, 5, 6\)", id="batch"),
        pytest.param(np.zeros((4, 0, 6), np.int32), r"\(4, 0, 6\)", id="nothing"),
        pytest.param(np.full((4, 5, 6), -1), r"from -1 to -1; .* from 0 to 2", id="below"),
        pytest.param(np.full((4, 5, 6), 3), r"from 3 to 3; .* from 0 to 2", id="above"),
        pytest.param(np.full((4, 5, 6), 256), "from 256 to 256", id="beyond a byte"),
        pytest.param(
            np.broadcast_to(np.int32(0), (1, 4097, 4096)), "16777216 at most", id="too many"
        ),
    ],
)
def test_indexes_that_do_not_fit_are_refused_on_both_sides(coder, indexes, message):
    _, hyper_symbols, right = sent = tensors()
    with pytest.raises(BitstreamError, match=message):
        decode(coder, coder.encode(*sent), hyper_symbols, indexes)
    symbols = np.broadcast_to(right[:1, :1, :1], indexes.shape)
    with pytest.raises(TablesError, match=message):
        coder.encode(symbols, hyper_symbols, indexes)


def test_tensors_that_do_not_fit_each_other_are_refused(coder):
    symbols, hyper_symbols, indexes = tensors()
    with pytest.raises(TablesError, match=r"shape \(4, 5, 5\) have scale indexes of"):
        coder.encode(symbols[..., 1:], hyper_symbols, indexes)
    for other in (hyper_symbols[:1], hyper_symbols[None], hyper_symbols.repeat(2, axis=0)):
        with pytest.raises(TablesError, match="tables are for 2 channels"):
            coder.encode(symbols, other, indexes)


@pytest.mark.parametrize("payload", [b"", b"\1"])
def test_a_payload_without_its_check_is_refused(coder, payload):
    with pytest.raises(BitstreamError, match="ends within the check"):
        decode(coder, payload, *tensors()[1:])


def test_decoding_without_a_hyper_decoder_is_a_mistake(coder):
    with pytest.raises(TypeError, match="hyper-decoder"):
        coder.decode(coder.encode(*tensors()), 2, 3)


def test_a_coder_comes_back_from_its_parts(coder):
    parts = coder.arrays()
    assert tuple(parts) == HyperpriorCoder.array_names()
    content = io.BytesIO()
    np.savez(content, **parts)
    content.seek(0)
    with np.load(content) as read:
        back = HyperpriorCoder.from_parts(coder.settings(), read)
    assert back.digest() == coder.digest()
    assert back.channels == coder.channels == 2
    assert back.encode(*tensors()) == coder.encode(*tensors())


@pytest.mark.parametrize("name", HyperpriorCoder.array_names())
def test_every_part_is_checked(coder, name):
    parts = coder.arrays()
    for wrong in (parts[name].astype(np.float32), parts[name][None], np.int64(1) << 40):
        with pytest.raises(TablesError):
            HyperpriorCoder.from_parts({}, parts | {name: np.asarray(wrong)})
    del parts[name]
    with pytest.raises(TablesError, match=f"{name}' is missing"):
        HyperpriorCoder.from_parts({}, parts)


def test_more_scales_than_a_byte_counts_are_refused():
    tables = small_tables(1)
    many = FactorizedTables(
        np.tile(tables.cdf, (257, 1)), np.tile(tables.length, 257), np.tile(tables.offset, 257), 8
    )
    with pytest.raises(TablesError, match="257 scales; 256 are possible"):
        HyperpriorCoder(tables, many)


def test_the_digest_depends_on_both_tables():
    two, three = small_tables(2), small_tables(3)
    pairs = [(two, three), (three, two), (two, two), (three, three)]
    assert len({HyperpriorCoder(*pair).digest() for pair in pairs}) == 4


def tables_of(model):
    return FactorizedTables(
        model.quantized_cdf.numpy(), model.cdf_length.numpy(), model.offset.numpy(), 16
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_payload_is_no_larger_than_that_of_compressai(seed):
    generator = torch.Generator().manual_seed(seed)
    hyper_model, model = EntropyBottleneck(8), GaussianConditional(None)
    hyper_model.update()
    model.update_scale_table(get_scale_table())
    scales = torch.exp(torch.randn(1, 12, 16, 20, generator=generator) * 1.5)
    y = scales * torch.randn(scales.shape, generator=generator)
    z = 4 * torch.randn(1, 8, 4, 5, generator=generator)
    indexes = model.build_indexes(scales)
    peer = len(model.compress(y, indexes)[0]) + len(hyper_model.compress(z)[0])

    coder = HyperpriorCoder(tables_of(hyper_model), tables_of(model))
    sent = [x.round().int()[0].numpy() for x in (y, z)]
    payload = coder.encode(*sent, indexes[0].numpy())
    assert len(payload) <= peer
    received, _ = decode(coder, payload, sent[1], indexes[0].numpy())
    np.testing.assert_array_equal(received, sent[0], strict=True)


@pytest.mark.parametrize(("name", "spread"), [("ordinary", 1.0), ("escapes", 40.0)])
def test_golden_streams_are_written_and_read_as_ever(request, coder, name, spread):
    if request.config.getoption("rewrite_golden"):
        GOLDEN.mkdir(exist_ok=True)
        sent = dict(zip(SENT, tensors(spread=spread), strict=True))
        stream = Codec(coder, STREAM_ID, (2, 3)).compress(*sent.values())
        sent["stream"] = np.frombuffer(stream, np.uint8)
        np.savez_compressed(GOLDEN / f"{name}.npz", **coder.arrays(), **sent)
    with np.load(GOLDEN / f"{name}.npz") as golden:
        codec = Codec(HyperpriorCoder.from_parts({}, golden), STREAM_ID, (2, 3))
        symbols, hyper_symbols, indexes = (golden[key] for key in SENT)
        stream = golden["stream"].tobytes()
    assert codec.compress(symbols, hyper_symbols, indexes) == stream
    received, z = codec.decompress(stream, lambda z: (indexes, z))
    np.testing.assert_array_equal(received, symbols, strict=True)
    np.testing.assert_array_equal(z, hyper_symbols, strict=True)
