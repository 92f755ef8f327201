"""Hyper-decoders in integers, made from float ones: how near they are, and what they refuse."""

import numpy as np
import pytest
import torch
from small_models import made_image, small_spec
from torch import nn

from splitrun.coding.integer_network import UNIT
from splitrun.errors import ModelFolderError, SpecError, TablesError
from splitzoo import zoo
from splitzoo.zoo.bottlenecks.integer_hyperprior import synthesis_of
from splitzoo.zoo.parts import in_floats

CLASSIFIER = "image-classification"
KINDS = ("shp", "mshp", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")


def built(kind, seed=0):
    return zoo.build(small_spec(CLASSIFIER, kind), seed=seed)


def layers(*, channels=6, activation=nn.LeakyReLU):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.ConvTranspose2d(4, channels, 5, stride=2, padding=2, output_padding=1),
        activation(),
        nn.ConvTranspose2d(channels, channels, 5, stride=2, padding=1, bias=False),
        activation(),
        nn.Conv2d(channels, 6, 3, padding=1),
    ).requires_grad_(False)


def samples():
    return np.random.default_rng(0).integers(-20, 21, (2, 4, 5, 6)).astype(np.int32)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
@pytest.mark.parametrize("channels", [6, 192])
def test_integers_are_near_the_floats_that_they_are_made_from(activation, channels):
    """12 bits of activations: 1% of the parameters' deviation is far more than they may lose."""
    h_s, symbols = layers(channels=channels, activation=activation), samples()
    medians = torch.rand(1, 4, 1, 1, generator=torch.Generator().manual_seed(0)) - 0.5
    synthesis = synthesis_of(h_s, medians, symbols, means=True)
    for image in symbols:
        exact = h_s(torch.from_numpy(image)[None].float() + medians)[0].numpy()
        found = synthesis(image) * UNIT
        assert found.shape == exact.shape == (6, *map(synthesis.size, (5, 6)))
        assert np.abs(found - exact).max() < 0.05 * exact.std()
        assert np.sqrt(np.mean((found - exact) ** 2)) < 0.01 * exact.std()
    # A multiply-accumulate for each weight and place, of the input where transposed.
    counted = 4 * channels * 25 * 30 + channels * channels * 25 * 120 + channels * 6 * 9 * 21 * 25
    assert synthesis.macs(5, 6) == counted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h_s: h_s[2].weight.fill_(float("nan")), "Layer 1 .* not finite"),
        (lambda h_s: h_s[0].bias.fill_(1e30), "Layer 0 .* the bias 1e\\+30"),
        (lambda h_s: h_s[4].weight[3].mul_(1e-30), "Layer 2 .* in output channel 3"),
        (lambda h_s: h_s.append(nn.Sigmoid()), "cannot hold Sigmoid"),
        (lambda h_s: h_s.append(nn.Conv2d(6, 6, 1)), "has 3 convolutions, not 4"),
        (lambda h_s: h_s.__setitem__(4, nn.Conv2d(6, 6, 3, stride=2)), "cannot hold Conv2d"),
        (lambda h_s: h_s.__setitem__(4, nn.Conv2d(6, 6, 3, groups=2)), "cannot hold Conv2d"),
    ],
)
def test_what_integers_cannot_compute_is_refused(change, message):
    h_s = layers()
    with torch.no_grad():
        change(h_s)
    with pytest.raises(SpecError, match=message):
        synthesis_of(h_s, torch.zeros(1, 4, 1, 1), samples(), means=True)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_model_in_floats_has_the_same_weights_and_nearly_the_same_bytes(kind):
    model = built(kind)
    floats, image = in_floats(model), made_image(1, 3, 64, 64)
    assert floats.spec.has_float_hyperprior
    assert in_floats(floats) is floats
    assert floats.random_seed == model.random_seed == 0
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in floats.state_dict().items())
    sizes = [len(one.compress(image)[0]) for one in (model, floats)]
    assert abs(sizes[0] - sizes[1]) <= 0.02 * sizes[1] + 4
    assert in_floats(built("fp")).spec == small_spec(CLASSIFIER, "fp")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_integers_are_saved_with_the_weights(kind, tmp_path):
    model, image = built(kind), made_image(1, 3, 64, 64)
    again = zoo.load(zoo.save(model, tmp_path / "m"))
    assert again.digest() == model.digest()
    assert again.compress(image) == model.compress(image)


def test_one_changed_integer_is_another_model(tmp_path):
    model = built("mshp")
    before = model.digest()
    model.bottleneck.synthesis.get_buffer("1_weight")[0, 0, 0, 0] += 1
    assert model.digest() != before
    model.bottleneck.synthesis.get_buffer("1_geometry")[1] = 99
    with pytest.raises(TablesError, match="stride or padding"):
        model.bottleneck.entropy_coder()
    folder = zoo.save(built("mshp"), tmp_path / "m")
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    del state["bottleneck.synthesis.1_weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ModelFolderError):
        zoo.load(folder)


@torch.no_grad()
def test_integers_follow_the_weights_that_are_trained_or_loaded():
    model, other = built("mshp"), built("mshp", seed=1)
    latent = model.encoder(made_image(1, 3, 64, 64))
    before = model.bottleneck(latent)
    model.bottleneck.train()
    for parameter, new in zip(
        model.bottleneck.h_s.parameters(), other.bottleneck.h_s.parameters(), strict=True
    ):
        parameter.copy_(new)
    model.bottleneck.eval()
    assert not torch.equal(model.bottleneck(latent), before)
    expected = built("mshp", seed=1)
    # Weights of floats alone, as converted checkpoints have them.
    state = {name: value for name, value in other.state_dict().items() if ".synthesis." not in name}
    model.load_state_dict(state)
    assert torch.equal(model.bottleneck(latent), expected.bottleneck(latent))


def test_a_frozen_bottleneck_gives_the_decoder_what_the_stream_will():
    """What a recipe's last stages train the decoder with."""
    model = built("mshp")
    latent = model.encoder(made_image(2, 3, 64, 64)).detach()
    latent_hat, likelihoods = model.bottleneck.forward_with_likelihoods(latent)
    assert torch.equal(latent_hat, model.bottleneck(latent))
    assert likelihoods[0].shape == latent.shape


@pytest.mark.parametrize("kind", ["shp", "mshp", "mbt2018"])
def test_training_with_integers_sees_what_the_coder_computes(kind):
    """Values are the coder's, of integers made for the same symbols; gradients the float's."""
    bottleneck = built(kind).hyperprior.train()
    medians = bottleneck.medians
    z_hat = torch.randint(-20, 21, (2, medians.shape[1], 3, 4)) + medians.detach()
    floats = bottleneck._synthesise(z_hat)
    (expected_gradient,) = torch.autograd.grad(floats.square().sum(), [bottleneck.h_s[0].weight])
    bottleneck.trains_integers = True
    found = bottleneck._synthesise(z_hat)
    symbols = torch.round(z_hat - medians).int().numpy()
    synthesis = synthesis_of(bottleneck.h_s, medians, symbols, means=bottleneck.has_means)
    expected = np.stack([synthesis(image) for image in symbols]) * UNIT
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-6, rtol=1e-6)
    assert 0 < (found - floats).abs().max() < 0.05 * floats.std()
    # Of the square, the gradient is twice the value that was computed in integers.
    (gradient,) = torch.autograd.grad(found.square().sum(), [bottleneck.h_s[0].weight])
    scale = expected_gradient.abs().max()
    assert 0 < (gradient - expected_gradient).abs().max() < 0.05 * scale
    assert not torch.equal(bottleneck.eval()._synthesise(z_hat), found)
