"""CR + BQ: its networks and its quantiser."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from wires import sent_by

from splitzoo.zoo.bottleneck_specs import ChannelReductionBottleneck
from splitzoo.zoo.bottlenecks import channel_reduction
from splitzoo.zoo.bottlenecks.quantiser import UniformQuantiser

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
LATENTS = numpy_strategies.arrays(np.float32, (2, 2, 3, 2), elements=FLOATS)


@settings(max_examples=300, deadline=None)
@given(latent=LATENTS)
def test_any_latent_is_quantised_within_a_step_and_zero_stays_zero(latent):
    quantiser = UniformQuantiser(2).eval()
    latent[0, 0, 0, 0] = 0
    values, scale, zero_point = quantiser.to_wire(torch.from_numpy(latent))
    dtypes = (torch.uint8, torch.float32, torch.int32)
    assert (values.dtype, scale.dtype, zero_point.dtype) == dtypes
    assert scale.shape == zero_point.shape == (2, 1, 1, 1)
    assert (scale > 0).all()
    assert 0 <= zero_point.min() <= zero_point.max() <= 255
    restored = quantiser(torch.from_numpy(latent))
    assert restored[0, 0, 0, 0] == 0
    error = (restored - torch.from_numpy(latent)).abs()
    assert (error <= scale * (1 + 1e-4)).all()
    exact_values, _, exact_zero_point = quantiser.unrounded_wire(torch.from_numpy(latent))
    assert torch.equal(torch.round(exact_values).to(torch.uint8), values)
    assert torch.equal(torch.round(exact_zero_point).to(torch.int32), zero_point)


@pytest.mark.parametrize(
    ("value", "zero_point"), [(0.0, 0), (3.0, 0), (1e-30, 0), (-2.0, 255), (-1e-42, 0)]
)
def test_a_constant_latent_comes_back(value, zero_point):
    quantiser = UniformQuantiser(1).eval()
    latent = torch.full((1, 1, 4, 4), value)
    assert quantiser.to_wire(latent)[2].item() == zero_point
    torch.testing.assert_close(quantiser(latent), latent, rtol=1e-6, atol=2.0**-99)


def test_each_image_has_its_own_range_and_training_goes_past_the_quantiser():
    quantiser = UniformQuantiser(1).eval()
    small, large = torch.rand(1, 1, 4, 4), 1000 * torch.rand(1, 1, 4, 4) - 500
    both = quantiser.to_wire(torch.cat([small, large]))
    for index, image in enumerate((small, large)):
        for tensor, batch in zip(quantiser.to_wire(image), both, strict=True):
            assert torch.equal(tensor[0], batch[index])
    assert quantiser.train()(small) is small
    assert quantiser.likelihoods(small) == ()


@pytest.mark.parametrize(
    ("network", "cut", "layers", "side", "features"),
    [
        ("resnet-24", 12, 24, 224, (256, 56, 56)),
        ("resnet-20", 7, 20, 224, (512, 28, 28)),
        ("densenet", 8, 23, 224, (256, 14, 14)),
        ("inception", 7, 17, 299, (192, 35, 35)),
    ],
)
def test_channel_reduction_has_the_papers_layers_and_the_backbones_shape(
    network, cut, layers, side, features
):
    with torch.device("meta"):
        encoder, decoder = channel_reduction.layers(network, 3)
        assert (len(encoder), len(encoder) + len(decoder)) == (cut, layers)
        assert decoder(encoder(torch.empty(1, 3, side, side))).shape[1:] == features


@functools.cache
def encoder_of(network):
    return channel_reduction.layers(network, 3, width=4)[0]


@settings(max_examples=40, deadline=None)
@given(
    network=st.sampled_from(["resnet-24", "resnet-20", "densenet", "inception"]),
    height=st.integers(40, 300),
    width=st.integers(40, 300),
)
def test_channel_reduction_sends_what_its_spec_says(network, height, width):
    sizes = ChannelReductionBottleneck(network=network, channels=3)
    with torch.device("meta"):
        latent = encoder_of(network)(torch.empty(1, 3, height, width))
    assert sent_by(UniformQuantiser(3), latent) == sizes.wire(height, width)


@pytest.mark.parametrize("network", ["resnet-24", "resnet-20", "densenet", "inception"])
def test_an_untrained_channel_reduction_keeps_its_signal(network):
    torch.manual_seed(0)
    encoder, decoder = (part.eval() for part in channel_reduction.layers(network, 3, width=16))
    with torch.no_grad():
        latent = encoder(torch.randn(1, 3, 96, 96))
        features = decoder(UniformQuantiser(3).eval()(latent))
    assert 0.1 < latent.std() < 10
    assert 0.05 < features.std() < 10
