"""The layers after which the SC2 paper cuts a ResNet, and others likewise."""

from typing import Literal

from ..backbones import Backbone

Stride = Literal[0, 4, 8, 16, 32]

LAYERS: dict[str, tuple[str, int, Stride]] = {
    "layer1": ("layer1", 256, 4),
    "layer2": ("layer2", 512, 8),
    "layer3": ("layer3", 1024, 16),
    "layer4": ("layer4", 2048, 32),
    "avgpool": ("global_pool.pool", 2048, 0),
}
"""torchvision's name of a layer to timm's, its channels, and its stride; 0 after global pooling."""


def stage_layers(backbone: Backbone) -> dict[str, tuple[str, int, Stride]]:
    """Return the same of any backbone: the layers that end its stages, as timm names them."""
    return {
        one.layer: (one.layer, one.channels, one.stride)  # pyright: ignore[reportReturnType]
        for one in backbone.stages
        if one.stride in (4, 8, 16, 32)
    }
