"""Two classifiers on the same images: whose answers are right where the other's are wrong.

Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions"
(https://doi.org/10.1002/sim.1781): Wald's interval after half an image more in each cell.
"""

import math
from collections.abc import Iterable

from .report import Count, Part

_NORMAL_95 = 1.959964
"""Deviations within which 95% of a normal distribution lie."""


class PairedScores(Part):
    """Top-1 of a model beside another's, on the same images.

    Attributes:
        against: Name of the other model.
        model_id: Id of the other model.
        images: Number of images.
        gained: Images that this model alone answers correctly.
        lost: Images that the other one alone answers correctly.
    """

    against: str
    model_id: str
    images: Count
    gained: Count
    lost: Count

    @property
    def difference(self) -> float:
        """This model's top-1 less the other's, a share in [-1, 1]."""
        return (self.gained - self.lost) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the difference, shares in [-1, 1]."""
        gained, lost, images = self.gained + 0.5, self.lost + 0.5, self.images + 2
        middle = (gained - lost) / images
        half = _NORMAL_95 * math.sqrt(gained + lost - (gained - lost) ** 2 / images) / images
        return max(middle - half, -1.0), min(middle + half, 1.0)

    def said(self) -> str:
        """Return the difference in points with its interval, in words."""
        low, high = self.interval
        return (
            f"{100 * self.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f} at 95%; "
            f"{self.lost} images lost, {self.gained} gained)"
        )


def pair(
    ours: Iterable[bool], theirs: Iterable[bool], *, against: str, model_id: str
) -> PairedScores:
    """Count the images that one of two models answers correctly, given in the same order."""
    both = list(zip(ours, theirs, strict=True))
    return PairedScores(
        against=against,
        model_id=model_id,
        images=len(both),
        gained=both.count((True, False)),
        lost=both.count((False, True)),
    )
