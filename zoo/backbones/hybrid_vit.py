"""Hybrid ViT R26+S/32: the stages of a ResNet, then a transformer.

Steiner et al. 2022, "How to train your ViT?" (https://arxiv.org/abs/2106.10270).
"""

from splitrun.preprocessing import Preprocessing

from .entry import Backbone, Stage, register

_STAGES = "patch_embed.backbone.stages"

register(
    Backbone(
        name="hybrid_vit_small_r26_s32_224",
        timm_name="vit_small_r26_s32_224",
        stages=(
            Stage(f"{_STAGES}.0", 256, 4),
            Stage(f"{_STAGES}.1", 512, 8),
            Stage(f"{_STAGES}.2", 1024, 16),
            Stage(f"{_STAGES}.3", 2048, 32),
        ),
        preprocessing=Preprocessing(
            resize=248,
            crop=(224, 224),
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        base_model="timm/vit_small_r26_s32_224.augreg_in21k_ft_in1k",
    ),
    "vit_small_r26_s32_224",
)
