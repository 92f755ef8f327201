"""The interface of every bottleneck: latent → tensors on the wire, and back."""

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

        device                                                   edge
        latent ─► to_wire ─► wire tensors ─► Coder ═ bytes ═► Coder ─► edge inputs ─► from_wire
                                                              │  ▲                        │
                                        symbols of z ◄────────┘  └─ scale indexes, …  latent_hat
                                             └──► hyper_decode ─────┘

    ``to_wire``, ``from_wire`` and a hyperprior's ``hyper_decode`` are what the exported graphs
    compute; ``forward`` is the path without bytes.

    Attributes:
        wire_names: Names of the device graph's outputs; the first is the main one.
        edge_inputs: Names of the edge graph's inputs.
        hyper_outputs: Names of the hyper graph's outputs; empty where there is no hyper graph.
        side_information: Names of the integer wire tensors that others are computed from: one
            wrong step in them changes those entirely.
        device_modules: Names of the submodules that the device holds, beside the encoder.
        edge_modules: Names of the submodules that the edge holds, beside the decoder.
        can_train_rounded: Whether it knows ``trains_rounded``.
        trains_rounded: Whether training rounds what the decoder sees, gradients passing as if it
            did not; the probabilities stay those of noisy values (Minnen and Singh 2020, "mixed
            quantisation", https://arxiv.org/abs/2007.08739).
    """

    wire_names: ClassVar[tuple[str, ...]]
    edge_inputs: ClassVar[tuple[str, ...]]
    hyper_outputs: ClassVar[tuple[str, ...]] = ()
    side_information: ClassVar[tuple[str, ...]] = ()
    device_modules: ClassVar[tuple[str, ...]] = ()
    edge_modules: ClassVar[tuple[str, ...]] = ()
    can_train_rounded: ClassVar[bool] = False
    trains_rounded = False

    @abstractmethod
    def forward(self, latent: Tensor) -> Tensor:
        """Round the latent (N, C, h, w); in training, add noise, unless ``trains_rounded``."""

    def forward_with_likelihoods(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the quantised latent, and the probability of each quantised element.

        Both see the same noise, except with ``trains_rounded``. The probabilities of y come first,
        then those of z, each shaped like what it is of; there are none without a learned density.
        """
        return self(latent), ()

    def likelihoods(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return the probabilities that ``forward_with_likelihoods`` gives."""
        return self.forward_with_likelihoods(latent)[1] if self._densities() else ()

    def aux_loss(self) -> Tensor | None:
        """Return the loss that moves the quantiles of learned densities to their places.

        Its gradient reaches nothing but the quantiles. None without a learned density.
        """
        losses = [density.loss() for density in self._densities()]
        return torch.stack(losses).sum() if losses else None

    def update_quantiles(self) -> None:
        """Move the outer quantiles, which bound the tables, to where the densities have them now.

        Medians stay: latents are rounded around them, and the decoder was trained with that.
        """
        for density in self._densities():
            medians = density.quantiles[..., 1].detach().clone()
            density.update(force=True, update_quantiles=True)
            with torch.no_grad():
                density.quantiles[..., 1] = medians
                density.quantiles[..., 0].clamp_(max=medians - 1)
                density.quantiles[..., 2].clamp_(min=medians + 1)
            density.update(force=True)

    def _densities(self) -> list[EntropyBottleneck]:
        return [module for module in self.modules() if isinstance(module, EntropyBottleneck)]

    @abstractmethod
    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Turn the latent (N, C, h, w) float32 into the wire tensors, each (N, …)."""

    @abstractmethod
    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return the wire tensors before rounding, float32; those sent as floats, as they are."""

    @abstractmethod
    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Turn the edge's inputs, each (N, …), into latent_hat float32."""

    def update(self) -> None:
        """Make the integer tables from the learned densities, in place of older ones."""

    @abstractmethod
    def entropy_coder(self) -> Coder:
        """Return the torch-free coder with the present tables.

        Raises:
            TablesError: The tables have not been made, or those loaded are not valid.
        """


def passed_through(values: Tensor) -> Tensor:
    """Round values; gradients pass as if they were not rounded."""
    return values + (torch.round(values) - values).detach()
