"""A factorized prior of several levels of rate: one set of weights, β chosen when it encodes.

::

    y ──► latent ══► ⌊(y − median) · gain⌉ ══► symbols · inverse gain + median ══► latent_hat
                     └─────────── the coder, with the gains of one level ──────────┘

Cui et al. 2021, "Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation" (CVPR,
https://arxiv.org/abs/2003.02012): each level has a gain and an inverse gain for every channel,
learned with the rest. There is one density for each channel, of the latent without gains, and the
tables of all levels are made of it: a symbol of gain g takes 1/g of the latent's axis.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from splitrun.coding.variable_rate import Levels, VariableRateCoder

from ..deprecations import quiet_torchscript
from .base import passed_through
from .factorized_prior import FactorizedPrior, read_tables

with quiet_torchscript():
    from compressai.ops import LowerBound

_LEAST = 0.01
"""Least factor on a gain, which keeps it positive."""

_MOST_SYMBOLS = 1 << 12
"""Largest number of a table's ordinary symbols; those beyond are escaped."""


class VariableRate(FactorizedPrior):
    """Quantiser and entropy model of y, with gains for each level.

    Args:
        channels: Channels C of the latent.
        betas: β of each level, L of them.
        level: Level that is taken where nobody chooses another.

    Attributes:
        betas: β of each level, (L,) float32.
        level: Level that is taken where nobody chooses another.
    """

    betas: Tensor
    wire_names = ("latent",)
    edge_inputs: ClassVar[tuple[str, ...]] = ("latent_hat",)

    def __init__(self, channels: int, betas: Sequence[float], level: int) -> None:
        super().__init__(channels)
        self.level = level
        # A step's square over 12 is its distortion: it grows with β, and the gain is 1 at `level`.
        steps = torch.tensor([[math.sqrt(beta / betas[level])] for beta in betas])
        self.register_buffer("betas", torch.tensor(betas), persistent=False)
        self.register_buffer("steps", steps, persistent=False)
        # Of what the gains begin with: products of float32 are the same on every machine.
        self.gain_factors = nn.Parameter(torch.ones(len(betas), channels))
        self.inverse_factors = nn.Parameter(torch.ones(len(betas), channels))
        self._bound = LowerBound(_LEAST)

    @property
    def gains(self) -> Tensor:
        """Gains before rounding, (L, C) float32: symbols for 1 of the latent."""
        return self._bound(self.gain_factors) / self.steps

    @property
    def inverse_gains(self) -> Tensor:
        """Gains after rounding, (L, C) float32."""
        return self._bound(self.inverse_factors) * self.steps

    def draw_levels(self, number: int) -> Tensor:
        """Return a random level for each of so many images, (N,) int64."""
        return torch.randint(len(self.betas), (number,)).to(self.betas.device)

    def forward(self, latent: Tensor, levels: Tensor | None = None) -> Tensor:
        """Quantise y (N, C, h, w): additive noise in training, rounding otherwise.

        Args:
            latent: y, float32.
            levels: Level of each image, (N,) int64; by default ``level``.
        """
        return self._quantised(latent, levels)[1]

    def forward_with_likelihoods(
        self, latent: Tensor, levels: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return y_hat and the probability of each of its elements; see :meth:`forward`."""
        symbols, latent_hat, gains = self._quantised(latent, levels)
        return latent_hat, (self._probabilities(symbols, gains),)

    def _quantised(self, latent: Tensor, levels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return symbols, y_hat, and the gains (N, C, 1, 1)."""
        levels = torch.tensor([self.level]) if levels is None else levels
        gains, inverse = (of[levels, :, None, None] for of in (self.gains, self.inverse_gains))
        values = (latent - self.medians) * gains
        if not self.training:
            values = torch.round(values)
            return values, values * inverse + self.medians, gains
        noisy = values + torch.rand_like(values) - 0.5
        seen = passed_through(values) if self.trains_rounded else noisy
        return noisy, seen * inverse + self.medians, gains

    def _probabilities(self, symbols: Tensor, gains: Tensor) -> Tensor:
        """Return the probabilities of symbols (N, C, h, w) under gains (N, C, 1, 1)."""
        density = self.entropy_bottleneck
        ends = ((symbols + side) / gains + self.medians for side in (-0.5, 0.5))
        below, above = (self._cumulative_logits(end) for end in ends)
        # Of the smaller tail, where float32 is finer.
        sign = -torch.sign(below + above).detach()
        found = torch.abs(torch.sigmoid(sign * above) - torch.sigmoid(sign * below))
        return density.likelihood_lower_bound(found)

    def _cumulative_logits(self, values: Tensor) -> Tensor:
        """Return the logits of the cumulative distribution at values (N, C, h, w)."""
        of_channels = values.transpose(0, 1)
        flat = of_channels.reshape(len(of_channels), 1, -1)
        logits = self.entropy_bottleneck._logits_cumulative(flat, stop_gradient=False)
        return logits.reshape(of_channels.shape).transpose(0, 1)

    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y, float32."""
        return (latent,)

    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y (N, C, h, w) float32, which the coder rounds."""
        return (latent,)

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Return y_hat (N, C, h, w) float32: the coder has done it all."""
        (latent_hat,) = tensors
        return latent_hat

    def update_quantiles(self) -> None:
        """Move the outer quantiles to where the densities have them now, and make the tables."""
        super().update_quantiles()
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Make the integer tables of all levels from the densities, in place of older ones."""
        density, gains = self.entropy_bottleneck, self.gains
        low, median, high = (density.quantiles[:, 0, place] for place in range(3))
        reach = _MOST_SYMBOLS // 2 - 1
        minima, maxima = (
            (side * gains).ceil().clamp(0, reach).int() for side in (median - low, high - median)
        )
        length = int((minima + maxima).max()) + 1
        # (L, C, n), and for the coder a row for each level and channel.
        symbols = torch.arange(length, device=gains.device) - minima[..., None]
        columns = symbols.float()[:, :, None], gains[:, :, None, None]
        pmf = self._probabilities(*columns)[:, :, 0]
        ends = (-minima - 0.5) / gains + median, (maxima + 0.5) / gains + median
        below, above = (self._cumulative_logits(end[..., None, None])[..., 0, 0] for end in ends)
        tail = (torch.sigmoid(below) + torch.sigmoid(-above)).reshape(-1, 1)
        lengths = (minima + maxima + 1).reshape(-1)
        cdf = density._pmf_to_cdf(pmf.reshape(-1, length), tail, lengths, length)
        density._quantized_cdf = cdf
        density._cdf_length = lengths + 2
        density._offset = -minima.reshape(-1)

    def entropy_coder(self) -> VariableRateCoder:
        """Return the coder with the present tables and gains."""
        arrays = {
            "betas": self.betas,
            "medians": self.medians.reshape(-1),
            "gains": self.gains,
            "inverse_gains": self.inverse_gains,
        }
        levels = Levels(**{name: np.array(array.detach().cpu()) for name, array in arrays.items()})
        return VariableRateCoder(read_tables(self.entropy_bottleneck), levels, self.level)
