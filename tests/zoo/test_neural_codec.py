"""CompressAI's codecs: sizes, padding, and where their weights come from."""

from urllib.error import URLError

import pytest
import torch
from compressai.zoo.image import cfgs, model_architectures, model_urls
from wires import sent_by

from splitrun.errors import SpecError, WeightsNotFoundError
from splitzoo.zoo.bottleneck_specs import NeuralCodecBottleneck
from splitzoo.zoo.bottlenecks import neural_codec

NEURAL = {
    architecture: NeuralCodecBottleneck(architecture=architecture, quality=1, channels=(4, 6))
    for architecture in ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")
}


@pytest.mark.parametrize("architecture", NEURAL)
@pytest.mark.parametrize(("height", "width"), [(128, 64), (65, 100), (30, 64)])
def test_a_neural_codec_gives_an_image_of_the_same_size(architecture, height, width):
    sizes = NEURAL[architecture]
    torch.manual_seed(0)
    encoder, bottleneck, decoder = neural_codec.build(sizes, (height, width))
    bottleneck.eval()
    with torch.no_grad():
        latent = encoder(4 * torch.rand(1, 3, height, width))
        assert sent_by(bottleneck, latent) == sizes.wire(height, width)
        decoded = decoder(bottleneck(latent))
    assert decoded.shape == (1, 3, height, width)
    assert 0 <= decoded.min() < decoded.max() <= 1


def test_an_image_of_another_size_is_refused_by_the_decoder():
    encoder, _, decoder = neural_codec.build(NEURAL["bmshj2018-factorized"], (65, 100))
    with pytest.raises(SpecError, match=r"is \(64, 128\); \(128, 128\) was expected"):
        decoder(encoder(torch.rand(1, 3, 64, 100)))


def test_padding_goes_to_the_right_and_the_bottom():
    image = torch.rand(1, 3, 70, 64)
    padded = neural_codec.Pad()(image)
    assert padded.shape == (1, 3, 128, 64)
    assert torch.equal(padded[..., :70, :], image)
    assert not padded[..., 70:, :].any()
    assert neural_codec.Pad()(padded) is padded


@pytest.mark.parametrize("architecture", NEURAL)
def test_sizes_and_hashes_are_those_of_compressais_weights(architecture):
    for quality in range(1, 9):
        sizes = NeuralCodecBottleneck(architecture=architecture, quality=quality)
        assert sizes.sizes == cfgs[architecture][quality]
        for metric in ("mse", "ms-ssim"):
            assert torch.hub.HASH_REGEX.search(model_urls[architecture][metric][quality])


def old_layout(model):
    """A state dict as CompressAI's first releases wrote it, on several GPUs."""
    spellings = {"biases.": "_bias", "matrices.": "_matrix", "factors.": "_factor"}
    stored = {}
    for name, tensor in model.state_dict().items():
        for new, old in spellings.items():
            name = name.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
        stored[f"module.{name}"] = tensor
    return stored


@pytest.fixture
def published(monkeypatch):
    """What the network would give: a function of the URL, to be replaced."""
    served = {}

    def load(url, *, check_hash, weights_only, **_):
        assert check_hash
        assert weights_only
        found = served[url]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load)
    return served


@pytest.mark.parametrize("architecture", NEURAL)
@pytest.mark.parametrize("with_tables", [True, False])
def test_published_weights_of_the_old_layout_are_read(published, architecture, with_tables):
    model = model_architectures[architecture](4, 6)
    if with_tables:
        model.update(force=True)
    published[model_urls[architecture]["ms-ssim"][3]] = old_layout(model)
    parts = neural_codec.build(NEURAL[architecture], (64, 64))
    neural_codec.load_compressai_weights(parts, architecture, 3, "ms-ssim")
    encoder, bottleneck, decoder = parts
    for part, home in ((encoder.g_a, model.g_a), (decoder.g_s, model.g_s)):
        for name, tensor in home.state_dict().items():
            assert torch.equal(part.state_dict()[name], tensor)
    expected = model.entropy_bottleneck.quantiles
    assert torch.equal(bottleneck.entropy_bottleneck.quantiles, expected)
    model.update(force=True)
    held = bottleneck.entropy_bottleneck.quantized_cdf
    assert torch.equal(held, model.entropy_bottleneck.quantized_cdf)
    bottleneck.entropy_coder()


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (URLError("no route to host"), "cannot be read: <urlopen error no route to host>"),
        (TimeoutError("timed out"), "cannot be read: timed out"),
        (RuntimeError("invalid hash value"), "damaged or of another model: invalid hash"),
        ({"g_a.0.weight": torch.zeros(4, 3, 5, 5)}, "damaged or of another model"),
        (model_architectures["mbt2018"](5, 6).state_dict(), "size mismatch"),
    ],
)
def test_weights_that_cannot_be_had_are_an_error(published, prediction, message):
    published[model_urls["mbt2018"]["mse"][1]] = prediction
    parts = neural_codec.build(NEURAL["mbt2018"], (64, 64))
    with pytest.raises(WeightsNotFoundError, match=message) as caught:
        neural_codec.load_compressai_weights(parts, "mbt2018", 1)
    assert "checkpoints" in caught.value.next_step


def test_weights_that_nobody_trained_are_an_error():
    parts = neural_codec.build(NEURAL["mbt2018"], (64, 64))
    for wanted in (("mbt2018", 9, "mse"), ("mbt2018", 1, "psnr"), ("mbt2019", 1, "mse")):
        with pytest.raises(WeightsNotFoundError, match="CompressAI publishes none"):
            neural_codec.load_compressai_weights(parts, *wanted)
