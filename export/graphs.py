"""The graphs of a split model, as modules with constant weights that any exporter can write."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..zoo.bottlenecks.factorized_prior import GDN, GDN1
from ..zoo.split_model import SplitModel


class FoldedGDN1(nn.Module):
    """GDN1 as a constant 1×1 convolution: ``x / (β + Γ|x|)``; the inverse multiplies.

    Johnston et al. 2019 (https://arxiv.org/abs/1912.08771). Every runtime has a fast path for it;
    unfolded, the graph would compute Γ from its square root for each image.

    Args:
        layer: CompressAI's layer; its present weights are copied.
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
    """GDN as a constant 1×1 convolution: ``x / √(β + Γx²)``; the inverse multiplies.

    Ballé et al. 2016 (https://arxiv.org/abs/1511.06281).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W) float32."""
        norm = torch.sqrt(functional.conv2d(x * x, self.gamma, self.beta))
        return x * norm if self.inverse else x / norm


def fold_gdn(module: nn.Module) -> nn.Module:
    """Return a copy of a module with every GDN and GDN1 folded."""
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
        model: Model in evaluation mode; its present weights are copied.
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
    """Symbols of z (N, C, h, w) int32 to the scale indexes of y, and further edge inputs.

    Args:
        model: Model in evaluation mode; its present weights are copied.

    Raises:
        SpecError: The model has no hyperprior.
    """

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.bottleneck = copy.deepcopy(model.hyperprior)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the scale indexes, and further edge inputs."""
        (hyper_symbols,) = tensors
        return self.bottleneck.hyper_decode(hyper_symbols)


class EdgeGraph(nn.Module):
    """Edge inputs, each (N, …), to the model's outputs.

    Args:
        model: Model in evaluation mode; its present weights are copied.
    """

    def __init__(self, model: SplitModel) -> None:
        super().__init__()
        self.decoder = fold_gdn(model.decoder)
        self.bottleneck = copy.deepcopy(model.bottleneck)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs; for detectors, those of the dense first stage."""
        features = self.bottleneck.from_wire(*tensors)
        for part in self.decoder.children():
            # A detector's second stage depends on the data; it is a graph of its own.
            features = getattr(part, "dense", part)(features)
        return features if isinstance(features, tuple) else (features,)


class BoxesGraph(nn.Module):
    """The second stage of a detector: see :meth:`splitzoo.zoo.tasks.detection.DetectionTail.boxes`.

    Args:
        model: Detector in evaluation mode.
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
