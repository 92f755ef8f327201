"""The linear transforms that residual bottlenecks begin with: principal components of features.

::

    features in blocks of 2×2 ─► covariance C          \\
    gradients of the answer's log-probability ─► G      ├─► eigenvectors of G^½ C G^½ ─► g_a, g_s

To second order, an error δ of a block changes the network's answer by a divergence of ½ δᵀ G δ,
where G is the Fisher information: the mean outer product of the gradients of log p(c), with classes
c drawn from the answer itself (Amari 1998, "Natural gradient works efficiently in learning"). In
coordinates of G^½ all errors of one length cost the same, and the principal components are the
linear transform for them. Where training at random begins takes hours to come to that.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from splitrun.errors import RecipeError

from ..bottleneck_specs import HEAD_STRIDE
from ..bottlenecks.residual import FEATURE_GAIN, LATENT_GAIN
from ..datasets import Sample
from ..split_model import SplitModel
from .data import EvaluationImages, Loader, check_read

_BLOCK = 2
_STEP = 3.0
"""Step of a symbol, in deviations of the features."""
_DRAWS = 2
"""Number of classes that are drawn from each answer."""
_FLOOR = 1e-3
"""Added to G, of mean 1: directions that the images did not tell apart are not free."""
_BATCH = 16


@dataclass
class _Moments:
    """Sums over blocks of (A·4,) features: of themselves and of outer products."""

    blocks: int
    total: Tensor
    products: Tensor
    gradients: Tensor


def begin_with_components(student: SplitModel, samples: Sequence[Sample], seed: int) -> None:
    """Set the linear paths of g_a and g_s to principal components of the features.

    The residual branches begin at nothing. The last components, which carry least, are left out
    where the latent has fewer channels.

    Args:
        student: Model whose head and tail have the network's weights already.
        samples: Images to compute the features of.
        seed: Seed for the classes that are drawn.

    Raises:
        RecipeError: The bottleneck is none of residual blocks, or narrower than the features.
    """
    sizes: Any = student.spec.bottleneck
    if getattr(sizes, "network", "") != "residual" or sizes.stride != HEAD_STRIDE:
        raise RecipeError(f"components: {student.spec.name} has no linear paths between features.")
    features, latent = sizes.encoder_channels[0], sizes.encoder_channels[-1]
    inner = min(*sizes.encoder_channels[1:2], *sizes.decoder_channels[:2])
    if inner < features or latent > _BLOCK**2 * features:
        raise RecipeError(
            f"components: widths of {inner} and {latent} do not hold {features} channels."
        )
    student.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = _moments(
            student, Loader(EvaluationImages(samples, student.spec), 0, batch_size=_BATCH)
        )
    mean = found.total / found.blocks
    covariance = found.products / found.blocks - torch.outer(mean, mean)
    fisher = found.gradients * len(mean) / found.gradients.trace()
    values, vectors = torch.linalg.eigh(fisher + _FLOOR * torch.eye(len(mean), dtype=mean.dtype))
    root, inverse = (vectors @ torch.diag(values**power) @ vectors.T for power in (0.5, -0.5))
    components = torch.linalg.eigh(root @ covariance @ root)[1].flip(1)[:, :latent]
    step = _STEP * covariance.trace().div(len(mean)).sqrt()
    analysis, synthesis = components.T @ root / step, inverse @ components * step
    # A transposed convolution has one bias for each channel.
    center = mean.reshape(features, -1).mean(1)
    with torch.no_grad():
        _set_analysis(student.encoder.get_submodule("g_a"), analysis, center)
        _set_synthesis(student.decoder.get_submodule("g_s"), synthesis, center)


def choose_samples(samples: Sequence[Sample], number: int, seed: int) -> list[Sample]:
    """Return so many of the samples, or all there are, by a seed."""
    return random.Random(seed).sample(list(samples), min(number, len(samples)))


def _moments(student: SplitModel, batches: Iterable[tuple[Any, Any]]) -> _Moments:
    head, tail = student.encoder.get_submodule("head"), student.decoder.get_submodule("tail")
    sums = _Moments(0, *(torch.zeros(()) for _ in range(3)))
    for images, _ in batches:
        check_read(images)
        with torch.no_grad():
            features = head(images)
        blocks = _blocks(features)
        sums.blocks += len(blocks)
        sums.total = sums.total + blocks.sum(0)
        sums.products = sums.products + blocks.T @ blocks
        for slope in _slopes(tail, features):
            slopes = _blocks(slope)
            sums.gradients = sums.gradients + slopes.T @ slopes
    return sums


@torch.enable_grad()
def _slopes(tail: nn.Module, features: Tensor) -> Iterator[Tensor]:
    """Give the gradients of the log-probability of classes that are drawn from the answer."""
    logs = functional.log_softmax(tail(features.requires_grad_()), 1)
    for draw in range(_DRAWS):
        chosen = logs.gather(1, torch.multinomial(logs.detach().exp(), 1)).sum()
        (slope,) = torch.autograd.grad(chosen, features, retain_graph=draw + 1 < _DRAWS)
        yield slope


def _blocks(features: Tensor) -> Tensor:
    """Return features (N, A, h, w) as blocks, (N · h/2 · w/2, A · 4) float64."""
    unfolded = functional.unfold(features, _BLOCK, stride=_BLOCK)
    return unfolded.transpose(1, 2).flatten(0, 1).double()


def _set_analysis(g_a: nn.Module, analysis: Tensor, center: Tensor) -> None:
    _, first, residual, last, _ = _children(g_a)
    channels = first.in_channels
    _pass_through(first, channels)
    nn.init.zeros_(residual.expand_norm.weight)
    last.weight.zero_()
    factor = FEATURE_GAIN / LATENT_GAIN
    last.weight[:, :channels] = factor * analysis.reshape(len(analysis), channels, _BLOCK, _BLOCK)
    last.bias.copy_(-(analysis @ center.repeat_interleave(_BLOCK**2)) / LATENT_GAIN)


def _set_synthesis(g_s: nn.Module, synthesis: Tensor, center: Tensor) -> None:
    up, first, middle, second, last, _ = _children(g_s)
    channels = last.out_channels
    # Taps 1 and 2 of the 4 of a transposed convolution of stride 2 and padding 1 are the block's.
    up.weight[:, :channels] = 0
    taps = synthesis.T.reshape(-1, channels, _BLOCK, _BLOCK) / FEATURE_GAIN
    up.weight[:, :channels, 1:3, 1:3] = taps
    up.bias[:channels] = center / FEATURE_GAIN
    for residual in (first, second):
        nn.init.zeros_(residual.expand_norm.weight)
    _pass_through(middle, channels)
    _pass_through(last, channels)


def _pass_through(layer: Any, channels: int) -> None:
    """Let a convolution give its first channels as they are; the others stay at random."""
    center = layer.kernel_size[0] // 2
    layer.weight[:channels] = 0
    layer.weight[range(channels), range(channels), center, center] = 1
    layer.bias[:channels] = 0


def _children(layers: nn.Module) -> list[Any]:
    return list(layers.children())
