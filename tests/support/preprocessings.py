"""Preprocessing that several files test, and images for it."""

from dataclasses import replace

import numpy as np
from PIL import Image

from splitzoo.zoo import Preprocessing

IMAGENET = Preprocessing(
    resize=256,
    crop=(224, 224),
    interpolation="bilinear",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
COCO = replace(IMAGENET, resize=800, crop=(800, 1344), longest=1333, fit="pad")
ONE_GREY_LEVEL = 1 / 255 / min(IMAGENET.std)


def made_image(width, height, seed=0):
    """Half noise, the hardest for an interpolation, half a gradient."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    slope = np.linspace(0, 255, width)[None, :, None]
    return Image.fromarray(
        np.where(np.arange(height)[:, None, None] % 8 < 4, noise, slope).astype("u1")
    )
