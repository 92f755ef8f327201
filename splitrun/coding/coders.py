"""All kinds of coders. Adding one is one file and one line here."""

from .autoregressive import AutoregressiveCoder
from .coder import Coder
from .factorized import ContextCoder, FactorizedCoder
from .features import FeaturesCoder
from .hyperprior import ContextHyperpriorCoder, HyperpriorCoder
from .pixels import PixelsCoder
from .quantised import ContextQuantisedCoder, QuantisedCoder
from .relu_range import ReluQuantisedCoder

CODERS: dict[str, type[Coder]] = {
    coder.kind: coder
    for coder in (
        FactorizedCoder,
        HyperpriorCoder,
        AutoregressiveCoder,
        QuantisedCoder,
        ContextCoder,
        ContextHyperpriorCoder,
        ContextQuantisedCoder,
        ReluQuantisedCoder,
        FeaturesCoder,
        PixelsCoder,
    )
}
