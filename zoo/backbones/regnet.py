"""RegNetY-6.4GF.

Radosavovic et al. 2020, "Designing Network Design Spaces" (https://arxiv.org/abs/2003.13678).
"""

from splitrun.preprocessing import Preprocessing

from .entry import Backbone, Stage, register

register(
    Backbone(
        name="regnety6.4gf",
        timm_name="regnety_064",
        stages=(
            Stage("s1", 144, 4),
            Stage("s2", 288, 8),
            Stage("s3", 576, 16),
            Stage("s4", 1296, 32),
        ),
        # sc2-benchmark's: the crop of the authors' weights, 0.875, not of timm's newer ones.
        preprocessing=Preprocessing(
            resize=256,
            crop=(224, 224),
            interpolation="bicubic",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        base_model="timm/regnety_064.pycls_in1k",
    ),
    "regnety_064",
)
