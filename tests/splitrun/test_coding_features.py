"""Features to payloads and back, against a reader written from the documentation."""

import io
import math
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from fields import relu_features, smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from splitrun.coding import Codec
from splitrun.coding.features import FEATURE_CODECS, FeaturesCoder
from splitrun.errors import BitstreamError, SplitzooError
from splitrun.images.codecs import IMAGE_CODECS

GOLDEN = Path(__file__).parents[1] / "golden" / "features"
GOLDEN_STEPS = 2
FLOAT32 = np.finfo(np.float32)
# At quality 100 in JPEG: the DCT's rounding, and half a step of our own.
BEST_STEPS = 4.5


def read_from_documentation(payload, codec, shape):
    """The reader that the docstring of ``features`` describes; steps (C, 1, 1) beside features."""
    channels, height, width = shape
    unpacked = zlib.decompressobj(-15)
    header = unpacked.decompress(payload)
    planes = 1 if height * width >= 32 else math.ceil(256 / (height * width))
    count = math.ceil(channels / planes)
    assert len(header) == 6 * count
    minima = np.frombuffer(header[: 4 * count], "<f4").astype(float)
    halves = np.frombuffer(header[4 * count :], "<u2").astype("<u4")
    steps = (halves << 16).astype("<u4").view("<f4").astype(float)
    with Image.open(io.BytesIO(unpacked.unused_data), formats=[codec.upper()]) as opened:
        image = np.asarray(opened.convert("L")).astype(float)
    rows, columns = image.shape[0] // height, image.shape[1] // width
    features = np.empty(shape)
    for place in range(channels):
        row, column = divmod(place, columns)
        cut = image[row * height :, column * width :][:height, :width]
        features[place] = minima[place // planes] + cut * steps[place // planes]
    assert (rows - 1) * columns < channels <= rows * columns
    return features, steps[np.arange(channels) // planes][:, None, None]


@st.composite
def any_features(draw):
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    planes = []
    for _ in range(draw(st.integers(1, 9))):
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        scale = draw(st.sampled_from([0, 1e-45, 1e-38, 1e-3, 1, 255, 1e6, 1e38]))
        offset = draw(st.sampled_from([0, -1, 1, 1e-40, 1e4, -3e37]))
        planes.append(rng.uniform(-1, 1, (height, width)) * scale + offset)
    return np.array(planes).astype(np.float32)


@settings(max_examples=100, deadline=None)
@given(any_features())
def test_any_features_come_back_within_a_few_steps_of_their_range(features):
    channels, height, width = features.shape
    coder = FeaturesCoder("jpeg", 100, channels)
    payload = coder.encode(features)
    (decoded,) = coder.decode(payload, height, width)
    assert (decoded.dtype, decoded.shape) == (np.float32, features.shape)
    assert np.isfinite(decoded).all()
    expected, steps = read_from_documentation(payload, "jpeg", features.shape)
    rounding = 1e-7 * np.abs(features).max()
    error = np.abs(decoded.astype(float) - features)
    assert (error <= BEST_STEPS * steps + rounding).all()
    limit = float(FLOAT32.max)
    np.testing.assert_array_equal(decoded, expected.clip(-limit, limit).astype(np.float32))
    # The range of a plane that has its own is not more than 1 % wider than the plane.
    if height * width >= 32:
        spread = np.ptp(features.astype(float), axis=(1, 2), keepdims=True)
        assert (steps * 255 >= spread * (1 - 1e-9)).all()
        assert (steps * 255 <= spread * 1.01 + 255 * 1e-40).all()


@settings(max_examples=100, deadline=None)
@given(any_features(), st.sampled_from(FEATURE_CODECS), st.integers(0, 100))
def test_no_feature_leaves_its_range_at_any_quality(features, codec, quality):
    channels, height, width = features.shape
    coder = FeaturesCoder(codec, quality, channels)
    (decoded,) = coder.decode(coder.encode(features), height, width)
    assert np.isfinite(decoded).all()
    low, high = features.min(), float(features.max())
    assert decoded.min() >= low
    assert decoded.max() <= high + 0.01 * (high - low) + 1e-38


@pytest.mark.parametrize("codec", FEATURE_CODECS)
@pytest.mark.parametrize("quality", [5, 50, 100])
def test_constant_planes_come_back_exactly(codec, quality):
    values = [0, -0.0, 1, -7.25, 1e-45, FLOAT32.tiny, 3e38, -FLOAT32.max, FLOAT32.max, 0.1]
    features = np.stack([np.full((8, 8), value, np.float32) for value in values])
    # Loud planes beside them change nothing.
    features = np.concatenate([features, smooth((6, 8, 8))])[[0, 10, 1, 11, *range(2, 10), 12]]
    constant = features.max(axis=(1, 2)) == features.min(axis=(1, 2))
    coder = FeaturesCoder(codec, quality, len(features))
    (decoded,) = coder.decode(coder.encode(features), 8, 8)
    np.testing.assert_array_equal(decoded[constant], features[constant], strict=True)
    assert constant.sum() >= 9


@pytest.mark.parametrize("codec", FEATURE_CODECS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2048, 1, 1), (64, 56, 56), (3, 1, 40)])
def test_all_zeros_come_back_as_zeros(codec, shape):
    coder = FeaturesCoder(codec, 50, shape[0])
    features = np.zeros(shape, np.float32)
    payload = coder.encode(features)
    np.testing.assert_array_equal(coder.decode(payload, *shape[1:])[0], features, strict=True)
    assert len(payload) < 500 + np.prod(shape) / 50


@pytest.mark.parametrize("codec", FEATURE_CODECS)
def test_one_pixel_planes_come_back(codec):
    features = np.abs(np.random.default_rng(0).normal(size=(2048, 1, 1))).astype(np.float32)
    coder = FeaturesCoder(codec, 95, 2048)
    payload = coder.encode(features)
    (decoded,) = coder.decode(payload, 1, 1)
    assert np.mean((decoded - features) ** 2) < 0.005 * features.var()
    assert len(payload) < features.nbytes / 2


@pytest.mark.parametrize("codec", FEATURE_CODECS)
def test_negative_features_come_back(codec):
    features = smooth((16, 14, 14)) - 5
    coder = FeaturesCoder(codec, 95, 16)
    (decoded,) = coder.decode(coder.encode(features), 14, 14)
    assert features.max() < 0
    assert np.mean((decoded - features) ** 2) < 0.02 * smooth((16, 14, 14)).var()


def test_a_loud_plane_takes_nothing_from_a_quiet_one():
    quiet = smooth((8, 12, 12))
    loud = quiet.copy()
    loud[3] *= 1024  # a power of two, so that its own levels stay
    coder = FeaturesCoder("jpeg", 95, 8)
    (alone,) = coder.decode(coder.encode(quiet), 12, 12)
    (beside,) = coder.decode(coder.encode(loud), 12, 12)
    others = np.arange(8) != 3
    np.testing.assert_array_equal(beside[others], alone[others])


@pytest.mark.parametrize("codec", FEATURE_CODECS)
def test_better_qualities_are_larger_and_closer(codec):
    features = relu_features((24, 28, 28))
    sizes, errors = [], []
    for quality in range(10, 101, 15):
        coder = FeaturesCoder(codec, quality, 24)
        payload = coder.encode(features)
        sizes.append(len(payload))
        errors.append(float(np.mean((coder.decode(payload, 28, 28)[0] - features) ** 2)))
    assert sizes == sorted(set(sizes))
    assert errors == sorted(set(errors), reverse=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused(value):
    features = smooth((3, 4, 5))
    features[1, 2, 3] = value
    with pytest.raises(SplitzooError, match="hold NaN or infinity") as caught:
        FeaturesCoder("jpeg", 50, 3).encode(features)
    assert "overflows" in caught.value.next_step


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 4), (3, 0, 4), (1, 3, 4, 4)])
def test_features_of_another_shape_are_refused(shape):
    with pytest.raises(SplitzooError, match="3 channels is expected"):
        FeaturesCoder("jpeg", 50, 3).encode(np.zeros(shape, np.float32))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(FEATURE_CODECS), st.integers(1, 4096), st.integers(1, 300), st.integers(1, 300)
)
def test_the_image_holds_every_plane_and_little_else(codec, channels, height, width):
    grid = FeaturesCoder(codec, 50, channels)._grid(height, width)
    most = IMAGE_CODECS.get(codec).max_side
    area = channels * height * width
    if grid is None:
        assert area > most * most / 4
        return
    rows, columns = grid
    assert 1 <= channels <= rows * columns < channels + columns
    assert max(rows * height, columns * width) <= most
    if area <= 1 << 24:
        assert max(rows * height, columns * width) <= max(2.5 * area**0.5, 2 * max(height, width))


@pytest.mark.parametrize(
    ("codec", "shape"),
    [
        ("jpeg", (2, 65_000, 2)),
        ("jpeg", (70, 2, 60_000)),
        ("webp", (2, 16_383, 3)),
        ("webp", (9, 2, 10_000)),
    ],
)
def test_long_planes_fit_as_far_as_the_format_goes(codec, shape):
    features = np.zeros(shape, np.float32)
    coder = FeaturesCoder(codec, 50, shape[0])
    np.testing.assert_array_equal(coder.decode(coder.encode(features), *shape[1:])[0], features)


@pytest.mark.parametrize(
    ("codec", "shape"),
    [("jpeg", (1, 65_501, 1)), ("webp", (2, 1, 16_384)), ("webp", (3, 9e3, 9e3))],
)
def test_planes_beyond_the_format_are_refused(codec, shape):
    channels, height, width = map(int, shape)
    coder = FeaturesCoder(codec, 50, channels)
    if height * width < 1 << 20:
        with pytest.raises(SplitzooError, match="do not fit into a"):
            coder.encode(np.zeros((channels, height, width), np.float32))
    with pytest.raises(BitstreamError, match="do not fit into a"):
        coder.decode(b"", height, width)


@pytest.fixture(params=FEATURE_CODECS)
def coded(request):
    coder = FeaturesCoder(request.param, 50, 6)
    return coder, coder.encode(relu_features((6, 7, 9)))


def decoded_or_refused(coder, payload, height, width):
    try:
        (features,) = coder.decode(payload, height, width)
    except BitstreamError:
        return None
    assert (features.dtype, features.shape) == (np.float32, (coder.channels, height, width))
    assert np.isfinite(features).all()
    return features


def test_every_truncation_is_refused(coded):
    coder, payload = coded
    for size in range(len(payload)):
        with pytest.raises(BitstreamError):
            coder.decode(payload[:size], 7, 9)


def test_payloads_of_another_shape_are_refused(coded):
    coder, payload = coded
    for shape in [(7, 8), (9, 7), (1, 1), (400, 400)]:
        with pytest.raises(BitstreamError):
            coder.decode(payload, *shape)
    with pytest.raises(BitstreamError, match="do not unpack to 42 bytes"):
        FeaturesCoder(coder.codec.name, 50, 7).decode(payload, 7, 9)


def test_damaged_payloads_are_refused_or_features(coded):
    coder, payload = coded
    rng = np.random.default_rng(0)
    for place in range(len(payload)):
        damaged = bytearray(payload)
        damaged[place] ^= rng.integers(1, 256)
        decoded_or_refused(coder, bytes(damaged), 7, 9)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=60))
def test_any_bytes_are_refused(header, image):
    coder = FeaturesCoder("webp", 50, 3)
    assert decoded_or_refused(coder, header, 4, 4) is None
    assert decoded_or_refused(coder, deflated(header) + image, 4, 4) is None


def deflated(header):
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(header) + deflate.flush()


def with_ranges(minimum, step_bits):
    """A payload of 6 planes of 7×9 whose first range is this one."""
    steps = np.full(6, 0x3F80, "<u2")
    steps[0] = step_bits
    minima = np.array([minimum, 0, 0, 0, 0, 0], "<f4")
    image = IMAGE_CODECS.get("jpeg").encode(np.full((21, 18), 255, np.uint8), 50)
    return deflated(minima.tobytes() + steps.tobytes()) + image


@pytest.mark.parametrize(
    ("minimum", "step_bits"),
    [(np.nan, 0), (np.inf, 0), (-np.inf, 0), (0, 0x7F80), (0, 0x7FC0), (0, 0xFF80), (0, 0xBF80)],
)
def test_ranges_that_are_not_finite_or_fall_are_refused(minimum, step_bits):
    with pytest.raises(BitstreamError, match="a range that is not finite"):
        FeaturesCoder("jpeg", 50, 6).decode(with_ranges(minimum, step_bits), 7, 9)


def test_ranges_that_end_beyond_float32_are_cut_there():
    (decoded,) = FeaturesCoder("jpeg", 50, 6).decode(with_ranges(3e38, 0x7F7F), 7, 9)
    np.testing.assert_array_equal(decoded[0], np.full((7, 9), FLOAT32.max))
    np.testing.assert_array_equal(decoded[1], np.full((7, 9), 255, np.float32))


def test_ranges_that_unpack_to_too_much_take_no_memory():
    bomb = deflated(bytes(1 << 28))
    coder = FeaturesCoder("jpeg", 50, 6)
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError, match="do not unpack to 36 bytes"):
            coder.decode(bomb, 7, 9)
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()


def test_a_image_that_claims_too_much_never_reaches_a_decoder(monkeypatch, coded):
    coder, payload = coded
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("a decoder was called"))
    large = FeaturesCoder(coder.codec.name, 50, 6).encode(np.zeros((6, 700, 900), np.float32))
    for image in (large[-2000:], large):
        with pytest.raises(BitstreamError):
            coder.decode(image, 7, 9)
    unpacked = zlib.decompressobj(-15)
    ranges = payload[: len(payload) - len(unpacked.decompress(payload) and unpacked.unused_data)]
    unpacked = zlib.decompressobj(-15)
    unpacked.decompress(large)
    with pytest.raises(BitstreamError, match="claims 2100×1800 pixels"):
        coder.decode(ranges + unpacked.unused_data, 7, 9)


def test_features_go_through_a_stream():
    features = relu_features((6, 7, 9))
    codec = Codec(FeaturesCoder("jpeg", 80, 6), b"\1\2\3\4", (7, 9))
    stream = codec.compress(features)
    assert len(stream) == len(codec.coder.encode(features)) + 12
    (decoded,) = codec.decompress(stream)
    assert decoded.shape == features.shape


# Encoders change between versions of the libraries, so only decoding is held to these.
@pytest.mark.parametrize("codec", FEATURE_CODECS)
@pytest.mark.parametrize("shape", [(5, 7, 9), (40, 1, 1)], ids=["planes", "pooled"])
def test_golden_payloads_are_read_as_ever(request, codec, shape):
    path = GOLDEN / f"{codec}-{'x'.join(map(str, shape))}.npz"
    coder = FeaturesCoder(codec, 60, shape[0])
    if request.config.getoption("rewrite_golden"):
        payload = coder.encode(smooth(shape))
        (decoded,) = coder.decode(payload, *shape[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, payload=np.frombuffer(payload, np.uint8), decoded=decoded)
    with np.load(path) as golden:
        payload, expected = golden["payload"].tobytes(), golden["decoded"]
    (decoded,) = coder.decode(payload, *shape[1:])
    _, steps = read_from_documentation(payload, codec, shape)
    assert (np.abs(decoded - expected) <= GOLDEN_STEPS * steps).all()
    assert np.mean((expected - smooth(shape)) ** 2) < 0.5
