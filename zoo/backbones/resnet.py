"""ResNet-50, -101 and -152, with torchvision's weights.

He et al. 2016, "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385).
"""

from splitrun.preprocessing import Preprocessing

from .entry import Backbone, Stage, register

for _name in ("resnet50", "resnet101", "resnet152"):
    register(
        Backbone(
            name=_name,
            timm_name=_name,
            stages=(
                Stage("layer1", 256, 4),
                Stage("layer2", 512, 8),
                Stage("layer3", 1024, 16),
                Stage("layer4", 2048, 32),
            ),
            preprocessing=Preprocessing(
                resize=256,
                crop=(224, 224),
                interpolation="bilinear",
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
            ),
            base_model=f"timm/{_name}.tv_in1k",
            reduction="layer2",
        )
    )
