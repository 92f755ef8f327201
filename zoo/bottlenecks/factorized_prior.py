"""The factorized-prior bottleneck of Entropic Student: encoder, decoder and entropy model.

::

          g_a        entropy coding                      g_s
    image ───► y ──► ⌊y − median⌉ = symbols ──► y_hat ───► features for the tail

Ballé et al. 2018 (https://arxiv.org/abs/1802.01436), appendix 6.1, for the density of each channel;
Matsubara et al. 2022 (https://arxiv.org/abs/2108.11898) for the layers around it.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from splitrun.coding import Coder, FactorizedCoder, FactorizedTables

from ..bottleneck_specs import ConvolutionalBottleneck
from ..deprecations import quiet_torchscript
from . import residual
from .base import Bottleneck, passed_through
from .initialisation import init_unit_variance

with quiet_torchscript():
    from compressai.entropy_models import EntropyBottleneck
    from compressai.layers import GDN as GDN
    from compressai.layers import GDN1

TABLE_BUFFERS = ("_quantized_cdf", "_cdf_length", "_offset")
"""Names of the integer tables in CompressAI's entropy models."""


def analysis(sizes: ConvolutionalBottleneck) -> nn.Sequential:
    """Build g_a: image (N, 3, H, W) to latent y (N, C, H/4 − 1, W/4 − 1), float32.

    Of residual blocks see :func:`.residual.analysis`: their g_a takes features.
    """
    if sizes.network == "residual":
        return residual.analysis(sizes)
    a, b, c = sizes.encoder_channels
    layers = nn.Sequential(
        nn.Conv2d(3, a, kernel_size=5, stride=2, padding=2, bias=False),
        GDN1(a),
        nn.Conv2d(a, b, kernel_size=5, stride=2, padding=2, bias=False),
        GDN1(b),
        nn.Conv2d(b, c, kernel_size=2, bias=False),
    )
    return init_unit_variance(layers)


def synthesis(sizes: ConvolutionalBottleneck) -> nn.Sequential:
    """Build g_s: y_hat (N, C, h, w) to features of ``sizes.stride``, float32."""
    if sizes.network == "residual":
        return residual.synthesis(sizes)
    a, b, c = sizes.decoder_channels
    layers = nn.Sequential(
        nn.Conv2d(sizes.encoder_channels[-1], a, kernel_size=2, padding=1, bias=False),
        GDN1(a, inverse=True),
        nn.Conv2d(a, b, kernel_size=2, bias=False),
        GDN1(b, inverse=True),
        nn.Conv2d(b, c, kernel_size=2, padding=1, bias=False),
    )
    return init_unit_variance(layers)


class FactorizedPrior(Bottleneck):
    """Quantiser and entropy model of y: one learned density for each channel.

    Wraps CompressAI's ``EntropyBottleneck``, whose buffers hold the integer tables: they are part
    of the state dict and of the saved weights.

    Args:
        channels: Channels C of the latent.
    """

    wire_names: ClassVar[tuple[str, ...]] = ("symbols",)
    edge_inputs: ClassVar[tuple[str, ...]] = ("symbols",)
    can_train_rounded: ClassVar[bool] = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.entropy_bottleneck = EntropyBottleneck(channels)

    def forward(self, latent: Tensor) -> Tensor:
        """Quantise y (N, C, h, w): additive noise in training, rounding otherwise."""
        return self.forward_with_likelihoods(latent)[0]

    def forward_with_likelihoods(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return y_hat, and the probability of each of its elements."""
        y_hat, likelihoods = self.entropy_bottleneck(latent)
        if self.training and self.trains_rounded:
            y_hat = passed_through(latent - self.medians) + self.medians
        return y_hat, (likelihoods,)

    @property
    def medians(self) -> Tensor:
        """The point around which each channel is rounded, (1, C, 1, 1) float32."""
        return medians_of(self.entropy_bottleneck)

    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y less the medians, float32."""
        return (latent - self.medians,)

    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Round y (N, C, h, w) float32 to symbols int32."""
        return (torch.round(latent - self.medians).to(torch.int32),)

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Turn symbols (N, C, h, w) int32 into y_hat float32."""
        (symbols,) = tensors
        return symbols.to(self.medians.dtype) + self.medians

    def update(self) -> None:
        """Make the integer tables from the learned densities, in place of older ones."""
        self.entropy_bottleneck.update(force=True)

    def entropy_coder(self) -> Coder:
        """Return the coder with the present tables."""
        return FactorizedCoder(read_tables(self.entropy_bottleneck))

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        resize_tables(self.entropy_bottleneck, state_dict, f"{prefix}entropy_bottleneck.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def medians_of(density: EntropyBottleneck) -> Tensor:
    """Return the medians of a density's channels, (1, C, 1, 1) float32 without a gradient."""
    quantiles: Tensor = density.quantiles
    return quantiles[:, 0, 1].detach().reshape(1, -1, 1, 1)


def read_tables(entropy_model: nn.Module) -> FactorizedTables:
    """Return the integer tables of one of CompressAI's entropy models.

    Raises:
        TablesError: They have not been made, or those loaded are not valid.
    """
    cdf, length, offset = (
        getattr(entropy_model, name).detach().cpu().numpy() for name in TABLE_BUFFERS
    )
    return FactorizedTables(
        cdf=np.atleast_2d(cdf),
        length=length,
        offset=offset,
        precision=entropy_model.entropy_coder_precision,  # pyright: ignore[reportArgumentType]
    )


def resize_tables(
    entropy_model: nn.Module,
    state_dict: dict,
    prefix: str,
    buffers: tuple[str, ...] = TABLE_BUFFERS,
) -> None:
    """Give table buffers the stored ones' shapes before loading: PyTorch wants equal shapes."""
    for name in buffers:
        stored = state_dict.get(f"{prefix}{name}")
        if stored is not None:
            setattr(entropy_model, name, getattr(entropy_model, name).new_empty(stored.shape))
