"""The hyper-decoder in integers: exact sums, the same parameters whatever multiplies, streams."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import peaked_tables
from torch.nn import functional

from splitrun.coding import CODERS, Codec, integer_network
from splitrun.coding.context_network import ContextNetwork, FixedPointContextNetwork
from splitrun.coding.hyperprior import ContextHyperpriorCoder, HyperpriorCoder, index_check
from splitrun.coding.integer_hyperprior import (
    IntegerAutoregressiveCoder,
    IntegerContextHyperpriorCoder,
    IntegerHyperpriorCoder,
)
from splitrun.coding.integer_network import (
    EXACT,
    LARGEST,
    NO_LEAK,
    HyperSynthesis,
    IntegerLayer,
)
from splitrun.errors import BitstreamError, DesyncError, TablesError

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {
    "integer-hyperprior": "integer-hyperprior/means.npz",
    "without-means": "integer-hyperprior/scales.npz",
    "integer-autoregressive": "integer-autoregressive/ordinary.npz",
}
STREAM_ID = b"\1\2\3\4"
SCALES = np.array([0.5, 1, 2, 4], np.float32)
LEAKS = (0, 655, NO_LEAK)


def made_layer(rng, outputs=3, inputs=2, kernel=3, transposed=0, stride=1, **changed):
    """A layer with random integers, some of them large."""
    return IntegerLayer(
        **{
            "weight": rng.integers(-99, 100, (outputs, inputs, kernel, kernel)),
            "bias": rng.integers(-5000, 5000, outputs),
            "shift": rng.integers(-1, 9, outputs),
            "geometry": [transposed, stride, kernel // 2, stride - 1, LEAKS[outputs % 3]],
        }
        | changed
    )


def by_torch(layer, x, largest):
    """The same layer in torch's int64 convolutions, and Python's integers and fractions."""
    transposed, stride, padding, output_padding, leak = layer.geometry.tolist()
    weight, x = torch.tensor(layer.weight).long(), torch.tensor(x).long()[None]
    if transposed:
        zeros = torch.zeros(1, x.shape[1], *(stride * (side - 1) + 1 for side in x.shape[2:]))
        spread = zeros.long()
        spread[..., ::stride, ::stride] = x
        reach = weight.shape[-1] - 1 - padding
        ends = (reach, reach + output_padding)
        spread = functional.pad(spread, ends * 2)
        sums = functional.conv2d(spread, weight.flip(2, 3))[0]
    else:
        sums = functional.conv2d(x, weight, padding=padding)[0]
    sums = (sums + torch.tensor(layer.bias).long()[:, None, None]).numpy().astype(object)
    # Twice the value in units of 2^-shift-17, so that halves are whole.
    leaked = np.maximum(sums * NO_LEAK, sums * leak)
    result = np.empty(leaked.shape, np.int64)
    for channel, shift in enumerate(layer.shift.tolist()):
        unit = NO_LEAK * 2**shift if shift >= 0 else NO_LEAK
        scaled = leaked[channel] * (1 if shift >= 0 else 2**-shift)
        for place, value in np.ndenumerate(scaled):
            whole, rest = divmod(value, unit)
            up = 2 * rest > unit or (2 * rest == unit and whole % 2)
            result[(channel, *place)] = min(max(whole + up, -largest), largest)
    return result


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_layer_computes_what_integers_of_any_size_give(data):
    sizes = st.integers(1, 4)
    transposed = data.draw(st.integers(0, 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    layer = made_layer(
        rng,
        data.draw(sizes),
        data.draw(sizes),
        data.draw(st.integers(1, 5)),
        transposed,
        data.draw(st.integers(1, 3)) if transposed else 1,
    )
    height, width = data.draw(st.integers(3, 6)), data.draw(st.integers(3, 6))
    x = rng.integers(-LARGEST, LARGEST, (layer.weight.shape[1], height, width), endpoint=True)
    largest = data.draw(st.sampled_from([7, LARGEST, 1 << 23]))
    expected = by_torch(layer, x, largest)
    found = layer(x.astype(np.float32), largest)
    np.testing.assert_array_equal(found, expected)
    assert found.shape[1:] == (layer.size(height), layer.size(width))


@pytest.mark.parametrize(("weight", "kind"), [(128, np.float32), (129, np.float64)])
def test_the_largest_sums_are_exact_in_the_type_that_the_bound_asks_for(weight, kind):
    """32 weights of 128 times 4095 stay below 2^24; of 129, they do not."""
    layer = IntegerLayer(
        weight=np.full((1, 32, 1, 1), weight),
        bias=[0],
        shift=[0],
        geometry=[0, 1, 0, 0, NO_LEAK],
    )
    ((rows,),) = layer._products
    assert rows[0].dtype == kind
    x = np.full((32, 1, 1), LARGEST, np.float32)
    assert layer(x, EXACT * 2).item() == np.float32(32 * weight * LARGEST)


@pytest.mark.parametrize("exact", [np.float64, np.int64])
def test_a_library_that_rounds_products_is_found_and_not_used(monkeypatch, exact):
    """A float32 product that loses its last bit, as in bfloat16: the next type is taken."""
    rng = np.random.default_rng(0)
    layer = made_layer(rng)
    x = rng.integers(-LARGEST, LARGEST, (2, 5, 5)).astype(np.float32)
    expected = layer(x, EXACT)
    monkeypatch.setattr(integer_network, "product_type", lambda kind: exact)
    other = made_layer(np.random.default_rng(0))
    assert other._products[0][0][0].dtype == exact
    np.testing.assert_array_equal(other(x, EXACT), expected)


def test_products_of_this_machine_are_exact():
    assert integer_network.product_type(np.float32) is np.float32
    assert integer_network.product_type(np.float64) is np.float64


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weight": np.ones((3, 2, 3, 5), int)}, "do not fit together"),
        ({"weight": np.ones((3, 2, 17, 17), int)}, "do not fit together"),
        ({"weight": np.full((3, 2, 3, 3), 1 << 15)}, "weight is beyond 32767"),
        ({"weight": np.ones((3, 2, 3, 3))}, "no integer array"),
        ({"bias": [0, 0]}, "do not fit together"),
        ({"shift": [0, 0, 99]}, "shift is beyond 60"),
        ({"geometry": [0, 1, 1, 0]}, "geometry is not valid"),
        ({"geometry": [0, 1, -1, 0, NO_LEAK]}, "geometry is not valid"),
        ({"geometry": [2, 1, 1, 0, NO_LEAK]}, "stride or padding is not valid"),
        ({"geometry": [0, 2, 1, 0, NO_LEAK]}, "stride or padding is not valid"),
        ({"geometry": [1, 9, 1, 0, NO_LEAK]}, "stride or padding is not valid"),
        ({"geometry": [0, 1, 3, 0, NO_LEAK]}, "stride or padding is not valid"),
        ({"geometry": [1, 2, 1, 2, NO_LEAK]}, "output padding is not valid"),
        ({"geometry": [0, 1, 1, 0, NO_LEAK + 1]}, "geometry is beyond 65536"),
    ],
)
def test_damaged_integers_are_refused(changed, message):
    with pytest.raises(TablesError, match=message):
        made_layer(np.random.default_rng(0), **changed)


# The coders


def made_arrays(rng, means, channels=2, latent=3):
    """Integers of an h_s that doubles the sides twice, as arrays."""
    outputs = latent * (1 + means)
    layers = (
        made_layer(rng, 4, channels, 5, 1, 2, geometry=[1, 2, 2, 1, 0], shift=[5] * 4),
        made_layer(rng, 5, 4, 5, 1, 2, geometry=[1, 2, 2, 1, 655], shift=[9] * 5),
        made_layer(rng, outputs, 5, 3, shift=[7] * outputs),
    )
    arrays = {
        "synthesis_medians": rng.integers(-8, 9, channels).astype(np.int32),
        "synthesis_shift": np.int32(5),
        "synthesis_means": np.int32(means),
    }
    for number, layer in enumerate(layers):
        arrays |= layer.arrays(f"synthesis_{number}_")
    return arrays


def fixed_weights(rng, channels=3, hidden=(5, 4)):
    shapes = [(2 * channels, channels, 12), (hidden[0], 4 * channels)]
    shapes += [(hidden[1], hidden[0]), (2 * channels, hidden[1])]
    weights = {}
    for layer, shape in enumerate(shapes):
        drawn = rng.integers(-1 << 18, 1 << 18, shape)
        weights[f"weight_{layer}"] = (drawn * FixedPointContextNetwork.WEIGHT_UNIT).astype("f4")
        weights[f"bias_{layer}"] = (rng.integers(-99, 99, shape[0]) / 1024).astype(np.float32)
    return weights


def made_coder(kind, seed=0):
    rng = np.random.default_rng(seed)
    tables = peaked_tables(2, 2, 12), peaked_tables(len(SCALES), 2, 12)
    arrays = made_arrays(rng, means=kind == "integer-hyperprior")
    if kind == "integer-autoregressive":
        arrays = made_arrays(rng, means=0, latent=6)
        network = FixedPointContextNetwork(fixed_weights(rng))
        inner = IntegerAutoregressiveCoder.inner_type(*tables, SCALES, network)
        return IntegerAutoregressiveCoder(inner, HyperSynthesis(arrays))
    return IntegerHyperpriorCoder(HyperpriorCoder(*tables), HyperSynthesis(arrays), SCALES)


KINDS = ("integer-hyperprior", "integer-autoregressive", "without-means")


def made_tensors(seed=1, spread=30.0):
    rng = np.random.default_rng(seed)
    latent = (rng.normal(size=(3, 8, 12)) * spread).astype(np.float32)
    return latent, rng.integers(-6, 7, (2, 2, 3)).astype(np.int32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 1e3])
def test_the_edge_receives_the_latent_rounded_relative_to_its_means(kind, spread):
    coder, (latent, hyper_symbols) = made_coder(kind), made_tensors(spread=spread)
    payload = coder.encode(latent, hyper_symbols)
    (received,) = coder.decode(payload, 2, 3)
    assert received.dtype == np.float32
    (expected,) = coder.decoded(latent, hyper_symbols)[:1]
    np.testing.assert_array_equal(received, expected, strict=True)
    assert received.tobytes() == expected.tobytes()  # nor is 0 received as -0
    # Half a step, and float32's rounding of the sum.
    assert np.abs(received - latent).max() <= 0.5 + spread * 1e-6
    assert coder.ideal_bits(latent, hyper_symbols) / 8 < len(payload) if "auto" not in kind else 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_coder_made_of_its_own_arrays_is_the_same(kind):
    coder, tensors = made_coder(kind), made_tensors()
    arrays = coder.arrays()
    assert sorted(arrays) == sorted(coder.array_names())
    again = CODERS[coder.kind].from_parts({}, arrays)
    assert again.digest() == coder.digest()
    assert again.encode(*tensors) == coder.encode(*tensors)
    # Each integer counts, each scale too.
    for name in ("synthesis_1_weight", "synthesis_medians", "synthesis_2_shift", "scales"):
        changed = arrays[name].copy()
        changed.flat[0] += 1 if name != "scales" else -0.125
        other = CODERS[coder.kind].from_parts({}, arrays | {name: changed})
        assert other.digest() != coder.digest()


@pytest.mark.parametrize("kind", KINDS)
def test_one_other_index_is_noticed(kind, monkeypatch):
    """The fault that must never happen, injected: the check in the payload sees it."""
    coder, (latent, hyper_symbols) = made_coder(kind), made_tensors()
    payload = coder.encode(latent, hyper_symbols)

    def flipped(indexes):
        indexes = indexes.copy()
        indexes.flat[0] ^= 1
        return indexes

    other = made_coder(kind)
    if kind == "integer-autoregressive":
        inner, before = other.inner, other.inner._indexes
        monkeypatch.setattr(inner, "_indexes", lambda scales: flipped(before(scales)))
    else:
        indexes, *means = other._parameters(hyper_symbols)
        monkeypatch.setattr(other, "_parameters", lambda _: (flipped(indexes), *means))
    with pytest.raises(DesyncError, match="damaged, or this machine computes integers wrong"):
        other.decode(payload, 2, 3)


def test_scale_indexes_are_those_of_the_first_scale_that_is_large_enough():
    coder = made_coder("without-means")
    units = np.array([-5, 0, 511, 512, 513, 1024, 1025, 2048, 2049, 1 << 23])
    # In units of 1/1024: 0.5, 1, 2 and 4 and their neighbours.
    expected = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    found = coder._rows[np.clip(units, 0, (1 << 18) - 1)]
    assert found.tolist() == expected
    assert index_check(found) == index_check(np.array(expected, np.uint8))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200), height=st.integers(1, 3), width=st.integers(1, 3))
def test_any_bytes_are_refused_or_read(kind, data, height, width):
    coder = made_coder(kind)
    try:
        (received,) = coder.decode(data, height, width)
    except BitstreamError:
        return
    assert received.shape == (3, 4 * height, 4 * width)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"synthesis_shift": np.int32(11)}, "shift is beyond 10"),
        ({"synthesis_means": np.int32(2)}, "means is beyond 1"),
        ({"synthesis_medians": np.zeros(3, np.int32)}, "does not take what the one before gives"),
        ({"synthesis_1_bias": np.zeros(6, np.int32)}, "do not fit together"),
        ({"scales": np.array([1, 2, 2, 3], np.float32)}, "rising scales"),
        ({"scales": np.array([1, 2, 3], np.float32)}, "rising scales"),
        ({"scales": np.array([1, 2, 3, np.nan], np.float32)}, "finite float32"),
    ],
)
def test_a_damaged_table_of_integers_is_refused(changed, message):
    coder = made_coder("integer-hyperprior")
    with pytest.raises(TablesError, match=message):
        IntegerHyperpriorCoder.from_parts({}, coder.arrays() | changed)
    missing = {name: array for name, array in coder.arrays().items() if name not in changed}
    with pytest.raises(TablesError, match="missing"):
        IntegerHyperpriorCoder.from_parts({}, missing)


def test_tensors_that_do_not_fit_are_refused():
    coder, (latent, hyper_symbols) = made_coder("integer-hyperprior"), made_tensors()
    for bad in (latent[:, :-1], latent.astype(np.float64), latent[:2]):
        with pytest.raises(TablesError, match=r"float32 \(3, 8, 12\) was expected"):
            coder.encode(bad, hyper_symbols)
    with pytest.raises(TablesError, match="not finite or beyond 32 bits"):
        coder.encode(np.full_like(latent, np.inf), hyper_symbols)
    with pytest.raises(TablesError, match=r"does not take symbols of z of shape \(3, 2, 3\)"):
        coder.encode(latent, np.concatenate([hyper_symbols, hyper_symbols[:1]]))
    for height, width in ((9999, 9999), (1 << 20, 1)):
        with pytest.raises(BitstreamError, match="makes no latent"):
            coder.decode(b"\0" * 20, height, width)


def test_no_layer_may_give_more_than_a_latent_holds():
    """Few parameters at the end do not make up for millions of channels before them."""
    arrays = made_arrays(np.random.default_rng(0), means=0)
    wide = {"1_weight": (1 << 13, 4, 1, 1), "2_weight": (3, 1 << 13, 1, 1)}
    arrays |= {f"synthesis_{name}": np.ones(shape, np.int32) for name, shape in wide.items()}
    for name in ("1_bias", "1_shift"):
        arrays[f"synthesis_{name}"] = np.zeros(1 << 13, np.int32)
    for layer in (1, 2):
        arrays[f"synthesis_{layer}_geometry"] = np.array([0, 1, 0, 0, NO_LEAK], np.int32)
    synthesis = HyperSynthesis(arrays)
    assert synthesis.can_take(32, 32)
    assert not synthesis.can_take(33, 33)


def test_hyper_symbols_of_any_size_are_limited_alike_on_both_sides():
    coder, (latent, hyper_symbols) = made_coder("integer-hyperprior"), made_tensors()
    hyper_symbols[0, 0, 0], hyper_symbols[1, 1, 1] = np.iinfo(np.int32).min, 1 << 30
    (received,) = coder.decode(coder.encode(latent, hyper_symbols), 2, 3)
    assert np.abs(received - latent).max() <= 0.501


# The context network in fixed point


def test_the_fixed_point_network_is_the_float_one_within_its_units():
    """Four layers that each round to 1/1024: a few units, times what later weights make of them."""
    rng = np.random.default_rng(3)
    weights = fixed_weights(rng)
    params = (rng.integers(-2000, 2000, (6, 5, 7)) / 1024).astype(np.float32)
    latent = rng.normal(size=(5, 7, 3)) * 4

    def walked(network):
        return network.walk(params, lambda at, _, means: np.rint(latent[at] - means) + means)

    exact, fixed = walked(ContextNetwork(weights)), walked(FixedPointContextNetwork(weights))
    assert np.array_equal(fixed, np.rint(fixed * 1024) / 1024)
    assert 0 < np.median(np.abs(exact - fixed)) < 4 / 1024


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            lambda weights: {"weight_1": weights["weight_1"] + np.float32(1e-7)},
            "not in fixed point",
        ),
        (lambda weights: {"bias_2": weights["bias_2"] + np.float32(1e-4)}, "not in fixed point"),
        (lambda weights: {"weight_2": weights["weight_2"] * np.float32(4096)}, "could reach"),
    ],
)
def test_weights_beyond_the_exact_range_are_refused(changed, message):
    weights = fixed_weights(np.random.default_rng(0))
    with pytest.raises(TablesError, match=message):
        FixedPointContextNetwork(weights | changed(weights))


def test_the_order_of_sums_does_not_matter():
    """Channels in another order, and so sums in another order: float differs, fixed point not."""
    rng = np.random.default_rng(0)
    hidden = (640, 512)
    weights = fixed_weights(rng, 3, hidden)
    order = rng.permutation(hidden[0])
    other = weights | {
        "weight_1": weights["weight_1"][order],
        "bias_1": weights["bias_1"][order],
        "weight_2": np.ascontiguousarray(weights["weight_2"][:, order]),
    }
    params = (rng.integers(-2000, 2000, (6, 5, 7)) / 1024).astype(np.float32)

    def walked(network, weights):
        seen = []
        network(weights).walk(
            params, lambda _, scales, means: seen.append((scales, means)) or np.rint(means) + means
        )
        return np.concatenate([np.concatenate(pair) for pair in seen])

    in_floats = [walked(ContextNetwork, some) for some in (weights, other)]
    assert not np.array_equal(*in_floats)
    np.testing.assert_array_equal(*(walked(FixedPointContextNetwork, w) for w in (weights, other)))


# Golden streams


@pytest.mark.parametrize("kind", KINDS)
def test_golden_streams_are_written_and_read_as_ever(request, kind):
    path = GOLDEN / FILES[kind]
    if request.config.getoption("rewrite_golden"):
        path.parent.mkdir(exist_ok=True)
        coder, tensors = made_coder(kind), made_tensors()
        stream = Codec(coder, STREAM_ID, (2, 3)).compress(*tensors)
        sent = dict(zip(("latent", "hyper_symbols"), tensors, strict=True))
        sent |= {"latent_hat": coder.decoded(*tensors)[0]}
        np.savez_compressed(path, **coder.arrays(), **sent, stream=np.frombuffer(stream, np.uint8))
    with np.load(path) as golden:
        coder = CODERS[made_coder(kind).kind].from_parts({}, golden)
        latent, hyper_symbols, expected = (
            golden[name] for name in ("latent", "hyper_symbols", "latent_hat")
        )
        stream = golden["stream"].tobytes()
    codec = Codec(coder, STREAM_ID, (2, 3))
    assert codec.compress(latent, hyper_symbols) == stream
    np.testing.assert_array_equal(codec.decompress(stream)[0], expected, strict=True)


SCRIPT = """
import sys, numpy
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "constriction", "onnxruntime", "scipy"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
from splitrun.coding import CODERS, read_stream
from splitrun.coding.ans import BACKEND
for path, kind in zip(sys.argv[1::2], sys.argv[2::2]):
    with numpy.load(path) as golden:
        coder = CODERS[kind].from_parts({}, golden)
        payload = read_stream(golden["stream"].tobytes()).payload
        (found,) = coder.decode(payload, 2, 3)
        assert numpy.array_equal(found, golden["latent_hat"]), path
        assert coder.encode(golden["latent"], golden["hyper_symbols"]) == payload, path
print(BACKEND.NAME)
"""


@pytest.mark.parametrize("threads", ["1", "4"])
def test_golden_streams_are_read_with_numpy_alone(threads):
    paths = [(str(GOLDEN / FILES[kind]), made_coder(kind).kind) for kind in KINDS]
    arguments = [word for pair in paths for word in pair]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "plain Python coder"


def test_context_tables_can_surround_the_same_integers():
    coder = made_coder("integer-hyperprior")
    with np.load(GOLDEN / "context" / "hyperprior-context.npz") as golden:
        inner = ContextHyperpriorCoder.from_parts({}, golden)
    arrays = made_arrays(np.random.default_rng(0), 1, inner.channels, inner.tables.channels)
    scales = np.geomspace(0.1, 9, inner.rows).astype(np.float32)
    around = IntegerHyperpriorCoder(
        HyperpriorCoder(peaked_tables(inner.channels, 2, 12), peaked_tables(inner.rows, 2, 12)),
        HyperSynthesis(arrays),
        scales,
    ).around(inner)
    assert isinstance(around, IntegerContextHyperpriorCoder)
    assert around.digest() != coder.digest()
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(inner.tables.channels, 8, 12)).astype(np.float32) * 3
    hyper_symbols = rng.integers(-3, 4, (inner.channels, 2, 3)).astype(np.int32)
    (received,) = around.decode(around.encode(latent, hyper_symbols), 2, 3)
    np.testing.assert_array_equal(received, around.decoded(latent, hyper_symbols)[0])
