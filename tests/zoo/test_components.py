"""Principal components that residual bottlenecks begin with."""

import numpy as np
import pytest
import torch

from splitrun.errors import RecipeError
from splitzoo import zoo
from splitzoo.zoo.bottleneck_specs import FactorizedPriorBottleneck
from splitzoo.zoo.datasets import Sample
from splitzoo.zoo.train.components import begin_with_components
from tests.support.made_data import make_folders

CHANNELS = 48
"""Of the test network's features of stride 8."""


def student(latent, **sizes):
    spec = zoo.get_spec("svbi_test_resnet-fp-beta1")
    fields = spec.bottleneck.model_dump() | {"encoder_channels": (CHANNELS, CHANNELS, latent)}
    bottleneck = FactorizedPriorBottleneck.model_validate(fields | sizes)
    return zoo.build(spec.model_copy(update={"bottleneck": bottleneck}), seed=1)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = make_folders(tmp_path_factory.mktemp("images"), train=12, val=1)
    return [Sample(path, path.name, -1) for path in sorted((folder / "train").rglob("*.*"))]


def features_of(model, samples):
    images = [model.spec.preprocessing.load(sample.path) for sample in samples]
    with torch.no_grad():
        return model.encoder.get_submodule("head")(torch.from_numpy(np.concatenate(images)))


@torch.no_grad()
def test_all_components_give_the_features_back(samples):
    model = student(4 * CHANNELS)
    begin_with_components(model, samples, seed=0)
    features = features_of(model, samples[:4])
    back = model.decoder.get_submodule("g_s")(model.encoder.get_submodule("g_a")(features))
    torch.testing.assert_close(back, features, rtol=1e-3, atol=1e-3 * float(features.abs().max()))


@torch.no_grad()
def test_some_components_answer_as_well_as_numpys_and_better_than_features_without_weights(samples):
    """A peer: principal components of the same blocks by numpy, which no gradients weigh."""
    model = student(12)
    begin_with_components(model, samples, seed=0)
    features = features_of(model, samples)
    back = model.decoder.get_submodule("g_s")(model.encoder.get_submodule("g_a")(features))
    n, _, h, w = features.shape
    blocks = features.reshape(n, CHANNELS, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5)
    flat = blocks.reshape(-1, 4 * CHANNELS).double().numpy()
    center = flat.mean(0)
    _, vectors = np.linalg.eigh(np.cov(flat.T))
    kept = vectors[:, ::-1][:, :12]
    plain = torch.from_numpy((flat - center) @ kept @ kept.T + center).float()
    plain = plain.reshape(blocks.shape).permute(0, 3, 1, 4, 2, 5).reshape(features.shape)
    error, least = ((one - features).square().mean() for one in (back, plain))
    assert least < error < features.var()
    tail = model.decoder.get_submodule("tail")
    truth = tail(features).log_softmax(1)
    divergence, theirs = (
        torch.nn.functional.kl_div(
            tail(one).log_softmax(1), truth, log_target=True, reduction="batchmean"
        )
        for one in (back, plain)
    )
    assert divergence < theirs


def test_what_has_no_linear_path_is_refused(samples):
    with pytest.raises(RecipeError, match="has no linear paths"):
        begin_with_components(zoo.build("splittable_test_resnet-fp"), samples, seed=0)
    with pytest.raises(RecipeError, match="do not hold 48 channels"):
        begin_with_components(student(24, decoder_channels=(16, 56, CHANNELS)), samples, seed=0)
