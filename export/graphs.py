"""The parts of a split model as modules of constants, ready for any exporter."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..zoo.bottlenecks.factorized_prior import GDN, GDN1
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

    def __init__(self, layer: GDN | GDN1) -> None:
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


class FoldedGDN(FoldedGDN1):
    """GDN likewise: ``x / √(β + Γx²)``, or times for the inverse.

    Ballé et al. 2016 (https://arxiv.org/abs/1511.06281).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W) float32."""
        norm = torch.sqrt(functional.conv2d(x * x, self.gamma, self.beta))
        return x * norm if self.inverse else x / norm


def fold_gdn(module: nn.Module) -> nn.Module:
    """Return a copy of a module in which every GDN is folded."""
    folded = nn.ModuleDict({"root": copy.deepcopy(module)})
    for name, child in list(folded.named_modules()):
        if isinstance(child, GDN):
            # GDN1 is a GDN to CompressAI.
            fold = FoldedGDN1 if isinstance(child, GDN1) else FoldedGDN
            folded.set_submodule(name, fold(child))
    return folded["root"]


class DeviceGraph(nn.Module):
    """Image (N, 3, H, W) float32 to the wire tensors, each (N, …).

    Args:
        model: In evaluation mode; its present weights are taken.
    """

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.encoder = fold_gdn(model.encoder)
        self.bottleneck = copy.deepcopy(model.bottleneck)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the wire tensors of a batch of images."""
        (image,) = tensors
        return self.bottleneck.to_wire(self.encoder(image))


class HyperGraph(nn.Module):
    """Symbols of z (N, C, h, w) int32 to the scale indexes of y and what the edge graph takes.

    Args:
        model: In evaluation mode; its present weights are taken.
    """

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.bottleneck = copy.deepcopy(model.bottleneck)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the indexes, and the tensors that follow them."""
        (hyper_symbols,) = tensors
        return self.bottleneck.hyper_decode(hyper_symbols)


class EdgeGraph(nn.Module):
    """What the coder gives back, each (N, …), to the model's outputs.

    Args:
        model: In evaluation mode; its present weights are taken.
    """

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.decoder = fold_gdn(model.decoder)
        self.bottleneck = copy.deepcopy(model.bottleneck)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs: for detectors, of the dense first stage."""
        features = self.bottleneck.from_wire(*tensors)
        for part in self.decoder.children():
            # A detector's second stage depends on the data; it is a graph of its own.
            run = getattr(part, "dense", part)
            features = run(features)
        return features if isinstance(features, tuple) else (features,)


class BoxesGraph(nn.Module):
    """The second stage of a detector: see :meth:`splitzoo.zoo.tasks.detection.DetectionTail.boxes`.

    Args:
        model: A detector in evaluation mode.
    """

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.tail = copy.deepcopy(model.decoder.get_submodule("tail"))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return class logits and box deltas of proposals."""
        return self.tail.boxes(*tensors)  # pyright: ignore[reportCallIssue]


def output_names(model: SplitModel) -> tuple[str, ...]:
    """Return the names of the edge graph's outputs."""
    return getattr(model.decoder.get_submodule("tail"), "dense_outputs", ("logits",))
