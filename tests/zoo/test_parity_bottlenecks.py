"""The same weights in the reference's bottlenecks and in ours: sc2bench and CompressAI."""

import pytest
import sc2bench_003
import torch
from dense_models import stir_norms
from names_of_models import RESNET
from torch import nn

from splitzoo import zoo
from splitzoo.zoo.bottleneck_specs import HyperpriorBottleneck, NeuralCodecBottleneck
from splitzoo.zoo.bottlenecks import channel_reduction, neural_codec
from splitzoo.zoo.bottlenecks.entropic_hyperprior import entropic_hyperprior
from splitzoo.zoo.bottlenecks.factorized_prior import analysis, synthesis
from splitzoo.zoo.bottlenecks.initialisation import init_scales, init_unit_variance
from splitzoo.zoo.bottlenecks.quantiser import UniformQuantiser

pytest.importorskip("sc2bench", reason="the peer is not installed: see `make test` in the README")

# The peers and what they import use deprecated interfaces of other packages: theirs to fix.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def image(photos):
    """The middle of a photo: the reference's coder is slow."""
    preprocessing = zoo.get_spec(RESNET).preprocessing
    return torch.from_numpy(preprocessing.load(photos[0]))[..., 48:176, 48:176]


def assert_close(ours, theirs):
    """Within 1e-4 of the largest element: only the order of float32 additions may differ."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def assert_same_indexes(ours, scales, gaussian):
    """Equal, but for scales within a millionth of a boundary: there either side will do."""
    theirs = gaussian.build_indexes(scales)
    differ = ours != theirs
    distance = (scales[differ][:, None] / gaussian.scale_table - 1).abs()
    assert differ.sum() <= 3
    assert (distance.amin(1) < 1e-6).all()
    assert (ours - theirs).abs().max() <= 1
    assert theirs.unique().numel() > 4


def sc2bench_bits(module):
    from sc2bench.analysis import analyze_model_size

    return analyze_model_size(module)["model"]


# The hyperpriors of Entropic Student, sc2bench 0.1.1


CLASSES = {
    "scale-hyperprior": "SHPBasedResNetBottleneck",
    "mean-scale-hyperprior": "MSHPBasedResNetBottleneck",
}


@pytest.fixture(scope="module", params=CLASSES)
def hyperpriors(request):
    """sc2bench's bottleneck, and ours with its weights: encoder, bottleneck, decoder."""
    from sc2bench.models.layer import get_layer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        peer = get_layer(CLASSES[request.param])
        for name in ("g_a", "g_s", "h_a", "h_s"):
            init_unit_variance(getattr(peer, name))
        init_scales(peer.h_s, 24)
        peer.g_a[4].weight.data *= 3
        peer.entropy_bottleneck.quantiles.data[:, 0, 1].uniform_(-0.45, 0.45)
    peer.eval()
    peer.update()
    sizes = HyperpriorBottleneck(
        kind=request.param,
        encoder_channels=(96, 48, 24),
        decoder_channels=(512, 256, 256),
        float_hyperprior=True,
    )
    ours = nn.ModuleDict(
        {"g_a": analysis(sizes), "bottleneck": entropic_hyperprior(sizes), "g_s": synthesis(sizes)}
    )
    ours.load_state_dict(
        {
            name if name.startswith(("g_a.", "g_s.")) else f"bottleneck.{name}": tensor
            for name, tensor in peer.state_dict().items()
        }
    )
    return peer, ours.eval()


@torch.no_grad()
def test_hyperprior_equals_sc2bench(hyperpriors, image):
    peer, ours = hyperpriors
    coder = ours["bottleneck"].entropy_coder()
    with_means = "means" in ours["bottleneck"].edge_inputs
    encoded = peer.encode(image)
    y_strings, z_strings = encoded["strings"]
    z_hat = peer.entropy_bottleneck.decompress(z_strings, encoded["shape"])
    parameters = peer.h_s(z_hat)
    scales, means = parameters.chunk(2, 1) if with_means else (parameters, None)

    latent = ours["g_a"](image)
    symbols, hyper_symbols, indexes = ours["bottleneck"].to_wire(latent)
    expected = peer.gaussian_conditional.quantize(peer.g_a(image), "symbols", means)
    assert torch.equal(symbols, expected)
    assert torch.equal(hyper_symbols + ours["bottleneck"].medians, z_hat)
    assert_same_indexes(indexes, scales, peer.gaussian_conditional)
    assert symbols.unique().numel() > 10

    sent = [tensor[0].numpy() for tensor in (symbols, hyper_symbols, indexes)]
    payload = coder.encode(*sent)
    # Beside the strings, sc2bench sends the shape, and pickles it all.
    assert len(payload) <= len(y_strings[0]) + len(z_strings[0])
    received = coder.decode(payload, *coder.shape(*sent), hyper_of(ours["bottleneck"]))
    batch = (torch.from_numpy(tensor)[None] for tensor in received)
    latent_hat = ours["bottleneck"].from_wire(*batch)
    expected = peer.decode(**encoded)
    assert_close(ours["g_s"](latent_hat), expected)
    assert_close(ours["g_s"](ours["bottleneck"](latent)), expected)
    # The tables are those that ours would make of the densities.
    ours["bottleneck"].update()
    assert ours["bottleneck"].entropy_coder().digest() == coder.digest()


def hyper_of(bottleneck):
    def hyper(hyper_symbols):
        batch = torch.from_numpy(hyper_symbols)[None]
        return tuple(tensor[0].numpy() for tensor in bottleneck.hyper_decode(batch))

    return hyper


@torch.no_grad()
def test_hyperprior_estimates_the_rate_and_has_the_bits_that_sc2bench_counts(hyperpriors, image):
    from sc2bench.analysis import analyze_model_size

    peer, ours = hyperpriors
    found = []
    for model in (peer.gaussian_conditional, peer.entropy_bottleneck):
        model.register_forward_hook(lambda *given: found.append(given[2][1]))
    peer._forward2train(image)
    of_z, of_y = found
    for tensor, expected in zip(
        ours["bottleneck"].likelihoods(ours["g_a"](image)), (of_y, of_z), strict=True
    ):
        assert_close(tensor, expected)
    parts = ["g_a", "h_a", "h_s", "entropy_bottleneck", "gaussian_conditional"]
    expected = analyze_model_size(peer, encoder_paths=parts)["encoder"]
    assert sc2bench_bits(ours["g_a"]) + sc2bench_bits(ours["bottleneck"]) == expected


# Channel reduction, sc2bench 0.1.1 and 0.0.3


@torch.no_grad()
def assert_same_reduction(encoder, decoder, image, theirs):
    """Compare with the reference's z, quantised z, its scale and zero point, and output."""
    channels = theirs["z"].shape[1]
    quantiser = UniformQuantiser(channels).eval()
    latent = encoder(image)
    assert_close(latent, theirs["z"])
    # What is quantised is the reference's: a last bit may decide how a value is rounded.
    values, scale, zero_point = quantiser.to_wire(theirs["z"])
    assert torch.equal(values, theirs["values"])
    assert torch.equal(scale.flatten(), theirs["scale"].flatten())
    assert zero_point.item() == theirs["zero_point"].item()
    assert 0 < zero_point < 255
    assert values.unique().numel() > 50
    assert_close(decoder(quantiser.from_wire(values, scale, zero_point)), theirs["output"])
    sent = [one[0].numpy() for one in (values, scale, zero_point)]
    assert len(quantiser.entropy_coder().encode(*sent)) == theirs["values"].numel() + 4 + 1


@pytest.mark.parametrize(
    ("network", "function"),
    [
        ("resnet-20", "larger_resnet_bottleneck"),
        ("densenet", "larger_densenet_bottleneck"),
        ("inception", "inception_v3_bottleneck"),
    ],
)
@torch.no_grad()
def test_channel_reduction_equals_sc2bench_011(network, function, image):
    from sc2bench.models.layer import get_layer
    from torchdistill.common.tensor_util import dequantize_tensor, quantize_tensor

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        peer = get_layer(
            function,
            bottleneck_channel=3,
            compressor_transform=quantize_tensor,
            decompressor_transform=dequantize_tensor,
        )
        stir_norms(peer, most=1.5, spread=0.3)
    peer.eval()
    encoder, decoder = (part.eval() for part in channel_reduction.layers(network, 3))
    encoder.load_state_dict(peer.encoder.state_dict())
    decoder.load_state_dict(peer.decoder.state_dict())
    quantised = peer.encode(image)["z"]
    theirs = {
        "z": peer.encoder(image),
        "values": quantised.tensor,
        "scale": quantised.scale,
        "zero_point": torch.tensor(quantised.zero_point),
        "output": peer(image),
    }
    assert_same_reduction(encoder, decoder, image, theirs)
    assert sc2bench_bits(encoder) == sc2bench_bits(peer.encoder)


OLD_REDUCTION = """
from sc2bench.models.layer import larger_resnet_bottleneck
import sc2bench.transforms.misc

torch.manual_seed(0)
for channels in (1, 12):
    peer = larger_resnet_bottleneck(
        bottleneck_channel=channels,
        compressor_transform_params=[{"type": "SimpleQuantizer", "params": {"num_bits": 8}}],
        decompressor_transform_params=[{"type": "SimpleDequantizer", "params": {"num_bits": 8}}],
    )
    for layer in peer.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.normal_(0, 0.3)
    peer.eval()
    with torch.no_grad():
        quantised = peer.encode(given["image"])["z"]
        parts = {
            "z": peer.encoder(given["image"]),
            "values": quantised.tensor,
            "scale": quantised.scale,
            "zero_point": torch.tensor(quantised.zero_point),
            "output": peer(given["image"]),
            **{f"weights.{name}": tensor for name, tensor in peer.state_dict().items()},
        }
    answer.update({f"{channels}.{name}": tensor for name, tensor in parts.items()})
"""


@pytest.fixture(scope="module")
def old_reduction(image, tmp_path_factory):
    exchange = tmp_path_factory.mktemp("sc2bench-0.0.3")
    return sc2bench_003.run(OLD_REDUCTION, exchange, {"image": image})


@pytest.mark.parametrize("channels", [1, 12])
def test_channel_reduction_equals_sc2bench_003(channels, old_reduction, image):
    theirs = below(f"{channels}.", old_reduction)
    weights = below("weights.", theirs)
    encoder, decoder = (part.eval() for part in channel_reduction.layers("resnet-24", channels))
    for part, name in ((encoder, "encoder."), (decoder, "decoder.")):
        part.load_state_dict(below(name, weights))
    assert theirs["values"].shape[1:] == (channels, 36, 36)
    assert_same_reduction(encoder, decoder, image, theirs)
    # sc2bench counts the state dict of ``bottleneck_layer.encoder``.
    bits = sum(8 * one.element_size() * one.numel() for one in below("encoder.", weights).values())
    assert sc2bench_bits(encoder) == bits


def below(prefix, tensors):
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


# The codecs of CompressAI


ARCHITECTURES = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def codecs(request):
    """CompressAI's model, and our parts with its weights."""
    in_floats = request.param != "bmshj2018-factorized"
    sizes = NeuralCodecBottleneck(
        architecture=request.param, quality=1, channels=(32, 48), float_hyperprior=in_floats
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        peer = neural_codec.compressai_model(sizes)
        peer.g_a[-1].weight.data *= 6
        peer.g_s[-1].weight.data *= 0.2
        peer.entropy_bottleneck.quantiles.data[:, 0, 1].uniform_(-0.45, 0.45)
    peer.eval()
    peer.update()
    parts = neural_codec.build(sizes, (64, 64))
    neural_codec.copy_weights(parts, peer)
    return peer, tuple(part.eval() for part in parts)


@pytest.fixture(scope="module")
def small_image(image):
    """Back into [0, 1], and small."""
    image = image[..., 32:96, 32:96]
    return (image - image.amin()) / (image.amax() - image.amin())


@torch.no_grad()
def test_a_neural_codec_equals_compressai(codecs, small_image):
    peer, (encoder, bottleneck, decoder) = codecs
    latents = []
    hook = peer.g_s.register_forward_pre_hook(lambda _, given: latents.append(given[0]))
    compressed = peer.compress(small_image)
    expected = peer.decompress(**compressed)["x_hat"]
    hook.remove()
    tensors = bottleneck.to_wire(encoder(small_image))
    coder = bottleneck.entropy_coder()
    image = [tensor[0].numpy() for tensor in tensors]
    payload = coder.encode(*image)
    hyper = hyper_of(bottleneck) if bottleneck.hyper_outputs else None
    received = coder.decode(payload, *coder.shape(*image), hyper)
    latent_hat = bottleneck.from_wire(*(torch.from_numpy(tensor)[None] for tensor in received))
    # y_hat is symbols and means: equal but for rounding, so are the symbols.
    assert (latent_hat - latents[0]).abs().max() < 1e-4
    assert torch.round(latent_hat).unique().numel() > 5
    assert_close(decoder(latent_hat), expected)
    assert_close(decoder(bottleneck(encoder(small_image))), expected)
    assert expected.std() > 0.05
    assert len(payload) <= sum(len(of_images[0]) for of_images in compressed["strings"])

    sent = dict(zip(bottleneck.wire_names, tensors, strict=True))
    y = peer.g_a(small_image)
    if "hyper_symbols" not in sent:
        assert torch.equal(sent["symbols"] + bottleneck.medians, peer.entropy_bottleneck(y)[0])
        return
    z = peer.h_a(y.abs() if bottleneck.edge_inputs == ("symbols",) else y)
    (string,) = peer.entropy_bottleneck.compress(z)
    z_hat = peer.entropy_bottleneck.decompress([string], z.shape[2:])
    assert torch.equal(sent["hyper_symbols"] + bottleneck.medians, z_hat)
    parameters = peer.h_s(z_hat)
    if "params" in sent:
        assert torch.equal(sent["latent"], y)
        assert torch.equal(sent["params"], parameters)
        return
    with_means = "means" in bottleneck.edge_inputs
    scales, means = parameters.chunk(2, 1) if with_means else (parameters, None)
    assert torch.equal(sent["symbols"], peer.gaussian_conditional.quantize(y, "symbols", means))
    assert_same_indexes(sent["indexes"], scales, peer.gaussian_conditional)


@torch.no_grad()
def test_a_neural_codec_estimates_the_rate_and_trains_as_compressai_does(codecs, small_image):
    peer, (encoder, bottleneck, decoder) = codecs
    expected = peer(small_image)["likelihoods"]
    likelihoods = bottleneck.likelihoods(encoder(small_image))
    assert len(likelihoods) == len(expected)
    if "params" in bottleneck.wire_names:
        # mbt2018's forward rounds y to integers, its compress to the means, which we do always.
        assert_close(likelihoods[1], expected["z"])
        return
    for tensor, name in zip(likelihoods, expected, strict=True):
        assert_close(tensor, expected[name])
    peer.train()
    bottleneck.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = peer(small_image)["x_hat"]
        torch.manual_seed(1)
        ours = decoder.g_s(bottleneck(encoder(small_image)))
    peer.eval()
    bottleneck.eval()
    assert_close(ours, expected)
