"""timm backbones, cut where a bottleneck takes the place of their first layers."""

import timm
from torch import Tensor, nn


class ResNetTail(nn.Module):
    """A ResNet from ``layer2`` on: features (N, 256, H/4, W/4) to logits (N, classes).

    Args:
        name: timm's name of the ResNet.
        num_classes: Of the classifier.
    """

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        whole = timm.create_model(name, pretrained=False, num_classes=num_classes)
        self.layer2, self.layer3, self.layer4 = whole.layer2, whole.layer3, whole.layer4
        self.global_pool, self.fc = whole.global_pool, whole.fc

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, classes) float32."""
        deep = self.layer4(self.layer3(self.layer2(features)))
        return self.fc(self.global_pool(deep))
