"""The same weights in sc2-benchmark's own model and in ours, on the same photos."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dense_models import stir_norms
from names_of_models import RESNET

from splitzoo import zoo
from splitzoo.profile.size import sc2bench_encoder_bits

pytest.importorskip("sc2bench", reason="the peer is not installed: see `make test` in the README")

# sc2bench and what it imports use deprecated interfaces of other packages: theirs to fix.
pytestmark = pytest.mark.filterwarnings("ignore")

BOTTLENECK = "bottleneck_layer."
OUR_NAMES = {
    "bottleneck_layer.encoder.": "encoder.",
    "bottleneck_layer.entropy_bottleneck.": "bottleneck.entropy_bottleneck.",
    "bottleneck_layer.decoder.": "decoder.g_s.",
    **{f"{layer}.": f"decoder.tail.{layer}." for layer in ("layer2", "layer3", "layer4", "fc")},
}


def our_name(name):
    (prefix,) = (prefix for prefix in OUR_NAMES if name.startswith(prefix))
    return OUR_NAMES[prefix] + name.removeprefix(prefix)


@pytest.fixture(scope="module")
def images(photos):
    preprocessing = zoo.get_spec(RESNET).preprocessing
    return [torch.from_numpy(preprocessing.load(path)) for path in photos[:4]]


@pytest.fixture(scope="module")
def peer(images):
    """sc2bench's model with weights that leave no part of the computation idle."""
    from sc2bench.models.backbone import splittable_resnet

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = splittable_resnet(
            {
                "key": "FPBasedResNetBottleneck",
                "kwargs": {"num_bottleneck_channels": 24, "num_target_channels": 256},
            },
            resnet_name="resnet50",
            skips_avgpool=False,
            skips_fc=False,
        )
        stir_norms(model)
        bottleneck = model.bottleneck_layer
        medians = bottleneck.entropy_bottleneck.quantiles[:, 0, 1]
        medians.uniform_(-0.45, 0.45)
        # The tables reach from -10 to 10: with this spread some symbols lie outside.
        spread = torch.cat([bottleneck.encoder(image) for image in images]).std()
        bottleneck.encoder[4].weight *= 6 / spread
    model.eval()
    model.update()
    return model


@pytest.fixture(scope="module")
def ours(peer):
    model = zoo.load(RESNET, pretrained=False)
    weights = {our_name(name): tensor for name, tensor in peer.state_dict().items()}
    assert weights.keys() == model.state_dict().keys()
    model.load_state_dict(weights)
    return model.eval()


@pytest.fixture(scope="module")
@torch.no_grad()
def comparisons(peer, ours, images):
    """Each image on both sides, up to the decoders."""
    bottleneck, compared = peer.bottleneck_layer, []
    coder = bottleneck.entropy_bottleneck
    for image in images:
        latent = bottleneck.encoder(image)
        means = bottleneck._get_means(latent)
        (string,) = coder.compress(latent)
        (symbols,) = ours.wire_tensors(image)
        compared.append(
            SimpleNamespace(
                image=image,
                peer_symbols=coder.quantize(latent, "symbols", means).numpy(),
                peer_string=string,
                peer_dequantised=coder.decompress([string], latent.shape[2:]),
                symbols=symbols,
                stream=ours.codec.compress(symbols[0]),
            )
        )
    return compared


def test_the_comparison_covers_ordinary_symbols_and_escapes(ours, comparisons):
    symbols = np.concatenate([compared.symbols for compared in comparisons])
    tables = ours.codec.coder.tables
    first = tables.offset.reshape(1, -1, 1, 1)
    escaped = (symbols < first) | (symbols >= first + tables.length.reshape(1, -1, 1, 1) - 2)
    assert 0.01 < escaped.mean() < 0.5
    assert np.unique(symbols).size > 20
    assert np.unique(tables.offset).size > 1


def test_symbols_and_what_is_decoded_from_them_are_equal_to_the_last_one(ours, comparisons):
    for compared in comparisons:
        np.testing.assert_array_equal(compared.symbols, compared.peer_symbols, strict=True)
        (symbols,) = ours.codec.decompress(compared.stream)
        np.testing.assert_array_equal(symbols[None], compared.peer_symbols, strict=True)
        dequantised = ours.bottleneck.from_wire(torch.from_numpy(symbols[None]))
        assert torch.equal(dequantised, compared.peer_dequantised)
        payload, *_ = ours.codec.unframe(compared.stream)
        assert len(payload) <= len(compared.peer_string) + 16


@torch.no_grad()
def test_logits_and_encoder_bits_are_the_peers(peer, ours, comparisons):
    from sc2bench.analysis import analyze_model_size

    for compared in comparisons:
        expected, logits = peer(compared.image), ours.decompress([compared.stream])
        assert expected.shape == logits.shape == (1, 1000)
        assert expected.std() > 0.1
        # The same layers on the same symbols: only the order of float32 additions may differ,
        # which through fifty layers stays far below 1e-4 of the largest logit.
        assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()
    parts = [BOTTLENECK + "encoder", BOTTLENECK + "entropy_bottleneck"]
    assert sc2bench_encoder_bits(ours) == analyze_model_size(peer, encoder_paths=parts)["encoder"]
