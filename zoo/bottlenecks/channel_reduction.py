"""The networks of CR + BQ: a few convolutions whose middle has few channels, cut there.

The encoder takes an image; the decoder gives what a backbone's first layers would. Matsubara et al.
2020 (https://arxiv.org/abs/2007.15818, and https://ieeexplore.ieee.org/document/9265295 for the
others). "resnet-24" is the network of sc2bench 0.0.3, with which the published models were trained:
24 layers up to the end of a ResNet's first stage. The others are those of sc2bench 0.1.1.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from splitrun.coding.relu_range import ReluRange

from .initialisation import init_unit_variance


class _Conv(NamedTuple):
    """A convolution without bias.

    Attributes:
        channels: Of its output; 0 for those of the latent.
        padding: On each side.
        then: Letters of what follows it: n a batch norm, r a ReLU, p a max pooling 3×3 with stride
            2, padded as the convolution before it, a and d an average pooling 2×2 with stride 1
            and 2.
        kernel: Height and width.
        stride: In both directions.
    """

    channels: int
    padding: int
    then: str = ""
    kernel: int = 2
    stride: int = 1


class _Network(NamedTuple):
    """Encoder, what stands between the cut and the decoder's first convolution, and decoder."""

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
        network: "resnet-24", "resnet-20", "densenet" or "inception".
        channels: C, of the latent.
        width: Channels of the first convolution; those of the inner ones are in proportion.
        features: Channels that the decoder gives; None for sc2bench's, in proportion.

    Returns:
        Encoder: image (N, 3, H, W) to latent (N, C, h, w). Decoder: latent to features, those of a
        ResNet's layer1 (resnet-24) or layer2 (resnet-20), of a DenseNet's first transition, or of
        Inception-v3 before its first mixed block; all float32.
    """
    before, after_cut, behind = _NETWORKS[network]
    before, behind = (
        tuple(one._replace(channels=one.channels * width // _WIDTH) for one in part)
        for part in (before, behind)
    )
    if features is not None:
        behind = (*behind[:-1], behind[-1]._replace(channels=features))
    encoder, decoder = nn.Sequential(), nn.Sequential()
    reached = _add(encoder, before, 3, latent=channels)
    _append(decoder, after_cut, reached, padding=0)
    _add(decoder, behind, reached, latent=channels)
    return init_unit_variance(encoder), init_unit_variance(decoder)


def relu_range(decoder: nn.Module) -> ReluRange:
    """Return which values of a latent a decoder that :func:`layers` built can tell apart.

    It begins with a ReLU, or with a batch norm γ·(x − μ) / √(σ² + ε) + β and a ReLU, which make 0
    of all x beyond the threshold μ − β·√(σ² + ε) / γ: below it where γ is above 0, else above it.
    """
    first = next(decoder.children())
    if not isinstance(first, nn.BatchNorm2d):
        channels = next(one for one in decoder.children() if isinstance(one, nn.Conv2d)).in_channels
        return ReluRange(np.array([[0.0], [np.inf]], np.float32).repeat(channels, 1))
    of = {name: value.double() for name, value in first.state_dict().items()}
    slope = of["weight"] / torch.sqrt(of["running_var"] + first.eps)
    end = of["running_mean"] - of["bias"] / slope
    # Without a slope, all of it is alike.
    low = torch.where(slope > 0, end, torch.where(slope < 0, -torch.inf, torch.inf))
    high = torch.where(slope < 0, end, torch.inf)
    return ReluRange(torch.stack((low, high)).float().cpu().numpy())


def _add(
    network: nn.Sequential, convolutions: tuple[_Conv, ...], channels: int, latent: int
) -> int:
    for one in convolutions:
        given = one.channels or latent
        network.append(nn.Conv2d(channels, given, one.kernel, one.stride, one.padding, bias=False))
        _append(network, one.then, given, padding=one.padding)
        channels = given
    return channels


def _append(network: nn.Sequential, letters: str, channels: int, *, padding: int) -> None:
    for letter in letters:
        if letter == "n":
            network.append(nn.BatchNorm2d(channels))
        elif letter == "r":
            network.append(nn.ReLU())
        elif letter == "p":
            network.append(nn.MaxPool2d(kernel_size=3, stride=2, padding=min(padding, 1)))
        else:
            network.append(nn.AvgPool2d(kernel_size=2, stride=1 if letter == "a" else 2))
