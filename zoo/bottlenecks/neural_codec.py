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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from splitrun.coding.autoregressive import AutoregressiveCoder
from splitrun.coding.context_network import ContextNetwork
from splitrun.errors import SpecError, WeightsNotFoundError

from ..bottleneck_specs import NeuralCodecBottleneck
from ..deprecations import quiet_torchscript
from ..hub_errors import bounded_sockets
from .base import Bottleneck
from .factorized_prior import FactorizedPrior
from .hyperprior import Hyperprior, MeanScaleHyperprior, ScaleHyperprior
from .initialisation import init_scales, init_unit_variance

with quiet_torchscript():
    from compressai.zoo.image import model_architectures, model_urls
    from compressai.zoo.pretrained import load_pretrained

MULTIPLE = 64
"""Pixels that the sides are multiples of: the networks halve y four times, z twice more."""

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


class JointAutoregressive(Hyperprior):
    """Quantiser and entropy model of y: Gaussians from z and from the y decoded so far (mbt2018).

    ::

        z_hat ─► h_s ─► params ────────────────────────────┬─► entropy_parameters ─► scales, means
        y_hat before this position ─► context_prediction ──┘

    The coder predicts and rounds y position by position, so the device sends it y itself and the
    parameters of h_s. In evaluation ``forward`` takes the coder's way, without coding. CompressAI's
    own ``forward`` rounds all of y at once and to integers, since its means are not known before
    the context is; its ``compress``, like this class, rounds relative to the means. So the two
    outputs of CompressAI differ, and this one equals that of its ``decompress``.

    M is the number of channels of y.

    Args:
        h_a: Hyper-encoder: y (N, M, h, w) to z (N, D, h/4, w/4).
        h_s: Hyper-decoder: z_hat to parameters (N, 2M, h, w).
        hyper_channels: Channels D of z.
        context_prediction: Masked 5×5 convolution, y_hat to (N, 2M, h, w).
        entropy_parameters: Three 1×1 convolutions and LeakyReLU between them: parameters and
            context (N, 4M, h, w) to scales and, after them, means.
    """

    wire_names = ("latent", "hyper_symbols", "params")
    edge_inputs = ("latent_hat",)
    hyper_outputs = ("params",)
    device_modules = ("h_a", "h_s", "context_prediction", "entropy_parameters")
    edge_modules = ("h_s", "context_prediction", "entropy_parameters")

    def __init__(
        self,
        h_a: nn.Module,
        h_s: nn.Module,
        hyper_channels: int,
        context_prediction: nn.Conv2d,
        entropy_parameters: nn.Sequential,
    ) -> None:
        super().__init__(h_a, h_s, hyper_channels)
        self.context_prediction = context_prediction
        self.entropy_parameters = entropy_parameters

    def forward(self, latent: Tensor) -> Tensor:
        """Quantise y (N, M, h, w): additive noise in training, rounding to the means otherwise."""
        if self.training:
            return self.gaussian_conditional.quantize(latent, "noise")
        _, _, params = self.to_wire(latent)
        network = self._context_network()
        images = zip(latent, params, strict=True)
        return torch.stack([_round_to_means(network, *image) for image in images])

    def forward_with_likelihoods(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return y_hat, and the probabilities of the elements of y and of z."""
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(latent))
        y_hat = self(latent)
        context = self.context_prediction(y_hat)
        gaussians = self.entropy_parameters(torch.cat((self.h_s(z_hat), context), dim=1))
        scales, means = gaussians.chunk(2, 1)
        return y_hat, (self.gaussian_conditional(latent, scales, means)[1], z_likelihoods)

    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y, z less its medians, and the parameters, float32."""
        z = self.h_a(latent) - self.medians
        return latent, z, self.gaussian_params(torch.round(z).to(torch.int32))

    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y (N, M, h, w) float32, symbols of z int32, parameters (N, 2M, h, w) float32."""
        latent, z, params = self.unrounded_wire(latent)
        return latent, torch.round(z).to(torch.int32), params

    def hyper_decode(self, hyper_symbols: Tensor) -> tuple[Tensor, ...]:
        """Compute the parameters (N, 2M, h, w) float32 from z's symbols int32."""
        return (self.gaussian_params(hyper_symbols),)

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Return y_hat (N, M, h, w) float32: the coder has done it all."""
        (latent_hat,) = tensors
        return latent_hat

    def entropy_coder(self) -> AutoregressiveCoder:
        """Return the coder with the present tables and context network."""
        scales = self.gaussian_conditional.scale_table.detach().cpu().numpy()
        return AutoregressiveCoder(*self.tables(), scales, self._context_network())

    def _context_network(self) -> ContextNetwork:
        masked = self.context_prediction
        layers = [layer for layer in self.entropy_parameters if isinstance(layer, nn.Conv2d)]
        # The taps before the centre, in raster order; the mask hides the others.
        taps = masked.weight.flatten(2)[..., : masked.weight[0, 0].numel() // 2]
        weights = [taps, *(layer.weight.flatten(1) for layer in layers)]
        biases = [layer.bias for layer in (masked, *layers)]
        return ContextNetwork(
            {f"weight_{index}": _array(weight) for index, weight in enumerate(weights)}
            | {f"bias_{index}": _array(bias) for index, bias in enumerate(biases)}
        )


def _array(tensor: Tensor | None) -> np.ndarray:
    if tensor is None:
        raise SpecError("The context network of mbt2018 needs biases.")
    return tensor.detach().cpu().numpy().copy()


def _round_to_means(network: ContextNetwork, latent: Tensor, params: Tensor) -> Tensor:
    """Round y (M, h, w) relative to the means that its own rounded context predicts."""
    y = np.moveaxis(latent.detach().cpu().numpy(), 0, -1).astype(np.float64)
    y_hat = network.walk(
        params.detach().cpu().numpy(),
        lambda places, _scales, means: np.rint(y[places] - means) + means,
    )
    return torch.from_numpy(y_hat.astype(np.float32, order="C")).to(latent.device)


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
    if sizes.architecture == "bmshj2018-hyperprior":
        return encoder, ScaleHyperprior(*hyper), decoder
    if sizes.architecture == "mbt2018-mean":
        return encoder, MeanScaleHyperprior(*hyper), decoder
    context = (model.context_prediction, model.entropy_parameters)
    return encoder, JointAutoregressive(*hyper, *context), decoder


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
