"""Bottlenecks: what they send, what comes back, and what is learned."""

import copy
import functools

import numpy as np
import pytest
import torch
from compressai.entropy_models import GaussianConditional
from compressai.models.google import get_scale_table
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from torch import nn
from wires import sent_by

from splitrun.errors import SpecError, TablesError
from splitzoo.zoo.bottleneck_specs import HyperpriorBottleneck, NeuralCodecBottleneck
from splitzoo.zoo.bottlenecks import neural_codec
from splitzoo.zoo.bottlenecks.entropic_hyperprior import entropic_hyperprior
from splitzoo.zoo.bottlenecks.factorized_prior import FactorizedPrior, analysis
from splitzoo.zoo.bottlenecks.hyperprior import scale_position
from splitzoo.zoo.bottlenecks.initialisation import init_scales, init_unit_variance
from splitzoo.zoo.bottlenecks.quantiser import UniformQuantiser

ENTROPIC = {
    f"{kind}{'-float' * in_floats}": HyperpriorBottleneck(
        kind=kind,
        encoder_channels=(8, 8, 6),
        decoder_channels=(8, 8, 8),
        hyper_channels=4,
        float_hyperprior=in_floats,
    )
    for kind in ("scale-hyperprior", "mean-scale-hyperprior")
    for in_floats in (False, True)
}
HYPER_CODECS = ("bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")
NEURAL = {
    f"{architecture}{'-float' * in_floats}": NeuralCodecBottleneck(
        architecture=architecture, quality=1, channels=(4, 6), float_hyperprior=in_floats
    )
    for architecture in ("bmshj2018-factorized", *HYPER_CODECS)
    for in_floats in (False, True)[: 1 + (architecture in HYPER_CODECS)]
}
PLAIN = {"quantiser": UniformQuantiser, "factorized-prior": FactorizedPrior}
KINDS = (*PLAIN, *ENTROPIC, *NEURAL)
IN_FLOATS = tuple(kind for kind in KINDS if kind.endswith("-float"))
LEARNED = tuple(kind for kind in KINDS if kind != "quantiser")


@functools.cache
def built(kind):
    """A bottleneck to be left as it is, and two latents."""
    return build(kind)


def build(kind, seed=0):
    """A bottleneck with random weights, its tables made, and two latents of six channels."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind in ENTROPIC:
            bottleneck, height, width = entropic_hyperprior(ENTROPIC[kind]), 15, 11
        elif kind in NEURAL:
            bottleneck, height, width = neural_codec.build(NEURAL[kind], (128, 64))[1], 8, 4
        else:
            bottleneck, height, width = PLAIN[kind](6), 5, 7
        if "entropy_bottleneck.quantiles" in bottleneck.state_dict():
            bottleneck.entropy_bottleneck.quantiles.data[:, 0, 1].uniform_(-0.45, 0.45)
    bottleneck.eval()
    bottleneck.update()
    return bottleneck, 2 * torch.randn(2, 6, height, width, generator=generator)


def through_the_coder(bottleneck, latent):
    """Each image's tensors as they come out of the coder."""
    coder = bottleneck.entropy_coder()

    def hyper(hyper_symbols):
        batch = torch.from_numpy(hyper_symbols)[None]
        return tuple(tensor[0].numpy() for tensor in bottleneck.hyper_decode(batch))

    with torch.no_grad():
        sent = [tensor.numpy() for tensor in bottleneck.to_wire(latent)]
        images = list(zip(*sent, strict=True))
        return [coder.decode(coder.encode(*image), *coder.shape(*image), hyper) for image in images]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_received_is_what_forward_gives(kind):
    bottleneck, latent = built(kind)
    with torch.no_grad():
        expected = bottleneck(latent)
        for image, received in enumerate(through_the_coder(bottleneck, latent)):
            assert len(received) == len(bottleneck.edge_inputs)
            batch = [torch.from_numpy(tensor)[None] for tensor in received]
            latent_hat = bottleneck.from_wire(*batch)
            assert latent_hat.dtype == torch.float32
            assert latent_hat.shape == latent[:1].shape
            # Convolutions of a batch may round their sums in another way.
            torch.testing.assert_close(latent_hat[0], expected[image], rtol=0, atol=1e-5)
        error = (expected - latent).abs()
        step = bottleneck.to_wire(latent)[1] if kind == "quantiser" else torch.ones(1)
    # torchdistill cuts the zero point down, which may cost up to a step at the range's lower end.
    limit = 1 if kind == "quantiser" else 0.5
    assert (error <= limit * step * (1 + 1e-5)).all()
    assert error.max() > 0.4 * limit * step.min()


@pytest.mark.parametrize("kind", KINDS)
def test_integers_are_what_rounding_gives_and_floats_are_sent_as_they_are(kind):
    bottleneck, latent = built(kind)
    with torch.no_grad():
        sent, unrounded = bottleneck.to_wire(latent), bottleneck.unrounded_wire(latent)
    assert len(sent) == len(unrounded) == len(bottleneck.wire_names)
    for tensor, exact in zip(sent, unrounded, strict=True):
        assert exact.dtype == torch.float32
        expected = exact if tensor.dtype == torch.float32 else torch.round(exact).to(tensor.dtype)
        assert torch.equal(tensor, expected)


@pytest.mark.parametrize("kind", IN_FLOATS)
def test_the_edge_computes_from_one_image_what_the_device_did_in_a_batch(kind):
    bottleneck, latent = built(kind)
    with torch.no_grad():
        sent = dict(zip(bottleneck.wire_names, bottleneck.to_wire(latent), strict=True))
        whole = bottleneck.hyper_decode(sent["hyper_symbols"])
        assert len(whole) == len(bottleneck.hyper_outputs)
        for image in range(2):
            parts = bottleneck.hyper_decode(sent["hyper_symbols"][image : image + 1])
            for name, tensor, batch in zip(bottleneck.hyper_outputs, parts, whole, strict=True):
                assert torch.equal(tensor[0], batch[image])
                if name in sent:
                    assert torch.equal(tensor[0], sent[name][image])


@pytest.mark.parametrize("kind", LEARNED)
def test_likelihoods_are_those_of_the_rounded_elements_and_train_all_parameters(kind):
    bottleneck, latent = build(kind)
    with torch.no_grad():
        first, second = bottleneck.likelihoods(latent), bottleneck.likelihoods(latent)
    for tensor, again in zip(first, second, strict=True):
        assert torch.equal(tensor, again)
        assert 0 < tensor.min() < tensor.max() <= 1
    bottleneck.train()
    noisy, again = bottleneck(latent), bottleneck(latent)
    assert (noisy - latent).abs().max() <= 0.5
    assert not torch.equal(noisy, again)
    likelihoods = bottleneck.likelihoods(latent)
    assert likelihoods[0].shape == latent.shape
    assert len(likelihoods) == (1 if kind in ("factorized-prior", "bmshj2018-factorized") else 2)
    sum(-tensor.log2().sum() for tensor in likelihoods).backward()
    unused = {name for name, tensor in bottleneck.named_parameters() if tensor.grad is None}
    # The quantiles have a loss of their own.
    assert unused == {"entropy_bottleneck.quantiles"}
    bottleneck.aux_loss().backward()
    assert bottleneck.entropy_bottleneck.quantiles.grad.any()


# Means in integers differ from those that training sees in their last place.
@pytest.mark.parametrize(
    "kind",
    [
        "factorized-prior",
        "scale-hyperprior",
        "mean-scale-hyperprior-float",
        "bmshj2018-hyperprior",
        "mbt2018-mean-float",
    ],
)
def test_trained_with_rounding_the_decoder_sees_what_it_will_be_sent(kind):
    bottleneck, latent = build(kind)
    with torch.no_grad():
        sent = bottleneck(latent)
    bottleneck.train()
    latent.requires_grad_()
    bottleneck.trains_rounded = True
    seen, (likelihoods, *_) = bottleneck.forward_with_likelihoods(latent)
    torch.testing.assert_close(seen, sent, rtol=0, atol=1e-6)
    assert not torch.equal(likelihoods, bottleneck.likelihoods(latent)[0])  # of noisy values
    factors = torch.randn(latent.shape)
    (seen * factors).sum().backward()
    assert torch.equal(latent.grad, factors)


@pytest.mark.parametrize("kind", ["mbt2018", "mbt2018-float"])
def test_the_estimate_of_mbt2018_is_of_what_its_coder_writes(kind):
    bottleneck, latent = build(kind)
    # Scales at which a table's smallest count does not matter.
    bottleneck.entropy_parameters[-1].bias.data[:6] += 2
    coder = bottleneck.entropy_coder()
    with torch.no_grad():
        likelihoods = bottleneck.likelihoods(latent[:1])
        estimate = [-tensor.log2().sum().item() / 8 for tensor in likelihoods]
        payload = coder.encode(*(tensor[0].numpy() for tensor in bottleneck.to_wire(latent[:1])))
    # Check, last word, and tables of the next larger scale.
    assert sum(estimate) < len(payload) < sum(estimate) + 8


@pytest.mark.parametrize("kind", LEARNED)
def test_tables_come_with_the_weights(kind):
    bottleneck, _ = build(kind)
    stranger, _ = build(kind, seed=1)
    without_tables = copy.deepcopy(bottleneck)
    for name, tensor in bottleneck.state_dict().items():
        if name.endswith(("_quantized_cdf", "_cdf_length", "_offset")):
            owner, _, buffer = name.partition(".")
            setattr(without_tables.get_submodule(owner), buffer, tensor.new_empty(0))
    with pytest.raises(TablesError):
        without_tables.entropy_coder()
    for other in (stranger, without_tables):
        other.load_state_dict(bottleneck.state_dict())
        assert other.entropy_coder().digest() == bottleneck.entropy_coder().digest()
    if kind.startswith("scale-hyperprior"):
        # Tables of other scales are refused until they are made anew.
        bottleneck.gaussian_conditional.update_scale_table([0.11, 1.0, 256.0], force=True)
        stranger.load_state_dict(bottleneck.state_dict())
        with pytest.raises(TablesError, match=r"64 scales from 0\.11 to 256"):
            stranger.entropy_coder()
        stranger.update()
        stranger.entropy_coder()


@pytest.mark.parametrize("kind", ENTROPIC)
def test_only_a_latent_that_the_hyper_decoder_can_describe_is_sent(kind):
    bottleneck, _ = built(kind)
    with torch.no_grad():
        latent = analysis(ENTROPIC[kind])(torch.rand(1, 3, 96, 64))
        assert sent_by(bottleneck, latent) == ENTROPIC[kind].wire(96, 64)
    with pytest.raises(SpecError, match=r"latent is \(15, 16\).*gives scales of \(15, 15\)"):
        bottleneck.to_wire(torch.zeros(1, 6, 15, 16))


@pytest.mark.parametrize("kind", [kind for kind in IN_FLOATS if kind != "mbt2018-float"])
@torch.no_grad()
def test_an_untrained_hyperprior_says_something(kind):
    bottleneck, latent = built(kind)
    sent = bottleneck.to_wire(latent)
    for tensor, values in zip(sent, (5, 1, 8), strict=True):
        assert tensor.unique().numel() > values
    assert (sent[2] == 0).float().mean() < 0.5


# Scale indexes


@settings(max_examples=200, deadline=None)
@given(scales=numpy_strategies.arrays(np.float32, 50, elements=st.floats(-1, 1000, width=32)))
def test_scale_indexes_are_those_of_compressai(scales):
    assert_same_indexes(torch.from_numpy(scales))


def test_scale_indexes_close_to_a_boundary_and_far_from_one():
    steps = torch.arange(-60, 61) * 2.0**-23
    assert_same_indexes((get_scale_table()[:, None] * (1 + steps)).flatten(), unlike=200)
    # Most scales are below the smallest: they must not hang on how a logarithm is rounded.
    position = scale_position(torch.tensor([-1.0, 0.0, 1e-30, 0.05, 0.1]))
    assert torch.equal(position[:4], torch.zeros(4))
    assert position[4] < 0.2


def assert_same_indexes(scales, unlike=0):
    position = scale_position(scales)
    gaussian = GaussianConditional(get_scale_table().tolist())
    expected, boundaries = gaussian.build_indexes(scales), gaussian.scale_table
    indexes = torch.round(position).int()
    assert position.min() >= 0
    assert indexes.max() <= 63
    different = indexes != expected
    # Within a millionth of a boundary either side will do.
    distance = (scales[:, None] / boundaries - 1).abs().amin(1)
    assert not (different & (distance > 1e-6)).any()
    if unlike:
        assert different.sum() < unlike


# Random weights


def test_random_weights_keep_the_variance():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 48, 5, stride=2, padding=2, output_padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(48, 64, 3, stride=2, bias=False),
    )
    with torch.no_grad():
        out = init_unit_variance(layers)(torch.randn(2, 16, 64, 64))
        scales = init_scales(layers, 32)(torch.randn(2, 16, 64, 64))
    assert 0.8 < out.std() < 1.2
    assert 0.8 < scales[:, :32].mean() < 1.2
    assert 0.3 < scales[:, :32].std() < 0.7
    assert abs(scales[:, 32:].mean()) < 0.2


def test_update_quantiles_moves_what_tables_reach_and_leaves_the_medians():
    bottleneck = FactorizedPrior(3).eval()
    model = bottleneck.entropy_bottleneck
    with torch.no_grad():
        model.quantiles[:, 0] = torch.tensor([-5000.0, 0.25, 5000.0])
    bottleneck.update()
    before = bottleneck.entropy_coder().tables.length.max()
    bottleneck.update_quantiles()
    assert bottleneck.medians.flatten().tolist() == [0.25] * 3
    assert bottleneck.entropy_coder().tables.length.max() < before / 4
    latent = torch.randn(1, 3, 4, 4)
    assert torch.equal(bottleneck(latent), torch.round(latent - 0.25) + 0.25)
