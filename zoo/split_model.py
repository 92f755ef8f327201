"""A model cut in two, with an entropy coder in between."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import BitstreamError
from .coding import Codec
from .factorized_prior import FactorizedPrior
from .spec import ModelSpec


class SplitModel(nn.Module):
    """An encoder for the device, a coder for the link, a decoder for the edge.

    ::

        device                               edge
        image ─► encoder ─► coder ─► bytes ─► coder ─► decoder ─► output

    The three parts share nothing else. ``forward`` skips the bytes; ``compress`` and ``decompress``
    go through them.

    Args:
        spec: What the model is.
        encoder: Image (N, 3, H, W) float32 to latent (N, C, h, w) float32.
        coder: Quantiser and entropy model of the latent.
        decoder: Quantised latent to output, the rest of the backbone included.

    Attributes:
        source: What :func:`splitzoo.zoo.load` was given: a name or a folder.
        random_seed: Of the weights, while they are those of a random generator; training and
            loading weights set it to None.
    """

    def __init__(
        self, spec: ModelSpec, encoder: nn.Module, coder: FactorizedPrior, decoder: nn.Module
    ) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.coder = coder
        self.decoder = decoder
        self.source = spec.name
        self.random_seed: int | None = None
        self._codec: Codec | None = None
        self._tables_are_old = False
        self.register_load_state_dict_post_hook(_weights_changed)

    def forward(self, image: Tensor) -> Tensor:
        """Run both halves without entropy coding, for training and evaluation.

        Args:
            image: (N, 3, H, W) float32, normalised as ``spec.preprocessing`` says.

        Returns:
            For classifiers, logits (N, classes) float32.
        """
        return self.decoder(self.coder(self.encoder(image)))

    @torch.no_grad()
    def symbols(self, image: Tensor) -> NDArray[np.int32]:
        """Run the device half up to the entropy coder.

        Returns:
            (N, C, h, w) int32.
        """
        return self.coder.symbols(self.encoder(image)).cpu().numpy()

    def compress(self, image: Tensor) -> list[bytes]:
        """Run the device half: images (N, 3, H, W) float32 to one stream each."""
        return [self.codec.compress(symbols) for symbols in self.symbols(image)]

    @torch.no_grad()
    def decompress(self, streams: list[bytes]) -> Tensor:
        """Run the edge half: streams of equal latent shape to one batch of outputs.

        Raises:
            BitstreamError: A stream is damaged, of another model, or of another shape than the
                first.
        """
        symbols = [self.codec.decompress(stream) for stream in streams]
        if len({s.shape for s in symbols}) != 1:
            raise BitstreamError(
                f"{len(streams)} streams cannot make one batch: "
                f"latents of {sorted({s.shape for s in symbols})}.",
                next_step="Decompress streams of different shapes one by one.",
            )
        batch = torch.from_numpy(np.stack(symbols)).to(self.coder.medians.device)
        return self.decoder(self.coder.dequantise(batch))

    @property
    def codec(self) -> Codec:
        """Tables and stream id of the present weights; made anew after training."""
        if self._tables_are_old:
            self.make_tables()
        if self._codec is None or self.training:
            tables = self.coder.tables
            self._codec = Codec(tables, self.digest()[:4], self.spec.latent_shape[1:])
        return self._codec

    def digest(self) -> bytes:
        """Return the SHA-256 of all tensors, entropy tables included; the stream id begins it."""
        content = hashlib.sha256(self.coder.tables.digest())
        for name, tensor in sorted(self.state_dict().items()):
            content.update(f"{name}{tuple(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return content.digest()

    def make_tables(self) -> None:
        """Make the integer tables from the present weights."""
        self.coder.make_tables()
        self._codec = None
        self._tables_are_old = self.training

    def train(self, mode: bool = True) -> "SplitModel":
        """Set training mode; entering it makes tables, stream id and random seed void."""
        self._codec = None
        if mode:
            self.random_seed = None
            self._tables_are_old = True
        return super().train(mode)

    def __getstate__(self) -> dict:
        # The coder's own models cannot be copied; they are made again when needed.
        return {**self.__dict__, "_codec": None}


def _weights_changed(model: SplitModel, _keys: object) -> None:
    model._codec = None
    model._tables_are_old = False  # they came with the weights
    model.random_seed = None
