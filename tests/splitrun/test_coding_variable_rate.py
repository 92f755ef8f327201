"""Coders of variable rate: symbols by hand, every level read without being told, hostile levels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import peaked_tables

from splitrun.coding import CODERS, Codec, read_stream
from splitrun.coding.factorized import FactorizedCoder
from splitrun.coding.variable_rate import Levels, VariableRateCoder, VariableRateContextCoder
from splitrun.errors import BitstreamError, RateError, SplitzooError, TablesError
from splitzoo.zoo.calibration.rows import count_rows, tables_from_counts
from splitzoo.zoo.calibration.sparse import fit_sparse

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {
    "variable-rate": "variable-rate/ordinary.npz",
    "variable-rate-context": "context/variable-rate-context.npz",
}
STREAMS = ("stream", "stream_1", "stream_2")
BETAS = (0.1, 0.2, 0.4)
CHANNELS = 4
STREAM_ID = b"\1\2\3\4"


def made_levels(seed=0, **changed):
    rng = np.random.default_rng(seed)
    gains = rng.uniform(0.5, 2, (1, CHANNELS)) * np.array([[4.0], [2], [1]])
    arrays = {
        "betas": np.array(BETAS),
        "medians": rng.normal(size=CHANNELS),
        "gains": gains,
        "inverse_gains": rng.uniform(0.98, 1.02, gains.shape) / gains,
    }
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    return Levels(**{**arrays, **changed})


def made_latent(seed=0, height=5, width=7):
    rng = np.random.default_rng(seed)
    return rng.laplace(scale=2, size=(CHANNELS, height, width)).astype(np.float32)


def symbols_of_all(levels, latent):
    """Symbols of one level after the other, as channels."""
    return np.concatenate([levels.symbols(latent, level) for level in range(len(BETAS))])


def made_coder(kind="variable-rate", level=1):
    levels = made_levels()
    symbols = np.stack([symbols_of_all(levels, made_latent(seed, 8, 9)) for seed in range(3)])
    if kind == "variable-rate":
        rows = np.broadcast_to(np.arange(symbols.shape[1])[:, None, None], symbols.shape)
        tables = tables_from_counts(count_rows(symbols, rows, symbols.shape[1], 64))
    else:
        tables = fit_sparse(symbols, limit=15)
    return CODERS[kind](tables, levels, level)  # pyright: ignore


KINDS = pytest.mark.parametrize("kind", ["variable-rate", "variable-rate-context"])


def test_symbols_and_what_becomes_of_them_by_hand():
    levels = Levels(
        betas=np.array([0.5, 2], np.float32),
        medians=np.array([0.25, -1], np.float32),
        gains=np.array([[4, 2], [1, 0.5]], np.float32),
        inverse_gains=np.array([[0.25, 0.5], [1, 1.75]], np.float32),
    )
    latent = np.array([1.0, 2.5], np.float32)[:, None, None]
    # (1 − 0.25) · 4 = 3 and (2.5 + 1) · 2 = 7; 0.75 to 1 and 1.75 to 2. Back: 3/4 + 1/4, 7/2 − 1.
    assert levels.symbols(latent, 0).ravel().tolist() == [3, 7]
    assert levels.symbols(latent, 1).ravel().tolist() == [1, 2]
    assert levels.latent_hat(np.array([3, 7])[:, None, None], 0).ravel().tolist() == [1, 2.5]
    assert levels.latent_hat(np.array([1, 2])[:, None, None], 1).ravel().tolist() == [1.25, 2.5]


@KINDS
@pytest.mark.parametrize("level", range(len(BETAS)))
def test_the_edge_reads_the_level_from_the_payload(kind, level):
    latent = made_latent(9)
    device, edge = made_coder(kind).at(BETAS[level]), made_coder(kind)
    payload = device.encode(latent)
    assert payload[0] == level
    (found,) = edge.decode(payload, *latent.shape[1:])
    levels = made_levels()
    step = 1 / levels.gains[level][:, None, None]
    centred = latent - levels.medians[:, None, None]
    symbols = np.rint(centred.astype(np.float64) / step)
    expected = symbols * levels.inverse_gains[level][:, None, None]
    np.testing.assert_allclose(found - levels.medians[:, None, None], expected, atol=1e-5)
    np.testing.assert_array_equal(found, device.decoded(latent)[0])
    assert device.digest() == edge.digest()
    assert 0 <= 8 * len(payload) - device.ideal_bits(latent) < 64


def test_each_level_has_its_own_rows_of_the_tables():
    coder, latent = made_coder(), made_latent(3)
    for level, beta in enumerate(BETAS):
        rows = slice(level * CHANNELS, (level + 1) * CHANNELS)
        of_level = FactorizedCoder(coder.tables.part(rows))
        np.testing.assert_array_equal(of_level.tables.offset, coder.tables.offset[rows])
        payload = of_level.encode(coder.levels.symbols(latent, level))
        assert coder.at(beta).encode(latent) == bytes([level]) + payload


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_latent_comes_back_within_half_a_step(data):
    kind = data.draw(st.sampled_from(["variable-rate", "variable-rate-context"]))
    coder = made_coder(kind, data.draw(st.integers(0, len(BETAS) - 1)))
    size = [CHANNELS, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))]
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    scale = 10.0 ** data.draw(st.integers(-3, 5))
    latent = (rng.normal(size=size) * scale).astype(np.float32)
    codec = Codec(coder, STREAM_ID, (size[1], size[2]))
    (found,) = codec.decompress(codec.compress(latent))
    np.testing.assert_array_equal(found, coder.decoded(latent)[0])
    assert found.dtype == np.float32
    gains, inverse = (
        of[coder.level][:, None, None] for of in (coder.levels.gains, coder.levels.inverse_gains)
    )
    back = (found - coder.levels.medians[:, None, None]).astype(np.float64) / inverse
    off = np.abs(back - (latent - coder.levels.medians[:, None, None]).astype(np.float64) * gains)
    assert off.max() <= 0.5 + 1e-6 * np.abs(back).max() + 1e-4


@pytest.mark.parametrize(
    ("beta", "nearest"),
    [(0.1, 0.1), (0.141, 0.1), (0.142, 0.2), (0.28, 0.2), (0.29, 0.4), (0.4, 0.4)],
)
def test_the_nearest_level_is_that_of_the_least_ratio(beta, nearest):
    """√(0.1 · 0.2) = 0.1414, √(0.2 · 0.4) = 0.2828."""
    assert made_coder().at(beta).beta == nearest


@pytest.mark.parametrize("beta", [0.0999, 0.401, 0.0, -1.0, float("nan"), float("inf")])
def test_another_beta_is_refused_and_the_levels_are_named(beta):
    with pytest.raises(RateError, match=r"outside the model's range, 0\.1 to 0\.4") as caught:
        made_coder().at(beta)
    assert caught.value.next_step == "Its levels are: 0.1, 0.2, 0.4"


def test_a_fixed_rate_is_not_chosen():
    coder = FactorizedCoder(peaked_tables(2, 3, 12))
    assert (coder.betas, coder.beta) == ((), None)
    codec = Codec(coder, STREAM_ID, (2, 2))
    assert codec.at(None) is codec
    with pytest.raises(RateError, match=r"rate is fixed: it cannot encode with β 0\.4"):
        codec.at(0.4)


@KINDS
@pytest.mark.parametrize("level", [3, 4, 127, 255])
def test_levels_that_there_are_not_are_refused(kind, level):
    payload = made_coder(kind).encode(made_latent())
    with pytest.raises(BitstreamError, match=rf"names level {level}; this model has 0 to 2"):
        made_coder(kind).decode(bytes([level]) + payload[1:], 5, 7)
    with pytest.raises(BitstreamError, match="names no level"):
        made_coder(kind).decode(b"", 5, 7)


@KINDS
def test_a_payload_of_another_level_is_read_as_other_symbols_or_refused(kind):
    coder, latent = made_coder(kind), made_latent()
    payload = coder.encode(latent)
    for other in {0, 1, 2} - {payload[0]}:
        try:
            (found,) = coder.decode(bytes([other]) + payload[1:], 5, 7)
        except BitstreamError:
            continue
        assert found.shape == latent.shape and not np.array_equal(found, coder.decoded(latent)[0])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_payload_gives_a_latent_or_an_error_of_ours(payload):
    coder = made_coder("variable-rate")
    try:
        (found,) = coder.decode(payload, 3, 2)
    except BitstreamError:
        return
    assert found.shape == (CHANNELS, 3, 2) and np.isfinite(found).all()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("betas", np.array([0.2, 0.1, 0.4], "f4"), "do not rise"),
        ("betas", np.array([-0.1, 0.1, 0.4], "f4"), "do not rise"),
        ("betas", np.array([0.1], "f4"), "2 to 256"),
        ("betas", np.float32(0.1), "2 to 256"),
        ("betas", np.array(BETAS), "betas is not an array of finite float32"),
        ("medians", np.full(CHANNELS, np.nan, "f4"), "medians is not an array of finite float32"),
        ("medians", np.full(CHANNELS, 1e31, "f4"), "a median is beyond"),
        ("gains", np.ones((3, CHANNELS + 1), "f4"), "were expected"),
        ("gains", np.zeros((3, CHANNELS), "f4"), "a gain is not within"),
        ("inverse_gains", np.full((3, CHANNELS), -1, "f4"), "a gain is not within"),
        ("inverse_gains", np.full((3, CHANNELS), 2e6, "f4"), "a gain is not within"),
    ],
)
def test_damaged_gains_are_refused(name, value, message):
    with pytest.raises(TablesError, match=message):
        made_levels(**{name: value})


def test_tables_and_levels_must_fit():
    with pytest.raises(TablesError, match="tables have 8 channels; 3 levels of 4 need 12"):
        VariableRateCoder(peaked_tables(8, 3, 16), made_levels())
    for level in (3, -1, True, "1"):
        with pytest.raises(TablesError, match="There are 3 levels, and none is"):
            VariableRateCoder(made_coder().tables, made_levels(), level)  # pyright: ignore


@KINDS
def test_parts_make_the_coder_again(kind):
    coder = made_coder(kind, 2)
    arrays = coder.arrays()
    assert sorted(arrays) == sorted(CODERS[kind].array_names())
    again = CODERS[kind].from_parts(coder.settings(), arrays)
    assert (again.digest(), again.beta) == (coder.digest(), 0.4)
    for name in arrays:
        with pytest.raises(TablesError):
            CODERS[kind].from_parts({}, {key: arrays[key] for key in arrays if key != name})
    for settings_ in ({"level": 3}, {"level": "1"}, {"other": 1}):
        with pytest.raises(TablesError):
            CODERS[kind].from_parts(settings_, arrays)
    changed = arrays["gains"].copy()
    changed[0, 0] *= 1.5
    other = CODERS[kind].from_parts({}, {**arrays, "gains": changed})
    assert other.digest() != coder.digest()


@pytest.mark.parametrize(
    ("latent", "message"),
    [
        (np.zeros((3, 2, 2), "f4"), "float32 of 4 channels was expected"),
        (np.zeros((4, 2, 2)), "The latent is float64"),
        (np.full((4, 2, 2), np.nan, "f4"), "not finite, or beyond 32 bits"),
        (np.full((4, 2, 2), np.inf, "f4"), "not finite, or beyond 32 bits"),
        (np.full((4, 2, 2), 3e38, "f4"), "not finite, or beyond 32 bits"),
        (np.full((4, 2, 2), 2.0**31, "f4"), "not finite, or beyond 32 bits"),
    ],
)
def test_a_latent_of_another_form_is_refused(latent, message):
    with pytest.raises(SplitzooError, match=message):
        made_coder(level=0).encode(latent)


# Golden streams: what was once written decodes for ever.


@KINDS
def test_golden_streams_are_read_by_numpy_alone(kind, request):
    path = GOLDEN / FILES[kind]
    if request.config.getoption("--rewrite-golden"):
        coder, latent = made_coder(kind), made_latent(5, 6, 7)
        codec = Codec(coder, STREAM_ID, (6, 7))
        streams = [codec.at(beta).compress(latent) for beta in BETAS]
        arrays = (np.frombuffer(one, np.uint8) for one in streams)
        named = dict(zip(STREAMS, arrays, strict=True))
        hats = [coder.at(beta).decoded(latent)[0] for beta in BETAS]
        np.savez_compressed(path, latent=latent, expected=np.stack(hats), **named, **coder.arrays())
    script = f"""
import sys
sys.modules["constriction"] = None
import numpy as np
from splitrun.coding import CODERS, Codec
golden = np.load({str(path)!r})
names = CODERS[{kind!r}].array_names()
coder = CODERS[{kind!r}].from_parts({{}}, {{name: golden[name] for name in names}})
codec = Codec(coder, {STREAM_ID!r}, (6, 7))
for level, (beta, name) in enumerate(zip(coder.betas, {STREAMS!r}, strict=True)):
    stream = golden[name].tobytes()
    (found,) = codec.decompress(stream)
    assert np.array_equal(found, golden["expected"][level]) and found.dtype == np.float32
    assert codec.at(beta).compress(golden["latent"]) == stream
assert not {{"torch", "splitzoo", "scipy"}} & set(sys.modules)
print("read")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("read\n", 0), done.stderr
    with np.load(path) as golden:
        sizes = [len(read_stream(golden[name].tobytes()).payload) for name in STREAMS]
        assert sizes == sorted(sizes, reverse=True)  # a larger β sends less
        steps = [np.abs(golden["expected"][n] - golden["latent"]).mean() for n in range(3)]
        assert steps == sorted(steps)


def test_context_coding_sends_less_where_neighbours_are_alike():
    """One value for each channel: a neighbour says it all."""
    latent = np.repeat(made_latent(1, 1, 1), 24 * 24, axis=2).reshape(CHANNELS, 24, 24) * 4
    levels = made_levels()
    symbols = symbols_of_all(levels, latent)[None]
    context = VariableRateContextCoder(fit_sparse(symbols, limit=15), levels)
    for beta in BETAS:
        plain, coded = (len(one.at(beta).encode(latent)) for one in (made_coder(), context))
        assert coded < plain / 5
