"""One level of a variable rate as a model of its own."""

import pytest
import torch

from splitrun.errors import SpecError
from splitzoo import zoo
from splitzoo.zoo.fixed_rate import fixed_rate

NAME = "svbi_tf_efficientnet_lite0-fp-variable"


@pytest.fixture(scope="module")
def variable():
    model = zoo.build(NAME)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for factors in (model.bottleneck.gain_factors, model.bottleneck.inverse_factors):
            factors.copy_(0.8 + 0.4 * torch.rand(factors.shape, generator=random))
        quantiles = model.bottleneck.entropy_bottleneck.quantiles
        quantiles[:, 0, 1] = torch.rand(len(quantiles), generator=random) - 0.5
    model.update()
    return model


@pytest.mark.parametrize("beta", [0.1, 1.0])
@torch.no_grad()
def test_it_sends_the_same_symbols_with_the_same_probabilities(variable, beta):
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    fixed = fixed_rate(variable, beta)
    assert (fixed.spec.name, fixed.spec.beta) == (NAME.replace("variable", f"beta{beta:g}"), beta)
    level = torch.tensor([variable.spec.bottleneck.betas.index(beta)])
    latent = variable.encoder(image)
    _, (theirs,) = variable.bottleneck.forward_with_likelihoods(latent, level)
    gain = variable.bottleneck.gains[level][0, :, None, None]
    symbols = torch.round((latent - variable.bottleneck.medians) * gain).int()
    ours = fixed.wire_tensors(image)[0]
    differing = (torch.from_numpy(ours) != symbols).float().mean()
    assert differing < 1e-3  # ties, rounded after another order of products
    _, (found,) = fixed.bottleneck.forward_with_likelihoods(fixed.encoder(image))
    bits = [-float(probabilities.log2().sum()) for probabilities in (found, theirs)]
    assert bits[0] == pytest.approx(bits[1], rel=1e-3)


@torch.no_grad()
def test_it_predicts_the_same_where_gains_are_reciprocal(variable):
    import copy

    model = copy.deepcopy(variable)
    model.bottleneck.inverse_factors.copy_(1 / model.bottleneck.gain_factors)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1
    level = torch.tensor([2])
    latent_hat = model.bottleneck(model.encoder(image), level)
    fixed = fixed_rate(model, model.spec.bottleneck.betas[2])
    assert torch.allclose(fixed(image), model.decoder(latent_hat), atol=1e-2)


def test_what_cannot_be_fixed_is_refused(variable):
    with pytest.raises(SpecError, match=r"no level of β 0\.3"):
        fixed_rate(variable, 0.3)
    with pytest.raises(SpecError, match="of one rate already"):
        fixed_rate(zoo.build(NAME.replace("variable", "beta1")), 1.0)
