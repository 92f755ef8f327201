"""The hyperpriors of the latents of Entropic Student and of residual blocks."""

from torch import nn

from ..bottleneck_specs import HyperpriorBottleneck
from .hyperprior import MeanScaleHyperprior, ScaleHyperprior
from .initialisation import init_scales, init_unit_variance
from .integer_hyperprior import IntegerMeanScaleHyperprior, IntegerScaleHyperprior
from .residual import hyper_layers


def entropic_hyperprior(sizes: HyperpriorBottleneck) -> ScaleHyperprior:
    """Build the hyperprior of a latent: Entropic Student's as the SC2 paper (TMLR 2023) has it.

    There y's sides must be of the form 4n − 1: those of the image, multiples of 16. Of residual
    blocks, the image's sides must be multiples of 32.
    """
    latent, z = sizes.encoder_channels[-1], sizes.hyper_channels
    with_means = sizes.kind == "mean-scale-hyperprior"
    h_a, h_s = hyper_layers(sizes) if sizes.network == "residual" else _paper_layers(sizes)
    if sizes.float_hyperprior:
        build = MeanScaleHyperprior if with_means else ScaleHyperprior
    else:
        build = IntegerMeanScaleHyperprior if with_means else IntegerScaleHyperprior
    return build(init_unit_variance(h_a), init_scales(init_unit_variance(h_s), latent), z)


def _paper_layers(sizes: HyperpriorBottleneck) -> tuple[nn.Sequential, nn.Sequential]:
    latent, z = sizes.encoder_channels[-1], sizes.hyper_channels
    with_means = sizes.kind == "mean-scale-hyperprior"
    inner, params = (z * 3 // 2, 2 * latent) if with_means else (z, latent)
    h_a = nn.Sequential(
        nn.Conv2d(latent, z, kernel_size=5, stride=2, padding=1, bias=False),
        nn.LeakyReLU() if with_means else nn.ReLU(),
        nn.Conv2d(z, z, kernel_size=5, stride=2, padding=2, bias=False),
    )
    h_s = nn.Sequential(
        nn.ConvTranspose2d(z, z, kernel_size=5, stride=2, padding=1, bias=False),
        nn.LeakyReLU(),
        nn.ConvTranspose2d(z, inner, kernel_size=5, stride=2, padding=1, bias=False),
        nn.LeakyReLU(),
        nn.Conv2d(inner, params, kernel_size=5, bias=False),
    )
    return h_a, h_s
