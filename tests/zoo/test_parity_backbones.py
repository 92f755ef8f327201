"""The same weights in sc2bench's backbones after their bottleneck and in ours after the cut."""

import pytest
import torch
import torchvision
from dense_models import stir_norms
from torch import nn

from splitzoo.zoo.backbones import build, table

pytest.importorskip("sc2bench", reason="the peer is not installed: see `make test` in the README")

# sc2bench and what it imports use deprecated interfaces of other packages: theirs to fix.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@torch.no_grad()
def assert_equal(peer, tail, features):
    """Compare the outputs for the same features."""
    expected, logits = peer.eval()(features), tail.eval()(features)
    assert expected.shape == logits.shape == (len(features), 1000)
    assert expected.std() > 1e-3
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def load_whole(tail, weights):
    """Load those of a whole network's weights that the tail has."""
    tail.load_state_dict({name: weights[name] for name in tail.state_dict()})


@pytest.mark.parametrize(
    ("name", "layer", "channels"),
    [
        ("resnet18", "layer1", 64),
        ("resnet18", "layer2", 128),
        pytest.param("resnet50", "layer1", 256, marks=pytest.mark.slow),
        pytest.param("resnet101", "layer1", 256, marks=pytest.mark.slow),
        pytest.param("resnet152", "layer2", 512, marks=pytest.mark.slow),
    ],
)
def test_resnet(name, layer, channels):
    from sc2bench.models.backbone import SplittableResNet

    whole = stir_norms(getattr(torchvision.models, name)())
    peer = SplittableResNet(
        nn.Identity(),
        whole,
        skips_avgpool=False,
        skips_fc=False,
        short_module_names=[name for name in ("layer2", "layer3", "layer4") if name > layer],
    )
    tail = build.build_tail(name, layer)
    load_whole(tail, whole.state_dict())
    assert_equal(peer, tail, torch.randn(2, channels, 16, 16))


@pytest.mark.parametrize(
    "name",
    [
        *("regnety_002", "densenet121"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("regnety_064", "densenet169", "densenet201")
        ),
    ],
)
def test_regnet_and_densenet(name):
    from sc2bench.models import backbone

    # The peer's builders want a bottleneck, in whose place the identity comes.
    config = {"key": "FPBasedResNetBottleneck", "kwargs": {"num_bottleneck_channels": 24}}
    if name.startswith("regnet"):
        peer = backbone.splittable_regnet(config, regnet_name=name, skips_head=False)
        layer, features = "s1", torch.randn(2, table.find_backbone(name).channels, 16, 16)
    else:
        peer = backbone.splittable_densenet(
            config, densenet_name=name, skips_avgpool=False, skips_classifier=False
        )
        layer, features = "features.transition2", torch.randn(2, 256, 14, 14)
    peer.bottleneck_layer = nn.Identity()
    stir_norms(peer)
    tail = build.build_tail(name, layer)
    tail.load_state_dict(peer.state_dict())
    assert_equal(peer, tail, features)


def test_hybrid_vit():
    import timm
    from sc2bench.models.backbone import SplittableHybridViT

    entry = table.find_backbone("hybrid_vit_small_r26_s32_224")
    whole = timm.create_model(entry.timm_name)
    # timm's class had it when sc2bench was written, and it did nothing.
    whole.pre_logits = nn.Identity()
    peer = SplittableHybridViT(nn.Identity(), whole, num_pruned_stages=1, skips_head=False)
    tail = build.build_tail(entry.timm_name, entry.layer)
    load_whole(tail, whole.state_dict())
    assert_equal(peer, tail, torch.randn(1, entry.channels, 56, 56))


def test_inception():
    from sc2bench.models.backbone import SplittableInceptionV3

    entry = table.find_backbone("inception_v3")
    whole = torchvision.models.inception_v3(aux_logits=False, init_weights=False)
    peer = SplittableInceptionV3(
        nn.Identity(),
        [name for name, _ in whole.named_children() if name.startswith("Mixed_") or name == "fc"],
        stir_norms(whole),
        skips_avgpool=False,
        skips_dropout=False,
        skips_fc=False,
    )
    tail = build.build_tail(entry.timm_name, entry.reduction_layer)
    load_whole(tail, whole.state_dict())
    assert_equal(peer, tail, torch.randn(1, 192, 35, 35))
