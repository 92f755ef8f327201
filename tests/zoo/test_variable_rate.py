"""A bottleneck of variable rate: probabilities by integration, tables, levels, training."""

import numpy as np
import pytest
import torch
from compressai.entropy_models import EntropyBottleneck
from pydantic import ValidationError
from scipy.integrate import quad

from splitrun.errors import RateError, SpecError, TablesError, UnknownNameError
from splitzoo import zoo
from splitzoo.zoo.bottleneck_specs import VariableRateBottleneck
from splitzoo.zoo.bottlenecks.variable_rate import VariableRate
from splitzoo.zoo.fixed_rate import fixed_rate
from splitzoo.zoo.train.recipe_files import find_recipe

BETAS = (0.1, 0.2, 0.4)
SIZES = {
    "network": "residual",
    "layer": "layer2",  # whose features have 48 channels; those of the cut, of stride 4, have 32
    "encoder_channels": (48, 8, 4),
    "decoder_channels": (16, 16, 32),
}


def made_bottleneck(channels=3, seed=0):
    """With medians, gains and densities that differ between channels and levels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = VariableRate(channels, BETAS, level=1)
        for parameter in made.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    made.eval().update_quantiles()
    return made


@pytest.fixture(scope="module")
def model():
    changes = {
        "name": "tiny-variable",
        "backbone": "test_resnet",
        "num_classes": 10,
        "cut": zoo.get_spec("splittable_test_resnet-fp").cut,
        "bottleneck": VariableRateBottleneck(**SIZES, betas=BETAS, beta=0.2),
    }
    spec = zoo.get_spec("svbi_test_resnet-fp-variable")
    return zoo.build(spec.model_copy(update=changes))


def images(number=2, seed=0):
    return torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_trained_with_rounding_gradients_reach_both_gains():
    bottleneck = made_bottleneck()
    latent, levels = 3 * torch.randn(2, 3, 4, 4), torch.tensor([0, 2])
    with torch.no_grad():
        sent = bottleneck(latent, levels)
    bottleneck.train()
    bottleneck.trains_rounded = True
    seen, (likelihoods,) = bottleneck.forward_with_likelihoods(latent, levels)
    assert torch.equal(seen, sent)
    assert not torch.equal(likelihoods, bottleneck.forward_with_likelihoods(latent, levels)[1][0])
    seen.square().sum().backward()
    for factors in (bottleneck.gain_factors, bottleneck.inverse_factors):
        assert factors.grad[[0, 2]].all()
        assert not factors.grad[1].any()


@pytest.mark.parametrize("level", range(3))
def test_probabilities_are_the_integral_of_the_density(level):
    """The density is the derivative of the cumulative distribution, integrated numerically."""
    bottleneck = made_bottleneck()
    density = bottleneck.entropy_bottleneck.double()
    latent = torch.tensor([-3.3, -0.4, 0.0, 0.7, 5.2]).reshape(1, 1, 1, 5).expand(1, 3, 1, 5)
    bottleneck.double()
    found = bottleneck.forward_with_likelihoods(latent.double(), torch.tensor([level]))[1][0]

    def slope(value, channel):
        at = torch.zeros(3, 1, 1, dtype=torch.float64)
        at[channel] = value
        at.requires_grad_()
        torch.sigmoid(density._logits_cumulative(at, stop_gradient=False))[channel].sum().backward()
        return at.grad[channel].item()

    gains = bottleneck.gains[level].detach()
    for channel, median in enumerate(bottleneck.medians.ravel().tolist()):
        gain = gains[channel].item()
        for place, value in enumerate(latent[0, channel, 0].tolist()):
            symbol = round((value - median) * gain)
            ends = (median + (symbol + side) / gain for side in (-0.5, 0.5))
            expected, _ = quad(slope, *ends, args=(channel,), epsabs=1e-11)
            assert found[0, channel, 0, place].item() == pytest.approx(expected, rel=1e-5)


def test_a_gain_of_1_is_compressais_entropy_bottleneck():
    bottleneck = made_bottleneck()
    with torch.no_grad():
        bottleneck.gain_factors[1] = bottleneck.inverse_factors[1] = 1
    peer = EntropyBottleneck(3).eval()
    learned = dict(bottleneck.entropy_bottleneck.named_parameters())
    assert peer.load_state_dict(learned, strict=False).unexpected_keys == []
    latent = 4 * torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    expected, likelihoods = peer(latent)
    found, (probabilities,) = bottleneck.forward_with_likelihoods(latent)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(probabilities, likelihoods, rtol=1e-4, atol=1e-7)
    bottleneck.update()
    peer.update(force=True)
    rows = slice(3, 6)  # of the second level
    tables = bottleneck.entropy_coder().tables.part(rows)
    assert tables.offset.tolist() == peer._offset.tolist()
    assert tables.length.tolist() == peer._cdf_length.tolist()
    assert np.abs(tables.cdf - peer._quantized_cdf.numpy()).max() <= 2  # of 65,536


def test_every_row_of_the_tables_is_that_levels_distribution():
    bottleneck = made_bottleneck()
    coder = bottleneck.entropy_coder()
    assert coder.tables.channels == 9
    for level, beta in enumerate(BETAS):
        for channel in range(3):
            row = 3 * level + channel
            offset, length = coder.tables.offset[row], coder.tables.length[row]
            symbols = torch.arange(offset, offset + length - 2).float()
            gain = bottleneck.gains[level, channel]
            latent = torch.zeros(1, 3, 1, len(symbols))
            latent[:, channel] = symbols / gain + bottleneck.medians[0, channel]
            _, (expected,) = bottleneck.forward_with_likelihoods(latent, torch.tensor([level]))
            found = np.diff(coder.tables.cdf[row, :length])[:-1] / 65536
            assert np.abs(found - expected[0, channel, 0].detach().numpy()).max() < 3e-3
            assert found.sum() > 0.99
        assert coder.at(beta).level == level


def test_a_larger_beta_sends_less_and_is_farther_off(model):
    with torch.no_grad():
        latent = 3 * model.encoder(images())
    sent, off = [], []
    for beta in BETAS:
        coder = model.codec.coder.at(beta)
        wire = [one.numpy() for one in latent]
        payloads = [coder.encode(one) for one in wire]
        sent.append(sum(map(len, payloads)))
        hats = [coder.decode(payload, *latent.shape[2:])[0] for payload in payloads]
        off.append(np.abs(np.stack(hats) - latent.numpy()).mean())
        at = model.at(beta)
        with torch.no_grad():
            bits = -sum(float(p.log2().sum()) for p in at.bottleneck.likelihoods(latent))
        assert 8 * sent[-1] == pytest.approx(bits, rel=0.02, abs=2 * 64)
    assert sent == sorted(sent, reverse=True) and len(set(sent)) == 3
    assert off == sorted(off)


def test_a_model_at_a_level_is_the_same_model(model):
    whole = images()
    for beta in BETAS:
        at = model.at(beta)
        assert (at.spec.bottleneck.beta, at.codec.coder.beta) == (beta, beta)
        assert at.codec.stream_id == model.codec.stream_id
        streams = at.compress(whole)
        assert streams == model.compress(whole, beta=beta)
        with torch.no_grad():
            # The path without bytes rounds as the coder does, bit for bit.
            assert torch.equal(model.decompress(streams), at(whole))
        assert f"β {beta:g} of 0.1 to 0.4" in repr(at)
    assert model.at(None) is model
    assert model.spec.bottleneck.beta == 0.2
    assert model.compress(whole) == model.compress(whole, beta=0.21)
    with pytest.raises(RateError, match=r"β 0\.5 is outside the model's range, 0\.1 to 0\.4"):
        model.compress(whole, beta=0.5)


def test_a_model_of_fixed_rate_says_so(tiny_model):
    for choose in (tiny_model.at, lambda beta: tiny_model.compress(images(1), beta=beta)):
        with pytest.raises(RateError, match="rate is fixed") as caught:
            choose(0.4)
        assert "its name ends in -variable" in caught.value.next_step


def test_a_saved_model_has_its_levels_and_its_id(model, tmp_path):
    again = zoo.load(zoo.save(model, tmp_path / "saved"))
    assert again.codec.stream_id == model.codec.stream_id
    assert again.spec == model.spec
    whole = images()
    assert again.compress(whole, beta=0.4) == model.compress(whole, beta=0.4)


def test_levels_are_drawn_for_each_image_and_their_noise_is_one_symbol_wide():
    bottleneck = made_bottleneck().train()
    torch.manual_seed(0)
    drawn = bottleneck.draw_levels(300)
    assert set(drawn.tolist()) == {0, 1, 2}
    levels = torch.tensor([0, 1, 2])
    latent = torch.zeros(3, 3, 40, 40)
    found = bottleneck(latent, levels).detach()
    gains = bottleneck.gains[:, :, None, None].detach()
    inverse = bottleneck.inverse_gains[:, :, None, None].detach()
    noise = (found - bottleneck.medians) / inverse - (latent - bottleneck.medians) * gains
    assert noise.abs().max() <= 0.5 + 1e-4
    assert noise.var().item() == pytest.approx(1 / 12, rel=0.05)


def test_gains_learn():
    bottleneck = made_bottleneck().train()
    latent = torch.randn(6, 3, 8, 8)
    _, (found,) = bottleneck.forward_with_likelihoods(latent, torch.arange(6) % 3)
    (-found.log2().sum()).backward()
    assert (bottleneck.gain_factors.grad > 0).all()  # a smaller gain, fewer bits
    with torch.no_grad():
        bottleneck.gain_factors.fill_(-5)  # as far as no gain goes
    assert (bottleneck.gains > 0).all()


def test_names_and_levels():
    spec = zoo.get_spec("svbi_tf_efficientnet_lite0-fp-variable")
    levels = spec.bottleneck
    assert isinstance(levels, VariableRateBottleneck)
    ratios = np.array(levels.betas[1:]) / levels.betas[:-1]
    np.testing.assert_allclose(ratios, 10**0.2, rtol=0.02)  # five levels to a factor of 10
    assert (len(levels.betas), levels.beta, spec.beta) == (8, 0.4, None)
    assert spec.strength == "β 0.4 of 0.1 to 2.5"
    for name in ("svbi_tf_efficientnet_lite0-mshp-variable", "svbi_resnet50-xx-variable"):
        with pytest.raises(UnknownNameError):
            zoo.get_spec(name)
    with pytest.raises(SpecError):
        zoo.get_spec("svbi_resnet50-fp-betavariable")
    for betas, beta in (((0.1, 0.1), 0.1), ((0.2, 0.1), 0.1), ((0.1,), 0.1), ((0.1, 0.2), 0.15)):
        with pytest.raises(ValidationError):
            VariableRateBottleneck(**SIZES, betas=betas, beta=beta)


@pytest.mark.parametrize("name", ["fp-beta0.4", "mshp-beta1"])
def test_students_of_one_rate_start_from_a_level(name):
    _, recipe, spec = find_recipe(f"svbi_tf_efficientnet_lite0-{name}")
    source = fixed_rate(zoo.build(recipe.start.source(spec.name)), spec.beta)
    ours = zoo.build(spec)
    for mine, other in recipe.start.parts.items():
        part = {name: t.shape for name, t in ours.get_submodule(mine).named_parameters()}
        theirs = source.get_submodule(other).named_parameters()
        assert part == {name: t.shape for name, t in theirs}
    assert {"encoder", "decoder.g_s"} <= recipe.start.parts.keys()


def test_tables_of_other_levels_are_refused(model):
    coder = model.bottleneck.entropy_coder()
    with pytest.raises(TablesError, match="3 levels of 4 need 12"):
        type(coder)(coder.tables.part(slice(0, 8)), coder.levels)
