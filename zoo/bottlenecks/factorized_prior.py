"""The factorized-prior bottleneck of Entropic Student: analysis, synthesis and entropy model.

::

          g_a                 coder                    g_s
    image ───► y ──► round(y − median) = symbols ──► y_hat ───► features for the tail

Ballé et al. 2018 (https://arxiv.org/abs/1802.01436) for the prior; Matsubara et al. 2022
(https://arxiv.org/abs/2108.11898) for the layers around it.
"""

import numpy as np
import torch
from torch import Tensor, nn

from .coding import FactorizedTables
from .deprecations import quiet_torchscript
from .spec import FactorizedPriorBottleneck

with quiet_torchscript():
    from compressai.entropy_models import EntropyBottleneck
    from compressai.layers import GDN1


_TABLE_BUFFERS = ("_quantized_cdf", "_cdf_length", "_offset")


def analysis(sizes: FactorizedPriorBottleneck) -> nn.Sequential:
    """Build g_a: image (N, 3, H, W) to latent y (N, C, H/4 − 1, W/4 − 1), float32."""
    a, b, c = sizes.encoder_channels
    layers = nn.Sequential(
        nn.Conv2d(3, a, kernel_size=5, stride=2, padding=2, bias=False),
        GDN1(a),
        nn.Conv2d(a, b, kernel_size=5, stride=2, padding=2, bias=False),
        GDN1(b),
        nn.Conv2d(b, c, kernel_size=2, bias=False),
    )
    return _keep_variance(layers)


def synthesis(sizes: FactorizedPriorBottleneck) -> nn.Sequential:
    """Build g_s: y_hat (N, C, h, w) to features (N, D, h + 1, w + 1), float32."""
    a, b, c = sizes.decoder_channels
    layers = nn.Sequential(
        nn.Conv2d(sizes.latent_channels, a, kernel_size=2, padding=1, bias=False),
        GDN1(a, inverse=True),
        nn.Conv2d(a, b, kernel_size=2, bias=False),
        GDN1(b, inverse=True),
        nn.Conv2d(b, c, kernel_size=2, padding=1, bias=False),
    )
    return _keep_variance(layers)


def _keep_variance(layers: nn.Sequential) -> nn.Sequential:
    """Initialise the convolutions so that signals keep their size.

    PyTorch's own initialisation shrinks them: nearly every symbol of an untrained model would be 0,
    and its rate and its graphs would say nothing.
    """
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    return layers


class FactorizedPrior(nn.Module):
    """Quantiser and entropy model of y, each channel with its own learned density.

    Wraps CompressAI's ``EntropyBottleneck``; its integer tables live in that module's buffers, so
    they are part of the state dict and of the saved weights.

    Args:
        channels: C, of the latent.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.entropy_bottleneck = EntropyBottleneck(channels)

    def forward(self, y: Tensor) -> Tensor:
        """Quantise the latent y (N, C, H, W): additive noise in training, rounding otherwise."""
        return self.entropy_bottleneck(y)[0]

    def likelihoods(self, y: Tensor) -> Tensor:
        """Return the probability of each quantised element of y, shaped like y."""
        return self.entropy_bottleneck(y)[1]

    @property
    def medians(self) -> Tensor:
        """The point around which each channel is rounded: (1, C, 1, 1) float32."""
        quantiles: Tensor = self.entropy_bottleneck.quantiles
        return quantiles[:, 0, 1].detach().reshape(1, -1, 1, 1)

    def symbols(self, y: Tensor) -> Tensor:
        """Round the latent y (N, C, H, W) float32 to symbols, int32."""
        return torch.round(y - self.medians).to(torch.int32)

    def dequantise(self, symbols: Tensor) -> Tensor:
        """Turn symbols (N, C, H, W) int32 into y_hat float32."""
        return symbols.to(self.medians.dtype) + self.medians

    def make_tables(self) -> None:
        """Quantise the learned densities into integer tables, in place of older ones."""
        self.entropy_bottleneck.update(force=True)

    @property
    def tables(self) -> FactorizedTables:
        """The integer tables.

        Raises:
            TablesError: They have not been made, or what was loaded is not valid.
        """
        cdf, length, offset = (
            getattr(self.entropy_bottleneck, name).detach().cpu().numpy() for name in _TABLE_BUFFERS
        )
        return FactorizedTables(
            cdf=np.atleast_2d(cdf),
            length=length,
            offset=offset,
            precision=self.entropy_bottleneck.entropy_coder_precision,
        )

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        # The tables' sizes come with the weights; PyTorch insists on equal shapes.
        for name in _TABLE_BUFFERS:
            stored = state_dict.get(f"{prefix}entropy_bottleneck.{name}")
            if stored is not None:
                buffer = getattr(self.entropy_bottleneck, name)
                setattr(self.entropy_bottleneck, name, buffer.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
