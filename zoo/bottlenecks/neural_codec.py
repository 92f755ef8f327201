"""Learned image codecs of CompressAI (https://arxiv.org/abs/2011.03029) as bottlenecks.

::

    image in [0, 1] ─► pad ─► g_a ─► y ─► bottleneck ─► y_hat ─► g_s ─► crop ─► image in [0, 1]

The layers are CompressAI's; the bottlenecks are those of the other models. Ballé et al. 2018
(https://arxiv.org/abs/1802.01436): bmshj2018-factorized, bmshj2018-hyperprior; Minnen et al. 2018
(https://arxiv.org/abs/1809.02736): mbt2018-mean, mbt2018.
"""

import pickle
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from splitrun.errors import SpecError, WeightsNotFoundError

from ..bottleneck_specs import NeuralCodecBottleneck
from ..deprecations import quiet_torchscript
from ..hub_errors import bounded_sockets
from .base import Bottleneck
from .factorized_prior import FactorizedPrior
from .hyperprior import MeanScaleHyperprior, ScaleHyperprior
from .initialisation import init_scales, init_unit_variance
from .integer_hyperprior import (
    IntegerJointAutoregressive,
    IntegerMeanScaleHyperprior,
    IntegerScaleHyperprior,
)
from .joint_autoregressive import JointAutoregressive

with quiet_torchscript():
    from compressai.zoo.image import model_architectures, model_urls
    from compressai.zoo.pretrained import load_pretrained

MULTIPLE = 64
"""Pixels that the sides are multiples of: the networks halve y four times, z twice more."""

_HYPERPRIORS: dict[str, tuple[type[Bottleneck], type[Bottleneck]]] = {
    "bmshj2018-hyperprior": (ScaleHyperprior, IntegerScaleHyperprior),
    "mbt2018-mean": (MeanScaleHyperprior, IntegerMeanScaleHyperprior),
    "mbt2018": (JointAutoregressive, IntegerJointAutoregressive),
}
"""Bottlenecks by architecture: with the hyperprior in floats, and in integers."""

Parts = tuple[nn.Sequential, Bottleneck, nn.Sequential]
"""Encoder, bottleneck and decoder."""


class Pad(nn.Module):
    """Pads images with zeros, at the right and the bottom, to multiples of 64."""

    def forward(self, image: Tensor) -> Tensor:
        """Pad the image (N, 3, H, W) float32."""
        height, width = image.shape[-2:]
        if height % MULTIPLE == width % MULTIPLE == 0:
            return image
        return functional.pad(image, (0, -width % MULTIPLE, 0, -height % MULTIPLE))


class Crop(nn.Module):
    """Removes the border that :class:`Pad` added, and clips to [0, 1].

    Args:
        shape: Height and width of the image before it was padded.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, decoded: Tensor) -> Tensor:
        """Crop the decoded image (N, 3, H', W') float32.

        Raises:
            SpecError: The image was of another size.
        """
        height, width = self.shape
        padded = (height + -height % MULTIPLE, width + -width % MULTIPLE)
        if tuple(decoded.shape[-2:]) != padded:
            raise SpecError(
                f"The decoded image is {tuple(decoded.shape[-2:])}; {padded} was expected.",
                next_step=f"Give images of {height} by {width} pixels.",
            )
        return decoded[..., :height, :width].clamp(0, 1)


def compressai_model(sizes: NeuralCodecBottleneck) -> Any:
    """Build CompressAI's own model, with random weights that leave no part of it idle.

    Its tables are not made.
    """
    n, m = sizes.sizes
    model: Any = model_architectures[sizes.architecture](n, m)
    parts = [getattr(model, name, None) for name in ("g_a", "g_s", "h_a", "h_s")]
    entropy_parameters = getattr(model, "entropy_parameters", None)
    for part in (*parts, entropy_parameters):
        if part is not None:
            init_unit_variance(part)
    # Grey, so that half of an untrained decoder's output is not cut off as black.
    nn.init.constant_(model.g_s[-1].bias, 0.5)
    scales_from = entropy_parameters if entropy_parameters is not None else parts[-1]
    if scales_from is not None:
        init_scales(scales_from, m)
    return model


def build(sizes: NeuralCodecBottleneck, shape: tuple[int, int]) -> Parts:
    """Build a codec with random weights.

    Args:
        sizes: Architecture, N and M.
        shape: Height and width of the images; any.

    Returns:
        Encoder: image (N, 3, H, W) in [0, 1] to y. Bottleneck. Decoder: y_hat to image in [0, 1].
    """
    model = compressai_model(sizes)
    encoder = nn.Sequential(OrderedDict(pad=Pad(), g_a=model.g_a))
    decoder = nn.Sequential(OrderedDict(g_s=model.g_s, crop=Crop(shape)))
    n, m = sizes.sizes
    if sizes.architecture == "bmshj2018-factorized":
        return encoder, FactorizedPrior(m), decoder
    hyper = (model.h_a, model.h_s, n)
    in_floats, in_integers = _HYPERPRIORS[sizes.architecture]
    if sizes.architecture == "mbt2018":
        hyper = (*hyper, model.context_prediction, model.entropy_parameters)
    return encoder, (in_floats if sizes.float_hyperprior else in_integers)(*hyper), decoder


def copy_weights(parts: Parts, model: nn.Module) -> None:
    """Copy the weights and tables of CompressAI's model into the parts of the same architecture.

    Raises:
        RuntimeError: A tensor is missing, left over, or of another shape.
    """
    encoder, bottleneck, decoder = parts
    whole = nn.ModuleDict({"encoder": encoder, "bottleneck": bottleneck, "decoder": decoder})
    homes = {"g_a": "encoder", "g_s": "decoder"}
    whole.load_state_dict(
        {
            f"{homes.get(name.partition('.')[0], 'bottleneck')}.{name}": tensor
            for name, tensor in model.state_dict().items()
        }
    )


def load_compressai_weights(
    parts: Parts, architecture: str, quality: int, metric: str = "mse"
) -> None:
    """Download the weights that CompressAI trained, and copy them into the parts.

    The file is checked against the hash in its name, and only tensors are unpickled; the layouts of
    older releases are converted by CompressAI's own code.

    Args:
        parts: Parts that :func:`build` made, with the sizes that CompressAI trained.
        architecture: CompressAI's name, such as "bmshj2018-hyperprior".
        quality: Quality from 1 to 8.
        metric: Metric of the training, "mse" or "ms-ssim".

    Raises:
        WeightsNotFoundError: CompressAI has none, or they cannot be downloaded or do not fit.
    """
    name = f"{architecture}, quality {quality}, {metric}"
    url = model_urls.get(architecture, {}).get(metric, {}).get(quality)
    if url is None:
        raise WeightsNotFoundError(
            name,
            "CompressAI publishes none",
            next_step="Choose quality 1 to 8 and the metric mse or ms-ssim.",
        )
    try:
        with bounded_sockets():
            stored = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", progress=True, check_hash=True, weights_only=True
            )
        model = model_architectures[architecture].from_state_dict(load_pretrained(stored))
        copy_weights(parts, model)
    except OSError as error:
        raise WeightsNotFoundError(
            name,
            f"{url} cannot be read: {error}",
            next_step="Connect to the network, or put the file into torch's hub cache: "
            f"{torch.hub.get_dir()}/checkpoints",
        ) from error
    except (RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise WeightsNotFoundError(
            name,
            f"the file at {url} is damaged or of another model: {error}",
            next_step=f"Remove it from {torch.hub.get_dir()}/checkpoints and try again.",
        ) from error
    if parts[1].state_dict()["entropy_bottleneck._offset"].numel() == 0:
        parts[1].update()
