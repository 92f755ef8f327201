"""Random weights that keep signals at their size.

PyTorch's own initialisation shrinks them: nearly every symbol of an untrained model would be 0, and
its rate and its graphs would say nothing.
"""

import math

from torch import nn

_RECTIFIERS = (nn.ReLU, nn.LeakyReLU)
_RECTIFIED_MEAN = 1 / math.sqrt(2 * math.pi)  # of a standard normal variable
_RECTIFIED_POWER = 0.5


def init_unit_variance(layers: nn.Sequential) -> nn.Sequential:
    """Initialise the convolutions so that inputs of variance 1 give outputs of variance 1.

    A rectifier halves the power of its input; the convolution after it makes up for that.

    Returns:
        The layers.
    """
    before = None
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            power = _RECTIFIED_POWER if isinstance(before, _RECTIFIERS) else 1
            nn.init.normal_(layer.weight, std=(power * _terms(layer)) ** -0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        before = layer
    return layers


def init_scales(layers: nn.Sequential, scales: int) -> nn.Sequential:
    """Initialise the last convolution, after a rectifier, so that its outputs can be scales.

    Scales are positive, and those of an untrained model should not all be below the smallest table.

    Args:
        layers: Layers that are initialised already.
        scales: Number of the last convolution's channels, from the first, that are scales: they
            get mean 1 and deviation 1/2.

    Returns:
        The layers.
    """
    last = [layer for layer in layers if isinstance(layer, nn.Conv2d)][-1]
    terms = _terms(last)
    nn.init.normal_(
        last.weight[:scales].detach(),
        mean=1 / (terms * _RECTIFIED_MEAN),
        std=0.5 / math.sqrt(terms * _RECTIFIED_POWER),
    )
    return layers


def _terms(layer: nn.Conv2d | nn.ConvTranspose2d) -> float:
    """Return how many products each output element is the sum of."""
    area = math.prod(layer.kernel_size)
    if isinstance(layer, nn.ConvTranspose2d):
        area /= math.prod(layer.stride)
    return layer.in_channels / layer.groups * area
