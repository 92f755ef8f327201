"""What every bottleneck offers: from the encoder's latent to the tensors on the wire, and back."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from splitrun.coding.coder import Coder

from ..deprecations import quiet_torchscript

with quiet_torchscript():
    from compressai.entropy_models import EntropyBottleneck


class Bottleneck(nn.Module, ABC):
    """Quantiser and entropy model of a latent.

    ::

        device                                             edge
        latent ─► send ─► wire tensors ─► Coder ═ link ═ Coder ─► received tensors ─► receive
                                                           │ ▲                           │
                               hyper: symbols of z ◄───────┘ └─── indexes, …         latent_hat

    ``send``, ``hyper`` and ``receive`` are what the exported graphs compute; ``forward`` is the
    path without bytes.

    Attributes:
        wire_names: Names of the device graph's outputs; the first is the main one.
        edge_inputs: Names of the edge graph's inputs.
        hyper_outputs: Names of the hyper graph's outputs; empty where there is no hyper graph.
        device_modules: Submodules whose parameters the device holds, beside the encoder's.
        edge_modules: Submodules whose parameters the edge holds, beside the decoder's.
        exact: Wire tensors that others are computed from: one that differs changes those entirely.
    """

    wire_names: ClassVar[tuple[str, ...]]
    edge_inputs: ClassVar[tuple[str, ...]]
    hyper_outputs: ClassVar[tuple[str, ...]] = ()
    side_information: ClassVar[tuple[str, ...]] = ()
    device_modules: ClassVar[tuple[str, ...]] = ()
    edge_modules: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def forward(self, latent: Tensor) -> Tensor:
        """Quantise the latent (N, C, h, w): with noise in training, by rounding otherwise."""

    def likelihoods(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return the probabilities of all quantised elements; empty without a learned density."""
        return ()

    def forward_with_likelihoods(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return ``forward`` and ``likelihoods`` of one and the same noise, for training."""
        return self(latent), self.likelihoods(latent)

    def aux_loss(self) -> Tensor | None:
        """Return what draws the quantiles of learned densities to their places, if there are any.

        Its gradient reaches nothing else.
        """
        models = [one for one in self.modules() if isinstance(one, EntropyBottleneck)]
        return sum((one.loss() for one in models[1:]), models[0].loss()) if models else None

    def update_quantiles(self) -> None:
        """Put the outer quantiles, from which tables reach, where the densities now have them.

        Medians stay: latents are rounded around them, and what comes after was validated so.
        """
        for one in self.modules():
            if not isinstance(one, EntropyBottleneck):
                continue
            medians = one.quantiles[..., 1].detach().clone()
            one.update(force=True, update_quantiles=True)
            with torch.no_grad():
                one.quantiles[..., 1] = medians
                one.quantiles[..., 0].clamp_(max=medians - 1)
                one.quantiles[..., 2].clamp_(min=medians + 1)
            one.update(force=True)

    @abstractmethod
    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return the wire tensors before rounding: those that are floats as they are sent."""

    @abstractmethod
    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Turn the latent (N, C, h, w) float32 into the wire tensors, each (N, …)."""

    def hyper_decode(self, hyper_symbols: Tensor) -> tuple[Tensor, ...]:
        """Compute the scale indexes int32, and what else ``receive`` takes, from z's symbols."""
        raise NotImplementedError(f"{type(self).__name__} has no hyperprior")

    @abstractmethod
    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Turn the received tensors, each (N, …), into latent_hat float32."""

    def update(self) -> None:
        """Quantise the learned densities into integer tables, in place of older ones."""

    @abstractmethod
    def entropy_coder(self) -> Coder:
        """Return the torch-free coder of the present tables.

        Raises:
            TablesError: They have not been made, or what was loaded is not valid.
        """
