"""The joint autoregressive prior: against CompressAI, and against a plain loop over positions."""

from pathlib import Path

import numpy as np
import pytest
import torch
from compressai.models import JointAutoregressiveHierarchicalPriors
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import damaged, peaked_tables

from splitrun.coding import Codec, FactorizedTables
from splitrun.coding.autoregressive import AutoregressiveCoder
from splitrun.coding.context_network import ContextNetwork, FixedPointContextNetwork
from splitrun.coding.integer_hyperprior import IntegerAutoregressiveCoder
from splitrun.errors import BitstreamError, DesyncError, TablesError

GOLDEN = Path(__file__).parents[1] / "golden" / "autoregressive"
STREAM_ID = b"\1\2\3\4"
SENT = ("latent", "hyper_symbols", "params")
SCALES = np.array([0.5, 1, 2, 4], np.float32)


def random_weights(rng, channels, hidden=(5, 3)):
    """Weights in eighths: sums of a few of their products are exact in any order."""
    shapes = [(2 * channels, channels, 12), (hidden[0], 4 * channels)]
    shapes += [(hidden[1], hidden[0]), (2 * channels, hidden[1])]
    weights = {}
    for layer, shape in enumerate(shapes):
        weights[f"weight_{layer}"] = rng.integers(-4, 5, shape).astype(np.float32) / 8
        weights[f"bias_{layer}"] = rng.integers(-4, 9, shape[0]).astype(np.float32) / 8
    return weights


def random_coder(rng, channels):
    weights = random_weights(rng, channels)
    tables = peaked_tables(3, 2, 10), peaked_tables(len(SCALES), 2, 10)
    return AutoregressiveCoder(*tables, SCALES, ContextNetwork(weights))


def random_tensors(rng, channels, height, width, spread=3.0):
    latent = (rng.normal(size=(channels, height, width)) * spread).astype(np.float32)
    hyper_symbols = rng.integers(-3, 4, (3, 1, 2)).astype(np.int32)
    params = rng.integers(-24, 25, (2 * channels, height, width)).astype(np.float32) / 8
    return latent, hyper_symbols, params


def raster_y_hat(weights, latent, params):
    """y_hat by the definition: position after position, as the paper and CompressAI do."""
    channels, height, width = latent.shape
    weights = {name: weight.astype(np.float64) for name, weight in weights.items()}
    kernel = np.zeros((2 * channels, channels, 25))
    kernel[:, :, :12] = weights["weight_0"]
    y_hat = np.zeros((channels, height + 4, width + 4))
    for row in range(height):
        for column in range(width):
            patch = y_hat[:, row : row + 5, column : column + 5].reshape(channels, 25)
            context = np.einsum("oct,ct->o", kernel, patch) + weights["bias_0"]
            x = np.concatenate([params[:, row, column], context])
            x = weights["weight_1"] @ x + weights["bias_1"]
            x = weights["weight_2"] @ np.where(x > 0, x, 0.01 * x) + weights["bias_2"]
            x = weights["weight_3"] @ np.where(x > 0, x, 0.01 * x) + weights["bias_3"]
            means = x[channels:]
            symbols = np.rint(latent[:, row, column] - means)
            y_hat[:, row + 2, column + 2] = symbols + means
    return y_hat[:, 2:-2, 2:-2]


def decode(coder, payload, hyper_symbols, params):
    return coder.decode(payload, *hyper_symbols.shape[1:], lambda z: (params, z))


@pytest.fixture(scope="module")
def coder():
    return random_coder(np.random.default_rng(0), 2)


@pytest.fixture(scope="module")
def sent():
    return random_tensors(np.random.default_rng(1), 2, 5, 7)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.integers(1, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    spread=st.sampled_from([0.1, 3, 100, 1e6]),
)
def test_y_hat_is_that_of_the_plain_loop(seed, channels, height, width, spread):
    rng = np.random.default_rng(seed)
    coder = random_coder(rng, channels)
    latent, hyper_symbols, params = random_tensors(rng, channels, height, width, spread)
    payload = coder.encode(latent, hyper_symbols, params)
    y_hat, z = decode(coder, payload, hyper_symbols, params)
    np.testing.assert_array_equal(z, hyper_symbols, strict=True)
    assert (y_hat.shape, y_hat.dtype) == (latent.shape, np.float32)
    assert y_hat.flags.c_contiguous
    np.testing.assert_allclose(y_hat, latent, atol=0.5, rtol=1e-6)
    expected = raster_y_hat(coder.network.weights, latent, params)
    np.testing.assert_allclose(y_hat, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_payload_is_refused_or_is_what_its_latent_encodes_to(coder, sent, data):
    _, hyper_symbols, params = sent
    changed = damaged(data, coder.encode(*sent))
    try:
        y_hat, z = decode(coder, changed, hyper_symbols, params)
    except BitstreamError:
        return
    assert y_hat.shape == sent[0].shape
    assert np.isfinite(y_hat).all()
    if np.abs(y_hat).max() < 1 << 20:  # where float32 still tells neighbours apart
        assert coder.encode(y_hat, z, params) == changed


def test_other_parameters_are_noticed(coder, sent):
    _, hyper_symbols, params = sent
    with pytest.raises(DesyncError, match="not those that the device computed"):
        decode(coder, coder.encode(*sent), hyper_symbols, -params)


@pytest.mark.parametrize(
    "params",
    [
        pytest.param(np.zeros((4, 5, 7)), id="float64"),
        pytest.param(np.zeros((4, 5, 7), np.int32), id="integers"),
        pytest.param(np.zeros((2, 5, 7), np.float32), id="half of the channels"),
        pytest.param(np.zeros((1, 4, 5, 7), np.float32), id="batch"),
        pytest.param(np.zeros((4, 0, 7), np.float32), id="nothing"),
        pytest.param(np.full((4, 5, 7), np.nan, np.float32), id="NaN"),
        pytest.param(np.full((4, 5, 7), np.inf, np.float32), id="infinity"),
        pytest.param(np.broadcast_to(np.float32(0), (4, 4096, 4096)), id="too many"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_on_both_sides(coder, sent, params):
    latent, hyper_symbols, _ = sent
    with pytest.raises(BitstreamError, match=r"expected are finite float32 \(4, h, w\), 33554432"):
        decode(coder, coder.encode(*sent), hyper_symbols, params)
    with pytest.raises(TablesError, match=r"expected are finite float32 \(4, h, w\)"):
        coder.encode(latent, hyper_symbols, params)


@pytest.mark.parametrize("value", [np.nan, np.inf, -3e9, 3e38])
def test_a_latent_that_has_no_32_bit_symbols_is_refused(coder, sent, value):
    latent, hyper_symbols, params = sent
    latent = latent.copy()
    latent[1, 4, 6] = value
    with pytest.raises(TablesError, match="not finite or beyond 32 bits"):
        coder.encode(latent, hyper_symbols, params)


def test_a_latent_of_another_shape_is_refused(coder, sent):
    latent, hyper_symbols, params = sent
    for other in (latent[:, 1:], latent[:1], latent[None]):
        with pytest.raises(TablesError, match="y has shape"):
            coder.encode(other, hyper_symbols, params)


def test_weights_that_overflow_are_refused_when_they_are_used(coder, sent):
    _, hyper_symbols, params = sent
    huge = {name: np.full_like(weight, 3e38) for name, weight in coder.network.weights.items()}
    extreme = AutoregressiveCoder.from_parts({}, coder.arrays() | huge)
    with pytest.raises(TablesError, match="not finite"):
        extreme.encode(*sent)
    with pytest.raises(BitstreamError):
        decode(extreme, coder.encode(*sent), hyper_symbols, params)


def test_a_latent_beyond_float32_is_refused(coder, sent):
    # The same scales in both, and means of 0 in one and of 6e38 in the other.
    latent, hyper_symbols, params = sent
    plain = {name: np.zeros_like(weight) for name, weight in coder.network.weights.items()}
    plain["bias_2"] += 1
    huge = {name: weight.copy() for name, weight in plain.items()}
    huge["weight_3"][2:] = huge["bias_3"][2:] = 1.5e38
    plain, huge = (
        AutoregressiveCoder.from_parts({}, coder.arrays() | weights) for weights in (plain, huge)
    )
    payload = plain.encode(latent, hyper_symbols, params)
    np.testing.assert_allclose(
        decode(plain, payload, hyper_symbols, params)[0], np.rint(latent), atol=0
    )
    with pytest.raises(BitstreamError, match="beyond float32"):
        decode(huge, payload, hyper_symbols, params)


def test_a_coder_comes_back_from_its_parts(coder, sent):
    parts = coder.arrays()
    assert tuple(parts) == AutoregressiveCoder.array_names()
    back = AutoregressiveCoder.from_parts(coder.settings(), parts)
    assert back.digest() == coder.digest()
    assert back.channels == coder.channels == 3
    assert back.shape(*sent) == (1, 2)
    assert back.encode(*sent) == coder.encode(*sent)


@pytest.mark.parametrize("name", ["scales", *ContextNetwork.NAMES])
def test_every_float_part_is_checked_and_digested(coder, name):
    parts = coder.arrays()
    array = parts[name]
    nan = array.copy()
    nan.flat[-1] = np.nan
    for wrong in (array.astype(np.float64), array.astype(np.int32), nan, array[..., :-1], array[0]):
        with pytest.raises(TablesError):
            AutoregressiveCoder.from_parts({}, parts | {name: wrong})
    other = array.copy()
    other.flat[-1] += 1
    changed = AutoregressiveCoder.from_parts({}, parts | {name: other})
    assert changed.digest() != coder.digest()
    del parts[name]
    with pytest.raises(TablesError, match=f"{name} is missing"):
        AutoregressiveCoder.from_parts({}, parts)


@pytest.mark.parametrize(
    "scales", [SCALES[::-1], np.float32([1, 2, 2, 3]), np.float32([1, 2, 3]), SCALES[None]]
)
def test_scales_that_are_not_those_of_the_tables_are_refused(coder, scales):
    with pytest.raises(TablesError, match="4 rows need as many rising scales"):
        AutoregressiveCoder.from_parts({}, coder.arrays() | {"scales": scales})


def test_a_network_without_channels_is_refused(coder):
    empty = {name: weight[:0] for name, weight in coder.network.weights.items()}
    with pytest.raises(TablesError, match="layer 0 has weights of shape"):
        ContextNetwork(empty)


def tables_of(model):
    return FactorizedTables(
        model.quantized_cdf.numpy(), model.cdf_length.numpy(), model.offset.numpy(), 16
    )


def weights_of(peer):
    context = peer.context_prediction
    layers = [(context.weight.flatten(2)[..., :12], context.bias)]
    layers += [
        (peer.entropy_parameters[i].weight[..., 0, 0], peer.entropy_parameters[i].bias)
        for i in (0, 2, 4)
    ]
    return {
        f"{name}_{layer}": tensor.detach().numpy().copy()
        for layer, pair in enumerate(layers)
        for name, tensor in zip(("weight", "bias"), pair, strict=True)
    }


@pytest.fixture(scope="module")
def peer():
    """CompressAI's model, with weights that spread y and its scales."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = JointAutoregressiveHierarchicalPriors(8, 12).eval()
        model.g_a[6].weight.mul_(40)
        model.h_a[4].weight.mul_(3)
        model.entropy_parameters[4].weight.mul_(8)
        model.context_prediction(torch.zeros(1, 12, 1, 1))  # masks its weights
        model.update(force=True)
    return model


@pytest.mark.parametrize("seed", range(2))
def test_symbols_and_images_are_those_of_compressai(peer, seed):
    coder = AutoregressiveCoder(
        tables_of(peer.entropy_bottleneck),
        tables_of(peer.gaussian_conditional),
        peer.gaussian_conditional.scale_table.numpy(),
        ContextNetwork(weights_of(peer)),
    )
    image = torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(seed))
    medians = peer.entropy_bottleneck._get_medians().detach().reshape(1, -1, 1, 1)

    def hyper(symbols):
        with torch.no_grad():
            return (peer.h_s(torch.from_numpy(symbols)[None] + medians)[0].numpy(),)

    with torch.no_grad():
        theirs = peer.compress(image)
        expected = peer.decompress(**theirs)["x_hat"]
        y = peer.g_a(image)
        hyper_symbols = (peer.h_a(y) - medians).round().int()[0].numpy()
    payload = coder.encode(y[0].numpy(), hyper_symbols, *hyper(hyper_symbols))
    assert len(payload) <= sum(len(strings[0]) for strings in theirs["strings"])

    (y_hat,) = coder.decode(payload, *theirs["shape"], hyper)
    seen = []
    with torch.no_grad(), peer.g_s.register_forward_pre_hook(lambda _, given: seen.extend(given)):
        peer.decompress(**theirs)
        x_hat = peer.g_s(torch.from_numpy(y_hat)[None]).clamp(0, 1)
    # Where one symbol differed, so would y_hat, by 1, and all that follows.
    np.testing.assert_allclose(y_hat, seen[0][0].numpy(), atol=1e-4)
    torch.testing.assert_close(x_hat, expected, atol=1e-4, rtol=0)
    assert np.unique(np.rint(y_hat)).size > 20


@pytest.mark.parametrize(("name", "spread"), [("ordinary", 1.0), ("escapes", 1000.0)])
def test_golden_streams_are_written_and_read_as_ever(request, coder, name, spread):
    if request.config.getoption("rewrite_golden"):
        GOLDEN.mkdir(exist_ok=True)
        tensors = random_tensors(np.random.default_rng(2), 2, 4, 5, spread)
        sent = dict(zip(SENT, tensors, strict=True))
        stream = Codec(coder, STREAM_ID, (1, 2)).compress(*sent.values())
        sent["stream"] = np.frombuffer(stream, np.uint8)
        np.savez_compressed(GOLDEN / f"{name}.npz", **coder.arrays(), **sent)
    with np.load(GOLDEN / f"{name}.npz") as golden:
        coder = AutoregressiveCoder.from_parts({}, golden)
        latent, hyper_symbols, params = (golden[key] for key in SENT)
        stream = golden["stream"].tobytes()
    codec = Codec(coder, STREAM_ID, (1, 2))
    assert codec.compress(latent, hyper_symbols, params) == stream
    y_hat, z = codec.decompress(stream, lambda z: (params, z))
    np.testing.assert_array_equal(z, hyper_symbols, strict=True)
    expected = raster_y_hat(coder.network.weights, latent, params)
    np.testing.assert_allclose(y_hat, expected, rtol=1e-6, atol=1e-6)


def test_what_rounds_to_0_from_below_is_0_on_both_sides():
    """A mean in fixed point may be -0; -0 and a symbol of -0, rounded in floats, would be -0."""
    rng = np.random.default_rng(0)
    weights = {name: np.zeros_like(array) for name, array in random_weights(rng, 2).items()}
    weights["bias_2"] += np.float32(2.0**-10)
    weights["weight_3"] -= np.float32(2.0**-20)  # the mean: -2^-29, which is -0 in units of 2^-10
    tables = peaked_tables(3, 2, 10), peaked_tables(len(SCALES), 2, 10)
    kind = IntegerAutoregressiveCoder.inner_type
    still = kind(*tables, SCALES, FixedPointContextNetwork(weights))
    latent, hyper_symbols, params = random_tensors(rng, 2, 4, 8, spread=0.1)
    rounded = still.rounded(latent, 0 * params)
    payload = still.encode(latent, hyper_symbols, 0 * params)
    received, *_ = decode(still, payload, hyper_symbols, 0 * params)
    assert not np.signbit(rounded[rounded == 0]).any()
    assert rounded.tobytes() == received.tobytes()
