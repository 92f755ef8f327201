"""The two halves of a split model as modules of constants, ready for any exporter."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..zoo.factorized_prior import GDN1
from ..zoo.split_model import SplitModel


class FoldedGDN1(nn.Module):
    """GDN1 with its reparametrisation worked out: ``x / (β + Γ|x|)``, or times for the inverse.

    Johnston et al. 2019 (https://arxiv.org/abs/1912.08771). The norm is a constant 1×1 convolution,
    which every runtime has a fast path for; unfolded, the graph recomputes Γ from its square root
    on each image.

    Args:
        layer: CompressAI's layer, whose present weights are taken.
    """

    gamma: Tensor
    beta: Tensor

    def __init__(self, layer: GDN1) -> None:
        super().__init__()
        channels = layer.beta.numel()
        gamma = layer.gamma_reparam(layer.gamma).detach().clone()
        self.register_buffer("gamma", gamma.reshape(channels, channels, 1, 1))
        self.register_buffer("beta", layer.beta_reparam(layer.beta).detach().clone())
        self.inverse = layer.inverse

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W) float32."""
        norm = functional.conv2d(x.abs(), self.gamma, self.beta)
        return x * norm if self.inverse else x / norm


def fold_gdn(module: nn.Module) -> nn.Module:
    """Return a copy of a module in which every GDN1 is folded."""
    if isinstance(module, GDN1):
        return FoldedGDN1(module)
    folded = copy.deepcopy(module)
    for name, child in list(folded.named_modules()):
        if isinstance(child, GDN1):
            folded.set_submodule(name, FoldedGDN1(child))
    return folded


class DeviceGraph(nn.Module):
    """Image (N, 3, H, W) float32 to symbols (N, C, h, w) int32.

    Args:
        model: In evaluation mode; its present weights are taken.
    """

    medians: Tensor

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.encoder = fold_gdn(model.encoder)
        self.register_buffer("medians", model.coder.medians.clone())

    def forward(self, image: Tensor) -> Tensor:
        """Return the symbols of a batch of images."""
        return torch.round(self.encoder(image) - self.medians).to(torch.int32)


class EdgeGraph(nn.Module):
    """Symbols (N, C, h, w) int32 to the model's output, such as logits (N, classes) float32.

    Args:
        model: In evaluation mode; its present weights are taken.
    """

    medians: Tensor

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.decoder = fold_gdn(model.decoder)
        self.register_buffer("medians", model.coder.medians.clone())

    def forward(self, symbols: Tensor) -> Tensor:
        """Return the output for a batch of symbols."""
        return self.decoder(symbols.to(torch.float32) + self.medians)
