"""timm backbones, cut where a bottleneck takes the place of their first layers."""

from torch import Tensor, nn

from .deprecations import quiet_torchscript

with quiet_torchscript():
    import timm

_RESNET_TAIL = ("layer2", "layer3", "layer4", "global_pool", "fc")


class ResNetTail(nn.Module):
    """A ResNet from ``layer2`` on: features (N, 256, H/4, W/4) to logits (N, classes).

    Args:
        name: timm's name of the ResNet.
        num_classes: Of the classifier.
    """

    def __init__(self, name: str, num_classes: int) -> None:
        super().__init__()
        whole = timm.create_model(
            # timm's zeros would take every residual branch out of an untrained network.
            name,
            pretrained=False,
            num_classes=num_classes,
            zero_init_last=False,
        )
        for part in _RESNET_TAIL:
            self.add_module(part, whole.get_submodule(part))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, classes) float32."""
        for part in self.children():
            features = part(features)
        return features
