"""The layers of a ResNet with bottleneck blocks after which the SC2 paper cuts."""

from typing import Literal

Stride = Literal[0, 4, 8, 16, 32]

LAYERS: dict[str, tuple[str, int, Stride]] = {
    "layer1": ("layer1", 256, 4),
    "layer2": ("layer2", 512, 8),
    "layer3": ("layer3", 1024, 16),
    "layer4": ("layer4", 2048, 32),
    "avgpool": ("global_pool.pool", 2048, 0),
}
"""torchvision's name of a layer to timm's, its channels, and its stride; 0 after global pooling."""
