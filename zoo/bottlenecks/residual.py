"""Residual encoder and decoder of shallow injection: stride 8, plain convolutions and ReLU.

::

    image ─► 8×8 /4 ─► residual ─► 3×3 /2 ─► residual ─► 3×3 ─► y          g_a
    y_hat ─► 3×3 ─► residual ×2 ─► 4×4 ×2 up ─► residual ─► 3×3 ─► features   g_s

Nothing in them but convolutions, batch norms (which exporters fold), ReLU and additions: int8
engines keep all of it. After
Furutanpey et al. 2024, "FrankenSplit" (https://arxiv.org/abs/2302.10681), whose encoder has three
strided residual blocks; sizes and layers here are others.
"""

import torch
from torch import Tensor, nn

from ..bottleneck_specs import ConvolutionalBottleneck, HyperpriorBottleneck

LATENT_GAIN = 4.0
"""Factor of the latent: it begins several quantisation steps wide, so that training sees it."""
FEATURE_GAIN = 8.0
"""Factor of the features: about the deviation of a backbone's features of stride 4."""
_BRANCH = 0.3
"""Factor of a residual branch before training."""


class Residual(nn.Module):
    """ReLU(x + a branch of two 3×3 convolutions); (N, C, h, w) float32 to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 2, kernel_size=3, padding=1, bias=False)
        self.reduce_norm = nn.BatchNorm2d(channels // 2)
        self.expand = nn.Conv2d(channels // 2, channels, kernel_size=3, padding=1, bias=False)
        self.expand_norm = nn.BatchNorm2d(channels)
        nn.init.constant_(self.expand_norm.weight, _BRANCH)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch."""
        branch = torch.relu(self.reduce_norm(self.reduce(x)))
        return torch.relu(x + self.expand_norm(self.expand(branch)))


class Gain(nn.Module):
    """Multiplies by a constant, which keeps weights and learning rates at their usual size."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.factor


def analysis(sizes: ConvolutionalBottleneck) -> nn.Sequential:
    """Build g_a: image (N, 3, H, W) to latent y (N, C, H/8, W/8), float32."""
    a, b, c = sizes.encoder_channels
    return nn.Sequential(
        *_normed(nn.Conv2d(3, a, kernel_size=8, stride=4, padding=2, bias=False)),
        Residual(a),
        *_normed(nn.Conv2d(a, b, kernel_size=3, stride=2, padding=1, bias=False)),
        Residual(b),
        nn.Conv2d(b, c, kernel_size=3, padding=1),
        Gain(LATENT_GAIN),
    )


def synthesis(sizes: ConvolutionalBottleneck) -> nn.Sequential:
    """Build g_s: y_hat (N, C, h, w) to features (N, D, 2h, 2w), float32."""
    latent, (a, b, c) = sizes.encoder_channels[-1], sizes.decoder_channels
    return nn.Sequential(
        *_normed(nn.Conv2d(latent, a, kernel_size=3, padding=1, bias=False)),
        Residual(a),
        Residual(a),
        *_normed(nn.ConvTranspose2d(a, b, kernel_size=4, stride=2, padding=1, bias=False)),
        Residual(b),
        nn.Conv2d(b, c, kernel_size=3, padding=1),
        Gain(FEATURE_GAIN),
    )


def hyper_layers(sizes: HyperpriorBottleneck) -> tuple[nn.Sequential, nn.Sequential]:
    """Build h_a, y to z of a quarter of its sides, and h_s, z_hat to y's scales (and means)."""
    latent, z = sizes.encoder_channels[-1], sizes.hyper_channels
    params = 2 * latent if sizes.kind == "mean-scale-hyperprior" else latent
    h_a = nn.Sequential(
        nn.Conv2d(latent, z, kernel_size=3, stride=2, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(z, z, kernel_size=3, stride=2, padding=1),
    )
    h_s = nn.Sequential(
        nn.ConvTranspose2d(z, z, kernel_size=4, stride=2, padding=1),
        nn.LeakyReLU(),
        nn.ConvTranspose2d(z, z * 3 // 2, kernel_size=4, stride=2, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(z * 3 // 2, params, kernel_size=3, padding=1),
    )
    return h_a, h_s


def _normed(layer: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
    return layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()
