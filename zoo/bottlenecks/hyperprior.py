"""Bottlenecks with a hyperprior: a second latent z says the scales and means of y.

::

    device                                       edge
    y ─► h_a ─► z ─► hyper_symbols ══════════════► z_hat ─► h_s ─► indexes, means
    │                      │                                          │       │
    │          z_hat ◄─────┘                                          ▼       │
    │            └─► h_s ─► indexes, means                            │       ▼
    └─────────────► ⌊y − means⌉ = symbols ══════════════════════► symbols ─► + means = y_hat

Ballé et al. 2018 (https://arxiv.org/abs/1802.01436), section 3: y is Gaussian with the scales
σ_hat = h_s(z_hat). Minnen et al. 2018 (https://arxiv.org/abs/1809.02736), section 2: means
too. Both sides compute h_s, in float32: unless the scale indexes are the same, the symbols cannot
be read.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from splitrun.coding.coder import Coder
from splitrun.coding.hyperprior import HyperpriorCoder
from splitrun.coding.tables import FactorizedTables
from splitrun.errors import SpecError, TablesError

from ..deprecations import quiet_torchscript
from .base import Bottleneck, passed_through
from .factorized_prior import TABLE_BUFFERS, medians_of, read_tables, resize_tables

with quiet_torchscript():
    from compressai.entropy_models import EntropyBottleneck, GaussianConditional
    from compressai.models.google import SCALES_LEVELS, SCALES_MAX, SCALES_MIN, get_scale_table

_STEPS_PER_LOG = (SCALES_LEVELS - 1) / math.log(SCALES_MAX / SCALES_MIN)


def scale_position(scales: Tensor) -> Tensor:
    """Return where scales lie in the table of scales: rounded, it is the index of their row.

    The index is that of the smallest of 64 scales, from 0.11 to 256 in equal ratios, that is not
    exceeded: CompressAI's ``build_indexes`` finds it by 63 comparisons. Two scales at a boundary
    within float32 rounding, about 1e-6 of each other, may fall to either side.

    Args:
        scales: Scales of any shape, float32; those below the smallest, negative ones too, count as
            the smallest.

    Returns:
        Positions in [0, 63], float32.
    """
    # The bound only keeps the logarithm finite. It lies below the first boundary, so that the many
    # scales there do not hang on how a logarithm is rounded.
    logarithm = torch.log(scales.clamp(min=SCALES_MIN / 2))
    offset = 0.5 - math.log(SCALES_MIN) * _STEPS_PER_LOG
    return (logarithm * _STEPS_PER_LOG + offset).clamp(0, SCALES_LEVELS - 1)


def check_described(latent: Tensor, size: tuple[int, ...]) -> None:
    """Raise ``SpecError`` unless the hyper-decoder gives scales of the latent's size."""
    if tuple(latent.shape[2:]) != size:
        raise SpecError(
            f"The latent is {tuple(latent.shape[2:])}, but the hyper-decoder gives scales of "
            f"{size}.",
            next_step="Give images whose sides are multiples of 16 (of 64 for image codecs).",
        )


class Hyperprior(Bottleneck):
    """The common part of bottlenecks with a hyperprior: h_a, h_s, and both entropy models.

    Args:
        h_a: Hyper-encoder: y (N, C, h, w), or |y|, to z (N, D, h', w').
        h_s: Hyper-decoder: z_hat to the parameters of the Gaussians.
        hyper_channels: Channels D of z.
    """

    side_information = ("hyper_symbols",)
    device_modules: ClassVar[tuple[str, ...]] = ("h_a", "h_s")
    edge_modules: ClassVar[tuple[str, ...]] = ("h_s",)

    def __init__(self, h_a: nn.Module, h_s: nn.Module, hyper_channels: int) -> None:
        super().__init__()
        self.h_a = h_a
        self.h_s = h_s
        self.entropy_bottleneck = EntropyBottleneck(hyper_channels)
        self.gaussian_conditional = GaussianConditional(None)

    @property
    def medians(self) -> Tensor:
        """The point around which each channel of z is rounded, (1, D, 1, 1) float32."""
        return medians_of(self.entropy_bottleneck)

    @abstractmethod
    def hyper_decode(self, hyper_symbols: Tensor) -> tuple[Tensor, ...]:
        """Turn z's symbols (N, D, h', w') int32 into the tensors that ``hyper_outputs`` names."""

    def gaussian_params(self, hyper_symbols: Tensor) -> Tensor:
        """Run h_s on z's symbols (N, D, h', w') int32, image by image.

        A convolution may round its sums differently in a larger batch, and the edge decodes one
        image at a time.
        """
        z_hat = hyper_symbols.to(torch.float32) + self.medians
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
            return self.h_s(z_hat)
        return torch.cat([self.h_s(image_z) for image_z in z_hat.split(1)])

    def _hyper_encode(self, latent: Tensor) -> Tensor:
        return self.h_a(latent)

    def _quantise_z(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return z_hat (N, D, h', w') for h_s, and the probabilities of its elements."""
        z = self._hyper_encode(latent)
        z_hat, likelihoods = self.entropy_bottleneck(z)
        if self.training and self.trains_rounded:
            z_hat = passed_through(z - self.medians) + self.medians
        return z_hat, likelihoods

    def _synthesise(self, z_hat: Tensor) -> Tensor:
        """Run h_s on z_hat (N, D, h', w') float32, with noise or rounded, for training."""
        return self.h_s(z_hat)

    def update(self) -> None:
        """Make the integer tables of z's density and of y's Gaussians."""
        self.entropy_bottleneck.update(force=True)
        self.gaussian_conditional.update_scale_table(get_scale_table(), force=True)

    def tables(self) -> tuple[FactorizedTables, FactorizedTables]:
        """Return the tables of z and of y.

        Raises:
            TablesError: They have not been made, those loaded are not valid, or not of the scales
                that :func:`scale_position` knows.
        """
        expected = get_scale_table().numpy()
        held = self.gaussian_conditional.scale_table.detach().cpu().numpy()
        if held.shape != expected.shape or not np.allclose(held, expected, rtol=1e-5, atol=0):
            raise TablesError(
                f"The entropy tables are not of {SCALES_LEVELS} scales from {SCALES_MIN} to "
                f"{SCALES_MAX} in equal ratios.",
                next_step="Make them anew: model.update()",
            )
        return read_tables(self.entropy_bottleneck), read_tables(self.gaussian_conditional)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        resize_tables(self.entropy_bottleneck, state_dict, f"{prefix}entropy_bottleneck.")
        buffers = (*TABLE_BUFFERS, "scale_table")
        gaussian = f"{prefix}gaussian_conditional."
        resize_tables(self.gaussian_conditional, state_dict, gaussian, buffers)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class ScaleHyperprior(Hyperprior):
    """Quantiser and entropy model of y: zero-mean Gaussians whose scales h_s computes from z.

    Args:
        h_a: Hyper-encoder: |y| (N, C, h, w) to z (N, D, h', w').
        h_s: Hyper-decoder: z_hat to the scales of y (N, C, h, w).
        hyper_channels: Channels D of z.
    """

    wire_names = ("symbols", "hyper_symbols", "indexes")
    edge_inputs: ClassVar[tuple[str, ...]] = ("symbols",)
    hyper_outputs: ClassVar[tuple[str, ...]] = ("indexes",)
    can_train_rounded: ClassVar[bool] = True

    def forward(self, latent: Tensor) -> Tensor:
        """Quantise y (N, C, h, w): additive noise in training, rounding otherwise."""
        return self.forward_with_likelihoods(latent)[0]

    def forward_with_likelihoods(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return y_hat, and the probabilities of the elements of y and of z."""
        z_hat, z_likelihoods = self._quantise_z(latent)
        scales, means = self._scales_and_means(self._synthesise(z_hat))
        y_hat, y_likelihoods = self.gaussian_conditional(latent, scales, means)
        if self.training and self.trains_rounded:
            offset = 0.0 if means is None else means
            y_hat = passed_through(latent - offset) + offset
        return y_hat, (y_likelihoods, z_likelihoods)

    def _hyper_encode(self, latent: Tensor) -> Tensor:
        return self.h_a(latent.abs())

    def _scales_and_means(self, params: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the scales of y, and its means; None where they are zero."""
        return params, None

    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y less its means, z less its medians, and :func:`scale_position`, float32.

        Raises:
            SpecError: h_s gives another size than the latent's.
        """
        z = self._hyper_encode(latent) - self.medians
        params = self.gaussian_params(torch.round(z).to(torch.int32))
        scales, means = self._scales_and_means(params)
        check_described(latent, tuple(scales.shape[2:]))
        return latent if means is None else latent - means, z, scale_position(scales)

    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Turn y (N, C, h, w) float32 into its symbols, z's symbols, and scale indexes, int32."""
        return tuple(torch.round(tensor).to(torch.int32) for tensor in self.unrounded_wire(latent))

    def hyper_decode(self, hyper_symbols: Tensor) -> tuple[Tensor, ...]:
        """Compute the scale indexes (N, C, h, w) int32, and the means float32 if there are any."""
        scales, means = self._scales_and_means(self.gaussian_params(hyper_symbols))
        indexes = torch.round(scale_position(scales)).to(torch.int32)
        return (indexes,) if means is None else (indexes, means)

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Turn symbols (N, C, h, w) int32 into y_hat float32."""
        (symbols,) = tensors
        return symbols.to(torch.float32)

    def entropy_coder(self) -> Coder:
        """Return the coder with the present tables."""
        return HyperpriorCoder(*self.tables())


class MeanScaleHyperprior(ScaleHyperprior):
    """Quantiser and entropy model of y: Gaussians whose scales and means h_s computes from z.

    Args:
        h_a: Hyper-encoder: y (N, C, h, w) to z (N, D, h', w').
        h_s: Hyper-decoder: z_hat to the scales and, after them, the means of y: (N, 2C, h, w).
        hyper_channels: Channels D of z.
    """

    edge_inputs = ("symbols", "means")
    hyper_outputs = ("indexes", "means")

    def _hyper_encode(self, latent: Tensor) -> Tensor:
        return self.h_a(latent)

    def _scales_and_means(self, params: Tensor) -> tuple[Tensor, Tensor]:
        scales, means = params.chunk(2, 1)
        return scales, means

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Turn symbols (N, C, h, w) int32 and means float32 into y_hat float32."""
        symbols, means = tensors
        return symbols.to(torch.float32) + means
