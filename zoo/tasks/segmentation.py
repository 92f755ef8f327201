"""DeepLabv3 on a backbone that is cut.

Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation"
(https://arxiv.org/abs/1706.05587).
"""

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from ..backbones.build import build_features
from ..backbones.table import find_backbone

_OUTPUT_STRIDE = 8


class SegmentationTail(nn.Module):
    """The rest of a backbone, dilated to stride 8, and torchvision's DeepLabv3 head.

    ::

        features ─► body ─┬─► classifier ─► upsampled logits
                          └─► aux_classifier ─► upsampled logits (in training)

    The state dict has the names of torchvision's and sc2bench's DeepLabv3, with ``body`` in place
    of ``backbone``.

    Args:
        backbone: timm's name of the network.
        cut: Layer after which this part begins; None for the whole network, which takes images.
        num_classes: Number of classes, with the background.
        input_size: Height and width of the image, pixels. The features have a fourth of it, rounded
            up, so they do not tell it.

    Raises:
        UnknownNameError: timm has no such network, or the network no such layer.
        SpecError: It cannot be cut there, or has no features at the strides that the heads need.
    """

    def __init__(
        self, backbone: str, cut: str | None, num_classes: int, input_size: tuple[int, int]
    ) -> None:
        super().__init__()
        middle, deep = find_backbone(backbone).dense_stages[2:]
        self.input_size = input_size
        self._layers = (middle.layer, deep.layer)
        self.body = build_features(backbone, cut, self._layers, output_stride=_OUTPUT_STRIDE)
        self.classifier = DeepLabHead(deep.channels, num_classes)
        self.aux_classifier = FCNHead(middle.channels, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, classes, H, W) float32 for features (N, C, ⌈H / 4⌉, ⌈W / 4⌉)."""
        return self._upsampled(self.classifier(self.body(features)[self._layers[1]]))

    def forward_with_aux(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of ``forward`` and those of the auxiliary head, both of the input size.

        The auxiliary head looks at the features before the last stage; only training needs it.
        """
        middle, deep = self._layers
        given = self.body(features)
        main, aux = self.classifier(given[deep]), self.aux_classifier(given[middle])
        return self._upsampled(main), self._upsampled(aux)

    def _upsampled(self, logits: Tensor) -> Tensor:
        return functional.interpolate(
            logits, size=self.input_size, mode="bilinear", align_corners=False
        )
