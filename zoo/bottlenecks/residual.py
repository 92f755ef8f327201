"""Residual encoder and decoder of shallow injection, behind a network's first layers.

::

    features /8 ─► 3×3 ─► residual ─► 2×2 /2 ─► y                          g_a
    y_hat ─► 4×4 ×2 up ─► residual ─► 3×3, or ×2 up ─► residual ─► 1×1      g_s

The paths past the residual branches are linear: training begins near a linear transform of the
features, which is good already, since they are the published network's own. Nothing in it but
convolutions, batch norms (which exporters fold), ReLU and additions: int8 engines keep all of it.
"""

import torch
from torch import Tensor, nn

from ..bottleneck_specs import HEAD_STRIDE, ConvolutionalBottleneck, HyperpriorBottleneck

LATENT_GAIN = 4.0
"""Factor of the latent: it begins several quantisation steps wide, so that training sees it."""
FEATURE_GAIN = 8.0
"""About the deviation of the features, of which g_a gets units, and which g_s gives."""
_BRANCH = 0.3
"""Factor of a residual branch before training."""


class Residual(nn.Module):
    """x + a branch of two 3×3 convolutions; (N, C, h, w) float32 to the same."""

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
        return x + self.expand_norm(self.expand(branch))


class Gain(nn.Module):
    """Multiplies by a constant, which keeps weights and learning rates at their usual size."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Multiply."""
        return x * self.factor


def analysis(sizes: ConvolutionalBottleneck) -> nn.Sequential:
    """Build g_a: features (N, A, h, w) of stride 8 to latent y (N, C, h/2, w/2), float32."""
    a, b, c = sizes.encoder_channels
    return nn.Sequential(
        Gain(1 / FEATURE_GAIN),
        nn.Conv2d(a, b, kernel_size=3, padding=1),
        Residual(b),
        nn.Conv2d(b, c, kernel_size=2, stride=2),
        Gain(LATENT_GAIN),
    )


def synthesis(sizes: ConvolutionalBottleneck) -> nn.Sequential:
    """Build g_s: y_hat (N, C, h, w) to features of ``sizes.stride``, float32.

    They are (N, D, 2h, 2w) where it is 8, and (N, D, 4h, 4w) where it is 4.
    """
    latent, (a, b, c) = sizes.encoder_channels[-1], sizes.decoder_channels
    return nn.Sequential(
        _up(latent, a),
        Residual(a),
        _up(a, b) if sizes.stride < HEAD_STRIDE else nn.Conv2d(a, b, kernel_size=3, padding=1),
        Residual(b),
        nn.Conv2d(b, c, kernel_size=1),
        Gain(FEATURE_GAIN),
    )


def hyper_layers(sizes: HyperpriorBottleneck) -> tuple[nn.Sequential, nn.Sequential]:
    """Build h_a, y to z of half its sides, and h_s, z_hat to y's scales (and means)."""
    latent, z = sizes.encoder_channels[-1], sizes.hyper_channels
    params = 2 * latent if sizes.kind == "mean-scale-hyperprior" else latent
    h_a = nn.Sequential(
        nn.Conv2d(latent, 2 * z, kernel_size=3, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(2 * z, z, kernel_size=2, stride=2),
    )
    h_s = nn.Sequential(
        nn.ConvTranspose2d(z, 2 * z, kernel_size=4, stride=2, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(2 * z, 2 * z, kernel_size=3, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(2 * z, params, kernel_size=3, padding=1),
    )
    return h_a, h_s


def _up(channels: int, wanted: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, wanted, kernel_size=4, stride=2, padding=1)
