"""Random features with the grain of real ones."""

import numpy as np


def smooth(shape, seed=0):
    """Random fields with the grain of features: (C, h, w) float32, standard normal."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    field = rng.normal(size=(channels, height + 4, width + 4))
    for axis in (1, 2):
        kept = field.shape[axis] - 4
        field = sum(
            weight * np.take(field, range(start, start + kept), axis)
            for start, weight in enumerate((1, 4, 6, 4, 1))
        )
    return (field / field.std()).astype(np.float32)


def relu_features(shape, seed=0):
    """Non-negative features of unequal scales, some planes of which are dead."""
    rng = np.random.default_rng(seed)
    scales = rng.lognormal(sigma=0.7, size=(shape[0], 1, 1)).astype(np.float32)
    alive = rng.random((shape[0], 1, 1)) > 0.05
    return np.maximum(smooth(shape, seed), 0) * scales * alive
