"""Operations are those counted by hand, by PyTorch's own counter and by fvcore."""

import logging
import math
from collections.abc import Callable

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from small_models import without_network
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d

from splitzoo import zoo
from splitzoo.profile.flops import count_edge_flops, count_flops
from splitzoo.profile.operators import counting
from splitzoo.profile.report import Compute
from splitzoo.zoo.split_model import SplitModel

logging.getLogger("fvcore").setLevel(logging.ERROR)


# Operators


def of(*sizes: int) -> torch.Tensor:
    return torch.zeros(sizes)


TOKENS = of(2, 7, 8)
HEADS = of(2, 4, 7, 8)
FEWER_HEADS = of(2, 2, 9, 8)
ATTENTION = nn.MultiheadAttention(8, 2, batch_first=True).eval()
ENCODER = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
SCRIPTED = torch.jit.script(nn.Sequential(nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 3)).eval())
_ATTENTION_MACS = 2 * (7 * 8 * 24 + 2 * 7 * 7 * 8 + 7 * 8 * 8)

BY_HAND: dict[str, tuple[nn.Module | Callable, tuple, int]] = {
    "linear": (nn.Linear(8, 5), (TOKENS,), 14 * 8 * 5),
    "matmul": (torch.matmul, (TOKENS, of(8, 5)), 14 * 8 * 5),
    "vectors": (torch.matmul, (of(4), of(4)), 4),
    "matrix and vector": (torch.matmul, (of(3, 4), of(4)), 3 * 4),
    "addmv": (torch.addmv, (of(3), of(3, 4), of(4)), 3 * 4),
    "addmm": (torch.addmm, (of(3, 5), of(3, 4), of(4, 5)), 3 * 4 * 5),
    "bmm": (torch.bmm, (of(2, 3, 4), of(2, 4, 5)), 2 * 3 * 4 * 5),
    "baddbmm": (torch.baddbmm, (of(2, 3, 5), of(2, 3, 4), of(2, 4, 5)), 2 * 3 * 4 * 5),
    "addbmm": (torch.addbmm, (of(3, 5), of(2, 3, 4), of(2, 4, 5)), 2 * 3 * 4 * 5),
    "einsum": (torch.einsum, ("bhid,bhjd->bhij", HEADS, HEADS), 2 * 4 * 7 * 7 * 8),
    "tensordot": (torch.tensordot, (of(2, 3, 4), of(3, 4, 5), 2), 2 * 12 * 5),
    "multi_dot": (torch.linalg.multi_dot, ([of(3, 4), of(4, 5), of(5, 6)],), 60 + 90),
    "bilinear": (nn.Bilinear(8, 6, 3), (of(2, 7, 8), of(2, 7, 6)), 14 * (3 * 8 * 6 + 3 * 6)),
    "cdist": (torch.cdist, (of(2, 4, 8), of(2, 5, 8)), 2 * 4 * 5 * 8),
    "cdist by products": (torch.cdist, (of(2, 40, 8), of(2, 50, 8)), 2 * 40 * 50 * 8),
    "pdist": (torch.pdist, (of(5, 8),), 10 * 8),
    "conv1d": (nn.Conv1d(8, 6, 3, padding=1, groups=2), (of(2, 8, 9),), 2 * 9 * 6 * 4 * 3),
    "conv2d": (nn.Conv2d(8, 6, 3, stride=2), (of(1, 8, 9, 9),), 16 * 6 * 8 * 9),
    "conv2d, same": (nn.Conv2d(8, 6, 3, padding="same"), (of(1, 8, 9, 9),), 81 * 6 * 8 * 9),
    "conv2d, depthwise": (nn.Conv2d(8, 8, 3, groups=8), (of(1, 8, 6, 6),), 16 * 8 * 9),
    "conv3d": (nn.Conv3d(4, 6, 3), (of(1, 4, 5, 5, 5),), 27 * 6 * 4 * 27),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (of(1, 4, 5, 5),), 25 * 4 * 6 * 9),
    "transposed, grouped": (
        *(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (of(1, 4, 5, 5),)),
        25 * 4 * 3 * 9,
    ),
    "transposed, 1d": (nn.ConvTranspose1d(4, 6, 3), (of(1, 4, 5),), 5 * 4 * 6 * 3),
    "deformable": (
        *(deform_conv2d, (of(1, 4, 6, 6), of(1, 18, 4, 4), of(5, 4, 3, 3))),
        16 * 5 * 4 * 9,
    ),
    "lstm": (nn.LSTM(8, 5), (TOKENS,), 14 * 4 * 5 * (8 + 5)),
    "lstm, two ways, two layers": (
        *(nn.LSTM(8, 5, 2, bidirectional=True), (TOKENS,)),
        14 * 4 * 5 * (2 * (8 + 5) + 2 * (10 + 5)),
    ),
    "lstm, projected": (
        *(nn.LSTM(8, 5, proj_size=3), (TOKENS,)),
        14 * (4 * 5 * (8 + 3) + 5 * 3),
    ),
    "lstm cell": (nn.LSTMCell(8, 5), (of(2, 8),), 2 * 4 * 5 * (8 + 5)),
    "gru": (nn.GRU(8, 5), (TOKENS,), 14 * 3 * 5 * (8 + 5)),
    "rnn": (nn.RNN(8, 5), (TOKENS,), 14 * 5 * (8 + 5)),
    "attention": (
        *(functional.scaled_dot_product_attention, (HEADS, HEADS, HEADS)),
        2 * 4 * 2 * 7 * 7 * 8,
    ),
    "attention of fewer heads": (
        lambda q, k: functional.scaled_dot_product_attention(q, k, k, enable_gqa=True),
        (HEADS, FEWER_HEADS),
        2 * 4 * 2 * 7 * 9 * 8,
    ),
    "multi-head attention": (ATTENTION, (TOKENS,) * 3, _ATTENTION_MACS),
    "multi-head attention, no weights": (
        lambda x: ATTENTION(x, x, x, need_weights=False),
        (TOKENS,),
        _ATTENTION_MACS,
    ),
    "transformer": (ENCODER, (TOKENS,), 2 * (_ATTENTION_MACS + 14 * 2 * 8 * 16)),
    "script": (SCRIPTED, (TOKENS,), 14 * (8 * 5 + 5 * 3)),
}


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", BY_HAND)
def test_macs_are_those_counted_by_hand(name) -> None:
    run, arguments, macs = BY_HAND[name]
    with counting() as counter:
        run(*arguments)
    assert counter.macs.total() == macs
    assert sum(counter.flops[operator] for operator in counter.macs) == 2 * macs
    assert counter.uncounted == {}


def test_fast_paths_are_left_as_they_were() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError), counting():
        assert 1 / 0
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize(
    ("run", "flops"),
    [
        (lambda: nn.Conv2d(3, 4, 1)(of(1, 3, 5, 5)), {"convolution": 600, "bias": 100}),
        (lambda: functional.gelu(of(3, 4)), {"gelu": 12}),
        (lambda: of(3, 4).add_(1).relu_(), {"add": 12, "relu": 12}),
        (lambda: of(3, 4).sum(1), {"sum": 12}),
        (lambda: of(3, 4).softmax(1), {"softmax": 60}),
        (lambda: nn.LayerNorm(4)(of(3, 4)), {"native_layer_norm": 60}),
        (lambda: nn.BatchNorm2d(4).eval()(of(1, 4, 2, 2)), {"native_batch_norm": 32}),
        (lambda: nn.AdaptiveAvgPool2d(2)(of(1, 4, 6, 6)), {"adaptive_avg_pool2d": 144}),
        (lambda: nn.Upsample(scale_factor=2, mode="bilinear")(of(1, 1, 2, 2)), 4 * 16),
        (lambda: of(3, 4).T.reshape(2, 6)[:, 1].clone(), {}),
        (lambda: of(3, 4).sort(), {}),
    ],
)
def test_other_operations_follow_the_rules_that_are_documented(run, flops) -> None:
    with counting() as counter:
        run()
    expected = flops if isinstance(flops, dict) else {"upsample_bilinear2d": flops}
    assert {name: count for name, count in counter.flops.items() if count} == expected


# Networks

CUTS = [
    ("edgenext_xx_small", "stages.2"),
    ("pvt_v2_b0", "stages.1"),
    ("mobilevit_xxs", "stages.3"),
    ("mobilenetv4_conv_small", "blocks.2"),
    ("efficientvit_b0", "stages.2"),
    ("regnety_002", "s2"),
    *(
        pytest.param(*cut, marks=pytest.mark.slow)
        for cut in (
            ("swin_tiny_patch4_window7_224", "layers.0"),
            ("swin_tiny_patch4_window7_224", "layers.2"),
            ("mobilevitv2_050", "stages.3"),
            ("tiny_vit_5m_224", "stages.1"),
            ("maxvit_nano_rw_256", "stages.1"),
            ("gcvit_xxtiny", "stages.1"),
            ("davit_tiny", "stages.2"),
            ("nest_tiny", "levels.1"),
            ("coatnet_nano_rw_224", "stages.2"),
            ("botnet26t_256", "stages.2"),
            ("halonet26t", "stages.2"),
            ("poolformer_s12", "stages.1"),
            ("convnext_atto", "stages.2"),
            ("focalnet_tiny_srf", "layers.1"),
        )
    ),
]
_PRODUCTS = ("conv", "linear", "matmul", "bmm", "mm", "addmm", "einsum")


def macs_by_torch(module: nn.Module, *inputs: torch.Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(*inputs)
    return counter.get_total_flops() // 2


def macs_by_fvcore(module: nn.Module, image: torch.Tensor) -> int:
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False  # fvcore has no rule for attention in one operator
    counts = FlopCountAnalysis(module, image).by_operator()
    return round(sum(counts[name] for name in _PRODUCTS))


@pytest.mark.parametrize(("backbone", "cut"), CUTS)
def test_both_halves_have_the_macs_that_others_count(backbone, cut) -> None:
    model = zoo.build(f"{backbone}-eb_after_{cut}-beta1").eval().requires_grad_(False)
    device, edge = count_flops(model), count_edge_flops(model)
    image = torch.zeros(1, *model.spec.input_shape)
    latent = torch.zeros(1, *model.spec.latent_shape)
    assert device.macs == macs_by_torch(model.encoder, image)
    assert edge.macs == macs_by_torch(model.decoder, latent)
    assert device.macs == macs_by_fvcore(model.encoder, image)
    assert device.uncounted == edge.uncounted == {}
    assert device.complete
    assert edge.complete


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("swin_tiny_patch4_window7_224-eb_after_layers.1-beta1", 1_548_029_952),
        ("edgenext_xx_small-eb_after_stages.2-beta1", 215_979_008),
        ("pvt_v2_b0-eb_after_stages.1-beta1", 325_441_536),
        ("mobilevit_xxs-eb_after_stages.3-beta1", 375_791_616),
    ],
)
def test_attention_and_linear_layers_are_counted(name, macs) -> None:
    assert count_flops(zoo.build(name)).macs == macs


@pytest.mark.parametrize(
    "name",
    ["mixer_s32_224", "vit_tiny_patch16_224", "resmlp_12_224", "levit_128s", "cait_xxs24_224"],
)
def test_networks_of_tokens_have_the_macs_that_torch_counts(name) -> None:
    network = timm.create_model(name).eval().requires_grad_(False)
    image = torch.zeros(1, 3, 224, 224)
    with counting() as counter:
        network(image)
    assert counter.macs.total() == macs_by_torch(network, image)
    assert counter.uncounted == {}


def test_recurrent_networks_are_counted_where_torch_does_not() -> None:
    network = timm.create_model("sequencer2d_s").eval().requires_grad_(False)
    image = torch.zeros(1, 3, 224, 224)
    recurrent = []

    def count(layer: nn.LSTM, inputs, _output) -> None:
        weights = sum(p.numel() for name, p in layer.named_parameters() if "weight" in name)
        recurrent.append(math.prod(inputs[0].shape[:2]) * weights)

    layers = [module for module in network.modules() if isinstance(module, nn.LSTM)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    others = macs_by_torch(network, image)
    for hook in hooks:
        hook.remove()
    with counting() as counter:
        network(image)
    assert len(recurrent) == len(layers) > 0
    assert counter.macs.total() == others + sum(recurrent)


# Models of the zoo


def by_operator(compute: Compute) -> dict[str, tuple[int, int]]:
    return {one.operator: (one.macs, one.flops) for one in compute.operators}


def test_operations_are_those_counted_by_hand(model) -> None:
    """Output pixels × output channels × kernel area × input channels, layer after layer."""
    convolutions = {
        "g_a.0": 112 * 112 * 96 * (5 * 5 * 3),
        "gdn.1": 112 * 112 * 96 * (1 * 1 * 96),
        "g_a.2": 56 * 56 * 48 * (5 * 5 * 96),
        "gdn.3": 56 * 56 * 48 * (1 * 1 * 48),
        "g_a.4": 55 * 55 * 24 * (2 * 2 * 48),
    }
    macs = sum(convolutions.values())
    assert macs == 588_354_048
    normalised = 112 * 112 * 96 + 56 * 56 * 48
    symbols = 55 * 55 * 24

    compute = count_flops(model)
    assert compute.input_shape == (1, 3, 224, 224)
    assert by_operator(compute) == {
        "convolution": (macs, 2 * macs),
        "abs": (0, normalised),
        "bias": (0, normalised),
        "div": (0, normalised),
        "sub": (0, symbols),
        "round": (0, symbols),
    }
    assert compute.macs == macs
    assert compute.flops == 2 * macs + 3 * normalised + 2 * symbols
    assert compute.uncounted == {}


def test_the_edge_is_counted_by_hand(model) -> None:
    """g_s of the default bottleneck, then ResNet-50 after layer1."""
    g_s = {
        "g_s.0": 56 * 56 * 512 * (2 * 2 * 24),
        "igdn.1": 56 * 56 * 512 * 512,
        "g_s.2": 55 * 55 * 256 * (2 * 2 * 512),
        "igdn.3": 55 * 55 * 256 * 256,
        "g_s.4": 56 * 56 * 256 * (2 * 2 * 256),
    }
    assert sum(g_s.values()) == 3_582_525_440
    rest = 4_089_184_256 - 785_956_864  # ResNet-50 at 224×224 (torchvision: 4.09 GMACs), its begin
    assert count_edge_flops(model).macs == sum(g_s.values()) + rest


def test_a_context_network_is_counted_at_each_position() -> None:
    name = "resnet50-joint_autoregressive_hierarchical_prior-q8"
    model = without_network(name, quality=1, channels=(6, 8))
    _, height, width = model.spec.latent_shape
    compute = count_flops(model)
    counted = []
    for layer in model.bottleneck.entropy_parameters[::2]:
        layer.register_forward_hook(
            lambda layer, _, out: counted.append(layer.weight.numel() * out[0, 0].numel())
        )
    model.bottleneck.entropy_parameters(torch.zeros(1, 4 * 8, height, width))
    taps = int(model.bottleneck.context_prediction.mask.sum())
    assert (len(counted), taps) == (3, 2 * 8 * 8 * 12)
    expected = taps * height * width + sum(counted)
    found = by_operator(compute)
    assert found["context network"] == (expected, 2 * expected)
    # h_s of N = 6, M = 8: 2 deconvolutions that double the sides, and a convolution to 2M.
    places = height * width
    hyper = 6 * 8 * 25 * places // 16 + 8 * 12 * 25 * places // 4 + 12 * 16 * 9 * places
    assert found["hyper-decoder in integers"] == (hyper, 2 * hyper)
    assert compute.macs == found["convolution"][0] + expected + hyper
    assert compute.uncounted == {}


def test_a_hyperprior_is_counted_on_both_sides() -> None:
    """The edge runs h_s again: what the device counts for it, the edge counts too."""
    with_hyperprior = zoo.build("splittable_resnet50-mshp-beta0.16")
    plain = zoo.build("splittable_resnet50-fp-beta0.08")
    z, y = with_hyperprior.spec.wire[1].shape, with_hyperprior.spec.wire[0].shape
    h_s = macs_by_torch(with_hyperprior.hyperprior.h_s, torch.zeros(1, *z))
    h_a = macs_by_torch(with_hyperprior.hyperprior.h_a, torch.zeros(1, *y))
    device = count_flops(with_hyperprior).macs - count_flops(plain).macs
    edge = count_edge_flops(with_hyperprior).macs - count_edge_flops(plain).macs
    assert (device, edge) == (h_a + h_s, h_s)


def test_pooling_is_counted_by_the_elements_that_it_looks_at(tiny_model) -> None:
    _, height, width = tiny_model.spec.input_shape
    pooling = nn.MaxPool2d(3, stride=2, padding=1), nn.AvgPool2d((2, 4)), nn.AdaptiveAvgPool2d(1)
    encoder = nn.Sequential(*pooling, nn.ZeroPad2d((0, width - 1, 0, height - 1)))
    encoder.extend(tiny_model.encoder)
    model = SplitModel(tiny_model.spec, encoder, tiny_model.bottleneck, tiny_model.decoder).eval()
    found = {one.operator: one.flops for one in count_flops(model).operators}
    of_max = 3 * (height // 2) * (width // 2)
    of_average = 3 * (height // 4) * (width // 8)
    assert found["max_pool2d_with_indices"] == of_max * 9
    assert found["avg_pool2d"] == of_average * 8
    assert found["mean"] == of_average


@pytest.mark.parametrize(
    "name",
    [
        "resnet50-eb_after_layer2-beta1.0e-15",
        "resnet50-eb_after_avgpool-beta1.0e-15",
        "splittable_resnet50-bq3ch",
        "splittable_densenet169-bq12ch_v0.1.1",
        "splittable_inception_v3-bq12ch_v0.1.1",
        "resnet50-layer1-jpeg-q90",
        "resnet50-jpeg-q90",
        "splittable_resnet50-mshp-beta0.16",
    ],
)
def test_no_operator_of_the_zoo_is_left_out(name) -> None:
    assert count_flops(without_network(name)).uncounted == {}


class Odd(nn.Module):
    """The Fourier transform, which has no rule."""

    def forward(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x), x.shape[-2:])


def test_a_count_with_an_operator_left_out_never_looks_complete(tiny_model) -> None:
    encoder = nn.Sequential(*tiny_model.encoder, Odd(), Odd())
    model = SplitModel(tiny_model.spec, encoder, tiny_model.bottleneck, tiny_model.decoder).eval()
    compute, whole = count_flops(model), count_flops(tiny_model)
    assert compute.uncounted == {"aten::_fft_r2c": 2, "aten::_fft_c2r": 2}
    assert (compute.macs, compute.complete, whole.complete) == (whole.macs, False, True)
    assert compute.said() == f"at least {whole.macs:,}"
    assert compute.left_out() == "aten::_fft_r2c ×2, aten::_fft_c2r ×2"
    with pytest.raises(ValueError, match="complete where no operator is left uncounted"):
        Compute(**(compute.model_dump() | {"complete": True}))


@pytest.mark.slow
def test_a_detector_is_counted_with_all_boxes_that_its_second_stage_takes() -> None:
    model = zoo.build("faster_rcnn_splittable_resnet50-fp-beta0.08")
    compute = count_edge_flops(model)
    heads = by_operator(compute)["addmm"][0]
    # TwoMLPHead of 256·7·7 → 1024 → 1024, then 91 classes and their boxes, for 1,000 proposals.
    assert heads == 1000 * (256 * 49 * 1024 + 1024 * 1024 + 1024 * 5 * 91)
    assert compute.uncounted == {}
