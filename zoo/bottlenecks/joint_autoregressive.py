"""The bottleneck of mbt2018: a hyperprior, and a network over what has been decoded so far."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from splitrun.coding.autoregressive import AutoregressiveCoder
from splitrun.coding.coder import Coder
from splitrun.coding.context_network import ContextNetwork
from splitrun.errors import SpecError

from .hyperprior import Hyperprior


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
    device_modules: ClassVar[tuple[str, ...]] = (
        "h_a",
        "h_s",
        "context_prediction",
        "entropy_parameters",
    )
    edge_modules: ClassVar[tuple[str, ...]] = ("h_s", "context_prediction", "entropy_parameters")

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
        network = ContextNetwork(self._context_weights())
        images = zip(latent, params, strict=True)
        return torch.stack([_round_to_means(network, *image) for image in images])

    def forward_with_likelihoods(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return y_hat, and the probabilities of the elements of y and of z."""
        z_hat, z_likelihoods = self.entropy_bottleneck(self._hyper_encode(latent))
        y_hat = self(latent)
        context = self.context_prediction(y_hat)
        gaussians = self.entropy_parameters(torch.cat((self._synthesise(z_hat), context), dim=1))
        scales, means = gaussians.chunk(2, 1)
        return y_hat, (self.gaussian_conditional(latent, scales, means)[1], z_likelihoods)

    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y, z less its medians, and the parameters, float32."""
        z = self._hyper_encode(latent) - self.medians
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

    def update(self) -> None:
        """Make the tables, and the weights that the mask hides 0.

        CompressAI's layer would do so when it first runs: the model's digest would change then.
        """
        with torch.no_grad():
            self.context_prediction.weight *= self.context_prediction.get_buffer("mask")
        super().update()

    def entropy_coder(self) -> Coder:
        """Return the coder with the present tables and context network."""
        scales = self.gaussian_conditional.scale_table.detach().cpu().numpy()
        return AutoregressiveCoder(*self.tables(), scales, ContextNetwork(self._context_weights()))

    def _context_weights(self) -> dict[str, np.ndarray]:
        masked = self.context_prediction
        layers = [layer for layer in self.entropy_parameters if isinstance(layer, nn.Conv2d)]
        # The taps before the centre, in raster order; the mask hides the others.
        taps = masked.weight.flatten(2)[..., : masked.weight[0, 0].numel() // 2]
        weights = [taps, *(layer.weight.flatten(1) for layer in layers)]
        biases = [layer.bias for layer in (masked, *layers)]
        return {f"weight_{index}": _array(weight) for index, weight in enumerate(weights)} | {
            f"bias_{index}": _array(bias) for index, bias in enumerate(biases)
        }


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
