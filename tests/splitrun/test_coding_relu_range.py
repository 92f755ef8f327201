"""Values of which the edge's ReLU makes 0 alike, under dense tables."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from rows_picked import rows_picked
from strategies import INT32, row_tables
from torch import nn

from splitrun.coding import FactorizedTables, load_coder
from splitrun.coding.ans import Stack
from splitrun.coding.context.dense import (
    GROUP,
    MAX_CONTEXT_VALUES,
    MAX_WEIGHT,
    DenseModels,
    DenseTables,
    features,
    placed_passes,
)
from splitrun.coding.relu_range import ReluQuantisedCoder, ReluRange
from splitrun.errors import BitstreamError, TablesError
from splitzoo.zoo.bottlenecks.channel_reduction import layers, relu_range
from splitzoo.zoo.calibration.dense import fit_dense

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 17), st.integers(1, 17))
SYMBOLS = st.integers(0, 9) | st.integers(0, 255) | st.integers(INT32.min, INT32.max)


def smooth(seed, images, channels, height=20, width=24, noise=2.0):
    """Planes as an encoder with paddings gives: smooth, cut at 0, with a frame; channels alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(images, 1, -(-height // 4) + 1, -(-width // 4) + 1)) * 40 + 20
    planes = coarse.repeat(4, -2).repeat(4, -1)[..., :height, :width]
    planes = planes + noise * rng.normal(size=(images, channels, height, width))
    planes[..., 0, :] = 90 + noise * rng.normal(size=(images, channels, width))
    return np.rint(planes).clip(0, 255).astype(np.int32)


@st.composite
def tables(draw, channels):
    levels, border = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    spreads = sorted(draw(st.sets(st.integers(1, 900), max_size=3)))
    lows = draw(st.integers(0, 3))
    shape = 1 + 3 * levels, 1 + 4 * border, 2, channels, features(channels)
    seed, size = draw(st.integers(0, 99)), draw(st.sampled_from([20, 300, MAX_WEIGHT]))
    rng = np.random.default_rng(seed)
    return DenseTables(
        weights=rng.integers(-size, size + 1, shape),
        spreads=np.array(spreads, np.int32),
        lows=np.sort(rng.integers(-999, 9999, (len(spreads) + 1, lows)), 1),
        rows=row_tables(draw, (len(spreads) + 1) * (lows + 1)),
    )


def models_and_payload(found, symbols):
    models, stack = DenseModels(found), Stack()
    models.push(stack, symbols)
    return models, stack.payload()


@settings(max_examples=80, deadline=None)
@given(st.data(), SHAPES)
def test_any_symbols_come_back_under_any_tables(data, shape):
    symbols = data.draw(numpy_strategies.arrays(np.int32, shape, elements=SYMBOLS, fill=st.just(0)))
    models, payload = models_and_payload(data.draw(tables(shape[0])), symbols)
    stack = Stack(payload)
    np.testing.assert_array_equal(models.pop(stack, shape), symbols, strict=True)
    stack.close()


@settings(max_examples=100, deadline=None)
@given(st.data(), SHAPES, st.floats(2.0**-126, 2.0**127, width=32), st.integers(0, 255))
def test_values_come_back_and_clipped_ones_are_the_origin(data, shape, scale, zero_point):
    values = data.draw(numpy_strategies.arrays(np.uint8, shape))
    end = st.floats(width=32, allow_nan=False) | st.floats(-300, 300, width=32).map(
        lambda steps: float(np.float32(np.clip(steps * scale, -3e38, 3e38)))
    )
    ends = np.array([[-np.inf], [np.inf]], np.float32).repeat(shape[0], 1)
    for channel in range(shape[0]):
        ends[data.draw(st.integers(0, 1)), channel] = data.draw(end)
    sent = values, np.full((1, 1, 1), scale, np.float32), np.full((1, 1, 1), zero_point, np.int32)
    coder = ReluQuantisedCoder(data.draw(tables(shape[0])), ReluRange(ends))
    payload = coder.encode(*sent)
    decoded = coder.decode(payload, *shape[1:])
    for one, other in zip(decoded, coder.decoded(*sent), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert coder.encode(*decoded) == payload
    latent = (values.astype(np.float64) - zero_point) * np.float64(np.float32(scale))
    found = (decoded[0].astype(np.float64) - zero_point) * np.float64(np.float32(scale))
    low, high = ends.astype(np.float64)[..., None, None]
    clipped = (latent <= low) | (latent >= high)
    assert np.array_equal(decoded[0][~clipped], values[~clipped])
    assert np.all(
        (found[clipped] <= (low + 0 * found)[clipped])
        | (found[clipped] >= (high + 0 * found)[clipped])
    )


def test_both_sides_pick_the_same_rows_step_by_step(monkeypatch):
    models = DenseModels(fit_dense(smooth(1, 20, 3)))
    symbols = smooth(0, 1, 3)[0]
    rows = rows_picked(monkeypatch, models, symbols)
    assert len(rows) == 10 * 3
    assert len(np.unique(np.concatenate(rows, axis=None))) > 10


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (8, 8), (17, 30)])
@pytest.mark.parametrize("levels", [0, 1, 3, 6])
def test_each_place_is_coded_once_and_its_taps_are_known_before(size, levels):
    outside = size[0] * size[1]
    known = np.zeros(outside + 1, bool)
    known[outside] = True
    for one in placed_passes(*size, levels, 2):
        assert known[one.taps].all()
        assert not known[one.places].any()
        known[one.places] = True
    assert known.all()


def test_taps_are_the_nearest_known_places_and_zones_the_nearest_side():
    last = placed_passes(9, 11, 1, 2)[-1]
    place = list(last.places).index(3 * 11 + 4)
    rows, columns = np.divmod(last.taps[:, place], 11)
    offsets = {(int(y), int(x)) for y, x in zip(rows - 3, columns - 4, strict=True)}
    near = itertools.product(range(-2, 3), range(-2, 3))
    # Of odd rows and even columns nothing is known.
    expected = {(y, x) for y, x in near if 0 < y * y + x * x <= 5 and (y % 2 or x % 2)}
    assert offsets == expected
    zones = np.zeros(99, int)
    for one in placed_passes(9, 11, 1, 2):
        zones[one.places] = one.zones
    grid = zones.reshape(9, 11)
    assert grid[4, 5] == 0 and list(grid[:3, 5]) == [1, 2, 0]
    assert list(grid[-3:, 5]) == [0, 4, 3]
    assert list(grid[4, :3]) == [5, 6, 0] and list(grid[4, -3:]) == [0, 8, 7]
    assert grid[0, 0] == 1 and grid[1, 0] == 5


def test_frames_floors_and_other_channels_are_foretold():
    """Of a plane with another's noise, and of the frame that paddings leave, little is left."""
    fitted, others = smooth(2, 60, 1), smooth(3, 10, 1)
    alone = DenseModels(fit_dense(fitted))
    both = DenseModels(fit_dense(np.concatenate((fitted, fitted + 7), 1)))
    one = np.mean([alone.ideal_bits(plane) for plane in others])
    two = np.mean([both.ideal_bits(np.concatenate((plane, plane + 7))) for plane in others])
    assert two < 1.2 * one
    flat = np.zeros((1, 20, 24), np.int32)
    flat[:, 0] = 90
    assert alone.ideal_bits(flat) < 0.3 * one


def test_the_frame_on_every_side_has_weights_of_its_own(monkeypatch):
    rng = np.random.default_rng(8)
    planes = rng.integers(0, 256, (60, 1, 21, 26)).astype(np.int32)
    planes[..., 0, :], planes[..., -1, :], planes[..., 0], planes[..., -1] = 50, 100, 150, 200
    framed = DenseModels(fit_dense(planes[10:]))
    monkeypatch.setattr("splitzoo.zoo.calibration.dense.BORDER", 0)
    plain = DenseModels(fit_dense(planes[10:]))
    of_frame = 2 * (21 + 26) - 4
    saved = np.mean([plain.ideal_bits(one) - framed.ideal_bits(one) for one in planes[:10]])
    assert saved > 2 * of_frame


@pytest.mark.parametrize("size", [(19, 24), (19, 23), (16, 20)])
def test_latents_of_other_sizes_are_coded_as_well(size):
    """Their passes meet zones that the fitted ones have not."""
    models = DenseModels(fit_dense(smooth(2, 60, 2)))
    same = np.mean([models.ideal_bits(one) for one in smooth(3, 10, 2)]) / (20 * 24)
    other = np.mean([models.ideal_bits(one) for one in smooth(3, 10, 2, *size)]) / np.prod(size)
    assert other < 1.25 * same


def test_symbols_are_coded_near_the_ideal():
    models = DenseModels(fit_dense(smooth(4, 40, 2)))
    for symbols in smooth(5, 6, 2):
        least = models.ideal_bits(symbols) / 8
        _, payload = models_and_payload(models.tables, symbols)
        assert least - 1 <= len(payload) <= 1.01 * least + 16


@pytest.mark.parametrize("channels", [GROUP + 3, 40])
def test_many_channels_come_back(channels):
    symbols = smooth(6, 9, channels, height=5, width=6)
    models, payload = models_and_payload(fit_dense(symbols[1:]), symbols[0])
    np.testing.assert_array_equal(models.pop(Stack(payload), symbols.shape[1:]), symbols[0])


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 9), (1, 9, 1)])
def test_tables_are_fitted_to_the_smallest_latents(shape):
    symbols = np.random.default_rng(7).integers(0, 256, (8, *shape)).astype(np.int32)
    models, payload = models_and_payload(fit_dense(symbols), symbols[0])
    np.testing.assert_array_equal(models.pop(Stack(payload), shape), symbols[0])


def test_more_symbols_than_memory_is_for_are_refused():
    models = DenseModels(fit_dense(smooth(8, 8, 1)))
    with pytest.raises(
        BitstreamError, match=f"1×4096×4096 values are more than the {MAX_CONTEXT_VALUES}"
    ):
        models.pop(Stack(b"\1"), (1, 1 << 12, 1 << 12))
    with pytest.raises(BitstreamError, match="without calibration"):
        models.push(Stack(), np.zeros((1, 1 << 12, 1 << 12), np.int32))


HOSTILE = {
    "weights": [
        lambda one: one[:, :, :, :0],
        lambda one: one[:-1],
        lambda one: one[:, :-1],
        lambda one: one[..., :-1],
        lambda one: one.astype(np.float32),
        lambda one: one * 0 + (1 << 17),
        lambda one: np.concatenate((one[..., :1] * 0 + (1 << 29), one[..., 1:]), -1),
        lambda one: np.zeros((1 + 3 * 7, *one.shape[1:]), np.int32),
        lambda one: np.zeros((1, 1 + 4 * 99, *one.shape[2:]), np.int32),
        lambda one: one[0],
    ],
    "spreads": [lambda one: one[::-1], lambda one: one - one, lambda one: one * 0 + (1 << 30)],
    "lows": [lambda one: one[:-1], lambda one: one[:, ::-1] - np.arange(8), lambda one: one[:, 1:]],
    "row_length": [lambda one: one[:-1], lambda one: one * 0],
    "row_cdf": [lambda one: one * 0, lambda one: one[:3]],
    "row_precision": [lambda one: one + 30],
    "live": [
        lambda one: one[:1],
        lambda one: one[:, :1],
        lambda one: np.full_like(one, np.nan),
        lambda one: one.astype(np.float64),
        lambda one: np.zeros_like(one),
    ],
}


def test_hostile_tables_are_refused(tmp_path):
    ends = np.array([[-2, -np.inf], [np.inf, 3]], np.float32)
    coder = ReluQuantisedCoder(fit_dense(smooth(9, 8, 2)), ReluRange(ends))
    for name, changes in HOSTILE.items():
        for change in changes:
            arrays = coder.arrays()
            arrays[name] = change(arrays[name])
            np.savez(tmp_path / "tables.npz", **arrays)
            with pytest.raises(TablesError, match=r"tables|ReLU range"):
                load_coder("quantised-relu", {}, tmp_path / "tables.npz")


def example(end=-2.0, values=None):
    """A coder of one channel, and what a quantiser gives."""
    coder = ReluQuantisedCoder(
        fit_dense(smooth(9, 8, 1)), ReluRange(np.array([[end], [np.inf]], np.float32))
    )
    values = smooth(0, 1, 1)[0].astype(np.uint8) if values is None else values
    return coder, (values, np.full((1, 1, 1), 0.1, np.float32), np.full((1, 1, 1), 120, np.int32))


def test_the_id_covers_all_that_coding_depends_on():
    coder, _ = example()
    digests = {coder.digest()}
    changes = {
        "weights": lambda one: one + 1,
        "spreads": lambda one: one + 1,
        "lows": lambda one: one + 1,
        "row_offset": lambda one: one + 1,
        "live": lambda one: one + 1,
    }
    for name, change in changes.items():
        arrays = coder.arrays()
        arrays[name] = change(arrays[name])
        digests.add(ReluQuantisedCoder.from_parts({}, arrays).digest())
    assert len(digests) == 1 + len(changes)


def test_rows_that_do_not_fit_into_a_byte_are_refused():
    found = fit_dense(smooth(9, 8, 1))
    rows = found.rows
    many = FactorizedTables(
        rows.cdf[:1].repeat(260, 0), rows.length[:1].repeat(260), rows.offset[:1].repeat(260), 16
    )
    with pytest.raises(TablesError, match="260 rows for 260 classes; up to 256"):
        DenseTables(found.weights, np.zeros(0, np.int32), np.zeros((1, 259), np.int32), many)


def test_payloads_that_no_encoder_writes_are_refused():
    coder, sent = example()
    payload = coder.encode(*sent)
    for length in range(7):
        with pytest.raises(BitstreamError):
            coder.decode(payload[:length], 20, 24)
    for distance, message in ((255, "beyond 8 bits"), (-1, "clipped value")):
        stack = Stack()
        DenseModels(coder.tables).push(stack, np.full((1, 20, 24), distance, np.int32))
        with pytest.raises(BitstreamError, match=message):
            coder.decode(payload[:6] + stack.payload(), 20, 24)


@pytest.mark.parametrize("shape", [(2, 20, 24), (1, 1, 20, 24), (1, 20)])
def test_other_shapes_than_a_quantisers_are_refused(shape):
    coder, sent = example(values=np.zeros(shape, np.uint8))
    for method in (coder.encode, coder.decoded, coder.ideal_bits):
        with pytest.raises(TablesError, match="1 channels were expected"):
            method(*sent)


def some_decoder(network="resnet-24"):
    """A decoder whose batch norm rises, falls, and is flat, in three channels."""
    torch.manual_seed(0)
    _, decoder = layers(network, 3)
    first = next(decoder.children())
    if isinstance(first, nn.BatchNorm2d):
        with torch.no_grad():
            first.weight[:] = torch.tensor([1.5, -0.7, 0.0])
            first.bias[:] = torch.tensor([0.3, 0.4, -1.0])
            first.running_mean[:] = torch.tensor([0.1, -0.2, 0.5])
            first.running_var[:] = torch.tensor([0.9, 2.0, 1.0])
    return decoder.eval()


@pytest.mark.parametrize("network", ["resnet-24", "resnet-20", "densenet", "inception"])
def test_the_decoder_computes_the_same_bit_for_bit(network):
    decoder = some_decoder(network)
    coder = ReluQuantisedCoder(fit_dense(smooth(0, 8, 3)), relu_range(decoder))
    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, (3, 33, 34)).astype(np.uint8)
    sent = values, np.full((1, 1, 1), 0.02, np.float32), np.full((1, 1, 1), 117, np.int32)
    received, *_ = coder.decoded(*sent)
    assert 0.3 < np.mean(received != values) < 0.9

    def prediction(one):
        latent = np.float32(0.02) * (one.astype(np.float32) - 117)
        with torch.no_grad():
            return decoder(torch.from_numpy(latent)[None])

    assert torch.equal(prediction(values), prediction(received))


def test_thresholds_are_where_the_batch_norm_is_0():
    decoder = some_decoder()
    low, high = torch.from_numpy(relu_range(decoder).ends.copy())
    first = next(decoder.children())
    at = torch.tensor([low[0], high[1], 0.0]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(first(at).flatten()[:2].detach(), 0, atol=1e-6)
    assert (low[1], high[0], low[2], high[2]) == (-np.inf, np.inf, np.inf, np.inf)
    np.testing.assert_array_equal(relu_range(some_decoder("densenet")).ends[0], np.zeros(3))
