"""EfficientNet-L2 with the weights of Noisy Student, at its two input sizes.

Xie et al. 2020, "Self-training with Noisy Student improves ImageNet classification"
(https://arxiv.org/abs/1911.04252).
"""

from splitrun.preprocessing import Preprocessing

from .entry import Backbone, Stage, register

for _name, _tag, _resize, _crop in (
    ("tf_efficientnet_l2_ns", "ns_jft_in1k", 833, 800),
    ("tf_efficientnet_l2_ns_475", "ns_jft_in1k_475", 507, 475),
):
    register(
        Backbone(
            name=_name,
            timm_name="tf_efficientnet_l2",
            stages=(
                Stage("blocks.1", 104, 4),
                Stage("blocks.2", 176, 8),
                Stage("blocks.4", 480, 16),
                Stage("blocks.6", 1376, 32),
            ),
            preprocessing=Preprocessing(
                resize=_resize,
                crop=(_crop, _crop),
                interpolation="bicubic",
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
            ),
            base_model=f"timm/tf_efficientnet_l2.{_tag}",
        )
    )
