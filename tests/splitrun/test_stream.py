import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitrun.coding import (
    STREAM_OVERHEAD_BYTES,
    Codec,
    FactorizedCoder,
    FactorizedTables,
    read_stream,
    write_stream,
)
from splitrun.coding.stream import MAX_SYMBOLS
from splitrun.errors import BitstreamError

GOLDEN = Path(__file__).parents[1] / "golden" / "factorized"
STREAM_ID = b"\x01\x02\xfe\xff"
SHAPE = (6, 7)


def small_coder():
    """Three channels: a peak, a flat one off centre, and one ordinary symbol with a rare escape."""
    rows = [[0, 1, 5, 20, 200, 235, 250, 255, 256], [0, 40, 80, 120, 160, 200, 256], [0, 255, 256]]
    length = np.array([len(row) for row in rows], np.int32)
    cdf = np.array([row + [0] * (length.max() - len(row)) for row in rows], np.int32)
    tables = FactorizedTables(cdf, length, np.array([-3, 5, 0], np.int32), 8)
    return FactorizedCoder(tables)


def ordinary_symbols(shape, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack(
        [rng.integers(-2, 3, shape), rng.integers(5, 10, shape), np.zeros(shape, int)]
    ).astype(np.int32)


def escaped_symbols(shape, seed=0):
    rng = np.random.default_rng(seed)
    symbols = ordinary_symbols(shape, seed)
    places = rng.random(symbols.shape) < 0.1
    spread = rng.normal(size=symbols.shape) * 10.0 ** rng.integers(0, 7, symbols.shape)
    symbols[places] = spread[places]
    symbols[0, 0, :2] = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    return symbols


CASES = {
    "ordinary": (SHAPE, ordinary_symbols(SHAPE)),
    "escapes": (SHAPE, escaped_symbols(SHAPE)),
    "sent-shape": (SHAPE, ordinary_symbols((5, 9))),
}


@pytest.fixture(scope="module")
def codec():
    return Codec(small_coder(), STREAM_ID, SHAPE)


@pytest.fixture(scope="module", params=CASES)
def stream(request, codec):
    return codec.compress(CASES[request.param][1])


def signed(body):
    """A body with the CRC-32 that belongs to it, so that the reader looks further."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def framed(payload, *, magic=b"SZ", version=1, flags=0, stream_id=STREAM_ID, shape=b""):
    return signed(magic + bytes([version, flags]) + stream_id + shape + payload)


def sent(height, width):
    return height.to_bytes(2, "little") + width.to_bytes(2, "little")


def test_a_stream_has_12_bytes_beyond_its_payload(codec):
    symbols = ordinary_symbols(SHAPE)
    payload = codec.coder.encode(symbols)
    assert STREAM_OVERHEAD_BYTES == 12
    assert codec.compress(symbols) == framed(payload)
    assert len(codec.compress(symbols)) == len(payload) + 12


def test_a_stream_of_another_shape_has_16_bytes_beyond_its_payload(codec):
    symbols = ordinary_symbols((5, 300))
    payload = codec.coder.encode(symbols)
    assert codec.compress(symbols) == framed(payload, flags=1, shape=sent(5, 300))
    assert len(codec.compress(symbols)) == len(payload) + 16


def test_a_frame_is_taken_apart_as_it_was_put_together():
    assert read_stream(write_stream(b"payload", STREAM_ID)) == (STREAM_ID, None, b"payload")
    assert read_stream(write_stream(b"", STREAM_ID, (1, 65535))) == (STREAM_ID, (1, 65535), b"")


def test_every_truncation_is_refused(codec, stream):
    for size in range(len(stream)):
        with pytest.raises(BitstreamError):
            codec.decompress(stream[:size])


def test_every_change_of_one_byte_is_refused(codec, stream):
    for place in range(len(stream)):
        for change in range(1, 256):
            damaged = bytearray(stream)
            damaged[place] ^= change
            with pytest.raises(BitstreamError):
                codec.decompress(bytes(damaged))


def test_bytes_after_the_end_are_refused(codec, stream):
    for more in (b"\0", b"\xff", stream):
        with pytest.raises(BitstreamError):
            codec.decompress(stream + more)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        pytest.param(b"", "has 0 bytes; the shortest has 12", id="nothing"),
        pytest.param(b"SZ\1\0", "has 4 bytes", id="four bytes"),
        pytest.param(
            b"\x89PNG\r\n\x1a\n" + bytes(20), "not a splitzoo stream", id="another format"
        ),
        pytest.param(
            framed(b"", magic=b"sz"), "not a splitzoo stream", id="magic in small letters"
        ),
        pytest.param(framed(b"")[:-1] + b"\0", "CRC-32 does not match", id="wrong CRC"),
        pytest.param(framed(b"", version=2), "format version 2; this reads version 1", id="newer"),
        pytest.param(framed(b"", version=0), "format version 0", id="version 0"),
        pytest.param(framed(b"", flags=2), "flags that version 1 lacks: 0x02", id="unknown flag"),
        pytest.param(framed(b"", flags=0x81), "lacks: 0x81", id="known and unknown flags"),
        pytest.param(framed(b"\1\0\1", flags=1), "ends within its shape", id="shape cut short"),
        pytest.param(
            framed(b"", stream_id=b"\1\2\3\4"),
            "model 01020304; this is 0102feff",
            id="another model",
        ),
        pytest.param(framed(b"", flags=1, shape=sent(0, 0)), "claims 3×0×0", id="shape 0×0"),
        pytest.param(framed(b"", flags=1, shape=sent(0, 9)), "claims 3×0×9", id="no row"),
        pytest.param(framed(b"", flags=1, shape=sent(9, 0)), "claims 3×9×0", id="no column"),
        pytest.param(
            framed(b"", flags=1, shape=sent(65535, 65535)), "claims 3×65535×65535", id="huge shape"
        ),
        pytest.param(framed(b"\1\0"), "ends in a zero byte", id="zero byte at the end"),
        pytest.param(framed(b"\xaa" * 400), "goes on after its last symbol", id="payload too long"),
        pytest.param(framed(b"\xff" * 400), "a symbol beyond 32 bits", id="symbol too large"),
    ],
)
def test_a_hostile_stream_is_refused_with_the_reason(codec, stream, message):
    with pytest.raises(BitstreamError, match=message):
        codec.decompress(stream)


def test_a_stream_may_claim_max_symbols_and_not_one_more():
    assert MAX_SYMBOLS == 1 << 24
    cdf, one = np.array([[0, 1, 2]], np.int32), np.ones(1, np.int32)
    coder = FactorizedCoder(FactorizedTables(cdf, 3 * one, 0 * one, 1))
    codec = Codec(coder, STREAM_ID, SHAPE)
    allowed = framed(b"", flags=1, shape=sent(4096, 4096))
    assert codec.unframe(allowed) == (b"", 4096, 4096)
    with pytest.raises(BitstreamError, match="claims 1×257×65281"):
        # 257 × 65281 = 2**24 + 1
        codec.decompress(framed(b"", flags=1, shape=sent(257, 65281)))


def test_a_stream_that_claims_too_much_costs_no_memory(codec):
    stream = framed(b"\1", flags=1, shape=sent(65535, 65535))
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError):
            codec.decompress(stream)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 16


@pytest.mark.parametrize("shape", [(1, 65536), (65536, 1), (2048, 2731)])
def test_symbols_that_no_stream_may_claim_are_refused_when_written(codec, shape):
    with pytest.raises(BitstreamError, match="claims 3×"):
        codec.frame(b"", shape)


@settings(max_examples=150, deadline=None)
@given(stream=st.binary(max_size=80))
def test_random_bytes_are_refused(stream):
    with pytest.raises(BitstreamError):
        Codec(small_coder(), STREAM_ID, SHAPE).decompress(stream)


@settings(max_examples=150, deadline=None)
@given(
    payload=st.binary(max_size=120) | st.binary(min_size=1, max_size=12).map(lambda b: b * 10),
    shape=st.none() | st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_a_payload_is_refused_or_is_the_one_way_to_write_its_symbols(payload, shape):
    check_payload(payload, shape)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
def test_a_changed_payload_is_refused_or_is_the_one_way_to_write_its_symbols(data, name):
    symbols = CASES[name][1]
    payload = bytearray(Codec(small_coder(), STREAM_ID, SHAPE).coder.encode(symbols))
    places = st.integers(0, len(payload) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1)):
        payload[place] = byte
    check_payload(bytes(payload), symbols.shape[1:])


def check_payload(payload, shape):
    codec = Codec(small_coder(), STREAM_ID, SHAPE)
    stream = framed(payload, flags=1, shape=sent(*shape)) if shape else framed(payload)
    try:
        (symbols,) = codec.decompress(stream)
    except BitstreamError:
        return
    assert symbols.dtype == np.int32
    assert symbols.shape == (3, *(shape or SHAPE))
    assert codec.coder.encode(symbols) == payload


@settings(max_examples=100, deadline=None)
@given(data=st.data(), name=st.sampled_from(sorted(CASES)))
def test_a_changed_header_with_the_right_crc_is_refused_or_gives_symbols_of_its_shape(data, name):
    codec = Codec(small_coder(), STREAM_ID, SHAPE)
    body = bytearray(codec.compress(CASES[name][1])[:-4])
    # Heights below 2**8 keep the claimed shapes, and so the test, small.
    places = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 10])
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1)):
        body[place] = byte
    stream = signed(bytes(body))
    try:
        (symbols,) = codec.decompress(stream)
    except BitstreamError:
        return
    sent_shape = read_stream(stream).shape
    assert symbols.dtype == np.int32
    assert symbols.shape == (3, *(sent_shape or SHAPE))


@pytest.mark.parametrize("name", CASES)
def test_golden_streams_are_written_and_read_as_ever(request, name):
    if request.config.getoption("rewrite_golden"):
        _rewrite_golden(name)
    with np.load(GOLDEN / f"{name}.npz") as golden:
        tables = FactorizedTables(
            *(golden[key] for key in ("cdf", "length", "offset", "precision"))
        )
        codec = Codec(
            FactorizedCoder(tables), golden["model_id"].tobytes(), tuple(golden["shape"].tolist())
        )
        symbols = golden["symbols"]
    stream = (GOLDEN / f"{name}.sz").read_bytes()
    assert codec.compress(symbols) == stream
    (decoded,) = codec.decompress(stream)
    np.testing.assert_array_equal(decoded, symbols, strict=True)


def test_the_golden_streams_are_those_of_the_cases():
    assert {path.name for path in GOLDEN.iterdir()} == {
        f"{name}{suffix}" for name in CASES for suffix in (".npz", ".sz")
    }


def _rewrite_golden(name):
    shape, symbols = CASES[name]
    coder = small_coder()
    tables = coder.tables
    GOLDEN.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        GOLDEN / f"{name}.npz",
        cdf=tables.cdf,
        length=tables.length,
        offset=tables.offset,
        precision=tables.precision,
        model_id=np.frombuffer(STREAM_ID, np.uint8),
        shape=shape,
        symbols=symbols,
    )
    (GOLDEN / f"{name}.sz").write_bytes(Codec(coder, STREAM_ID, shape).compress(symbols))


def test_a_stream_is_bytes_of_any_kind_and_nothing_else():
    stream = write_stream(b"payload", STREAM_ID)
    for form in (bytearray(stream), memoryview(stream)):
        assert read_stream(form) == read_stream(stream)
    for form in ("photo.sz", Path("photo.sz"), np.zeros(40, np.uint8), None):
        with pytest.raises(BitstreamError, match=f"bytes, not {type(form).__name__}"):
            read_stream(form)
