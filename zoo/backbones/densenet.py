"""DenseNet-169 and -201, with torchvision's weights.

Huang et al. 2017, "Densely Connected Convolutional Networks" (https://arxiv.org/abs/1608.06993).
"""

from splitrun.preprocessing import Preprocessing

from .entry import Backbone, Stage, register

for _name, _third, _fourth in (("densenet169", 1280, 1664), ("densenet201", 1792, 1920)):
    register(
        Backbone(
            name=_name,
            timm_name=_name,
            stages=(
                Stage("features.denseblock1", 256, 4),
                Stage("features.transition1", 128, 8),
                Stage("features.denseblock2", 512, 8),
                Stage("features.transition2", 256, 16),
                Stage("features.denseblock3", _third, 16),
                Stage("features.transition3", _third // 2, 32),
                Stage("features.norm5", _fourth, 32),
            ),
            preprocessing=Preprocessing(
                resize=256,
                crop=(224, 224),
                interpolation="bilinear",
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
            ),
            base_model=f"timm/{_name}.tv_in1k",
            reduction="features.transition2",
        )
    )
