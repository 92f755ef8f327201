"""Inception-v3, with torchvision's weights.

Szegedy et al. 2016, "Rethinking the Inception Architecture" (https://arxiv.org/abs/1512.00567).
"""

from splitrun.preprocessing import Preprocessing

from .entry import Backbone, register

register(
    Backbone(
        name="inception_v3",
        timm_name="inception_v3",
        # Convolutions without padding: 299 pixels give 71 and 35 features, not 75 and 38, so no
        # layer of it has the features that a bottleneck of stride 4 gives.
        stages=(),
        preprocessing=Preprocessing(
            resize=342,
            crop=(299, 299),
            interpolation="bilinear",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        base_model="timm/inception_v3.tv_in1k",
        reduction="Pool2",
    )
)
