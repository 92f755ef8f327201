"""The networks of CR + BQ: convolutions that are cut where they have few channels.

::

    image ─► encoder ─► latent of few channels ─► 8-bit quantiser ─► decoder ─► features

The decoder's features stand for those of a backbone's first layers. Matsubara et al. 2020
(https://arxiv.org/abs/2007.15818, and https://ieeexplore.ieee.org/document/9265295 for all but
"resnet-24"). "resnet-24" is the network of sc2bench 0.0.3, which the published models were trained
with: 24 layers, up to the end of a ResNet's first stage. The others are those of sc2bench 0.1.1.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from splitrun.coding.relu_range import ReluRange

from .initialisation import init_unit_variance


class _Conv(NamedTuple):
    """A convolution without bias.

    Attributes:
        channels: Channels of its output; 0 for those of the latent.
        padding: Padding on each side.
        then: Layers that follow, a letter each: n a batch norm, r a ReLU, p a max pooling 3×3 with
            stride 2, padded like the convolution before it, a and d an average pooling 2×2 with
            stride 1 and 2.
        kernel: Height and width of the kernel.
        stride: Stride in both directions.
    """

    channels: int
    padding: int
    then: str = ""
    kernel: int = 2
    stride: int = 1


class _Network(NamedTuple):
    """Encoder, the layers from the cut to the decoder's first convolution, and decoder."""

    encoder: tuple[_Conv, ...]
    after_cut: str
    decoder: tuple[_Conv, ...]


_NETWORKS = {
    "resnet-24": _Network(
        (
            _Conv(64, 3, "nrp", kernel=7, stride=2),
            _Conv(64, 1, "n"),
            _Conv(256, 1, "nr"),
            _Conv(64, 1, "n"),
            _Conv(0, 1),
        ),
        "nr",
        (_Conv(64, 0, "n"), _Conv(128, 0, "nr"), _Conv(256, 0, "n"), _Conv(256, 0, "nr")),
    ),
    "resnet-20": _Network(
        (_Conv(64, 3, "nrpnr", kernel=7, stride=2), _Conv(0, 1, stride=2)),
        "nr",
        (_Conv(512, 1, "nr"), _Conv(512, 1, "nr"), _Conv(512, 0, "nr"), _Conv(512, 0, "a")),
    ),
    "densenet": _Network(
        (_Conv(64, 3, "nrpnr", kernel=7, stride=2), _Conv(0, 1, "n", stride=2)),
        "r",
        (
            _Conv(512, 1, "nr"),
            _Conv(512, 1, "nr"),
            _Conv(256, 0, "nr"),
            _Conv(256, 0, "nr"),
            _Conv(256, 0, "d"),
        ),
    ),
    "inception": _Network(
        (_Conv(64, 0, "nrpnr", kernel=7, stride=2), _Conv(0, 1, stride=2)),
        "nr",
        (_Conv(256, 1, "nr"), _Conv(256, 0, "nr"), _Conv(192, 0, "a")),
    ),
}


_WIDTH = 64
"""Channels of the first convolution in all of them."""


def layers(
    network: str, channels: int, *, width: int = _WIDTH, features: int | None = None
) -> tuple[nn.Sequential, nn.Sequential]:
    """Build a network, cut in two.

    Args:
        network: Name of the network: "resnet-24", "resnet-20", "densenet" or "inception".
        channels: Channels C of the latent.
        width: Channels of the first convolution; those of the inner ones are in proportion.
        features: Channels of the decoder's output; None for sc2bench's, in proportion.

    Returns:
        Encoder: image (N, 3, H, W) to latent (N, C, h, w). Decoder: latent to features, those of a
        ResNet's layer1 (resnet-24) or layer2 (resnet-20), of a DenseNet's first transition, or of
        Inception-v3 before its first mixed block; all float32.
    """
    before, after_cut, behind = _NETWORKS[network]
    before, behind = (
        [layer._replace(channels=layer.channels * width // _WIDTH) for layer in part]
        for part in (before, behind)
    )
    if features is not None:
        behind[-1] = behind[-1]._replace(channels=features)
    encoder, decoder = nn.Sequential(), nn.Sequential()
    _add_convolutions(encoder, before, 3, latent=channels)
    _add_letters(decoder, after_cut, channels, padding=0)
    _add_convolutions(decoder, behind, channels, latent=channels)
    return init_unit_variance(encoder), init_unit_variance(decoder)


def relu_range(decoder: nn.Module) -> ReluRange:
    """Return which values of a latent a decoder that :func:`layers` built can tell apart.

    It begins with a ReLU, or with a batch norm γ·(x − μ) / √(σ² + ε) + β and a ReLU, which make 0
    of all x beyond the threshold μ − β·√(σ² + ε) / γ: below it where γ is above 0, else above it.
    """
    first = next(decoder.children())
    if not isinstance(first, nn.BatchNorm2d):
        channels = next(
            layer.in_channels for layer in decoder.children() if isinstance(layer, nn.Conv2d)
        )
        return ReluRange(np.array([[0.0], [np.inf]], np.float32).repeat(channels, 1))
    norm = {name: tensor.double() for name, tensor in first.state_dict().items()}
    slope = norm["weight"] / torch.sqrt(norm["running_var"] + first.eps)
    threshold = norm["running_mean"] - norm["bias"] / slope
    # Without a slope, all values are alike.
    low = torch.where(slope > 0, threshold, torch.where(slope < 0, -torch.inf, torch.inf))
    high = torch.where(slope < 0, threshold, torch.inf)
    return ReluRange(torch.stack((low, high)).float().cpu().numpy())


def _add_convolutions(
    network: nn.Sequential, convolutions: Iterable[_Conv], channels: int, latent: int
) -> None:
    for layer in convolutions:
        out = layer.channels or latent
        network.append(
            nn.Conv2d(channels, out, layer.kernel, layer.stride, layer.padding, bias=False)
        )
        _add_letters(network, layer.then, out, padding=layer.padding)
        channels = out


def _add_letters(network: nn.Sequential, letters: str, channels: int, *, padding: int) -> None:
    for letter in letters:
        if letter == "n":
            network.append(nn.BatchNorm2d(channels))
        elif letter == "r":
            network.append(nn.ReLU())
        elif letter == "p":
            network.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=min(padding, 1)))
        else:
            network.append(nn.AvgPool2d(kernel_size=2, stride=1 if letter == "a" else 2))
