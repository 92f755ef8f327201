"""All kinds of coders. Adding one is one file and one line here."""

from .autoregressive import AutoregressiveCoder
from .coder import Coder
from .factorized import FactorizedCoder
from .features import FeaturesCoder
from .hyperprior import HyperpriorCoder
from .pixels import PixelsCoder
from .quantised import QuantisedCoder

CODERS: dict[str, type[Coder]] = {
    coder.kind: coder
    for coder in (
        FactorizedCoder,
        HyperpriorCoder,
        AutoregressiveCoder,
        QuantisedCoder,
        FeaturesCoder,
        PixelsCoder,
    )
}
