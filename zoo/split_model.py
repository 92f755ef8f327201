"""A model cut in two, with an entropy coder in between."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitrun.coding import Codec, Coder
from splitrun.errors import BitstreamError, SpecError

from .bottlenecks.base import Bottleneck
from .calibration.record import Calibration
from .spec import ModelSpec
from .train.record import TrainingRecord


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
        bottleneck: Quantiser and entropy model of the latent.
        decoder: Quantised latent to output, the rest of the backbone included.

    Attributes:
        source: What :func:`splitzoo.zoo.load` was given: a name, a folder or a repository.
        origin: Where the weights were before, in words, such as a file that was converted.
        training_record: How the weights were trained, where that was done here.
        calibration: The entropy coder that is used in place of the bottleneck's own, if one was
            fitted to images; see :func:`splitzoo.zoo.calibrate`.
        random_seed: Of the weights, while they are those of a random generator; training and
            loading weights set it to None.
    """

    def __init__(
        self, spec: ModelSpec, encoder: nn.Module, bottleneck: Bottleneck, decoder: nn.Module
    ) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.source = spec.name
        self.origin = ""
        self.random_seed: int | None = None
        self.training_record: TrainingRecord | None = None
        self._calibration: Calibration | None = None
        self._codec: Codec | None = None
        self._tables_are_old = False
        self.register_load_state_dict_post_hook(_weights_changed)

    def forward(self, image: Tensor) -> Any:
        """Run both halves without entropy coding, for training and evaluation.

        Args:
            image: (N, 3, H, W) float32, normalised as ``spec.preprocessing`` says.

        Returns:
            For classifiers, logits (N, classes) float32; for segmentation, logits
            (N, classes, H, W); for detectors, a list of boxes, labels and scores per image.
        """
        return self.decoder(self.bottleneck(self.encoder(image)))

    @torch.no_grad()
    def wire_tensors(self, image: Tensor) -> tuple[NDArray[Any], ...]:
        """Run the device half up to the entropy coder.

        Returns:
            The tensors that ``spec.wire`` lists, each (N, C, h, w).

        Raises:
            SpecError: The image is so small that it leaves no latent.
        """
        height, width = image.shape[-2:]
        if any(min(one.shape) < 1 for one in self.spec.bottleneck.wire(height, width)):
            raise SpecError(
                f"An image of {height}×{width} pixels leaves no latent.",
                next_step=f"{self.spec.name} is made for {self.spec.input_shape[1]}×"
                f"{self.spec.input_shape[2]}: scale it up.",
            )
        return tuple(
            tensor.cpu().numpy() for tensor in self.bottleneck.to_wire(self.encoder(image))
        )

    def compress(self, image: Tensor) -> list[bytes]:
        """Run the device half: images (N, 3, H, W) float32 to one stream each.

        Raises:
            SpecError: The images are so small that they leave no latent.
        """
        tensors = self.wire_tensors(image)
        return [self.codec.compress(*one) for one in zip(*tensors, strict=True)]

    @torch.no_grad()
    def decompress(self, streams: Sequence[bytes]) -> Any:
        """Run the edge half: streams of equal latent shape to one batch of outputs.

        Returns:
            What :meth:`forward` does.

        Raises:
            BitstreamError: A stream is damaged, of another model, or of another shape than the
                first; or there is none.
        """
        if not streams:
            raise BitstreamError(
                "No streams were given, and no batch has no images.",
                next_step="Give at least one stream, as a sequence: decompress([stream])",
            )
        received = [self.codec.decompress(stream, self.hyper_decode) for stream in streams]
        shapes = {tuple(tensor.shape for tensor in tensors) for tensors in received}
        if len(shapes) != 1:
            raise BitstreamError(
                f"{len(streams)} streams cannot make one batch: "
                f"latents of {sorted({shape[0] for shape in shapes})}.",
                next_step="Decompress streams of different shapes one by one.",
            )
        batch = [torch.from_numpy(np.stack(one)).to(self._device) for one in zip(*received)]  # noqa: B905  # of one shape, as checked
        return self.decoder(self.bottleneck.from_wire(*batch))

    def hyper_decode(self, hyper_symbols: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
        """Run the hyper-decoder for one image: z (C, h, w) to scale indexes and what follows."""
        batch = torch.from_numpy(np.ascontiguousarray(hyper_symbols))[None].to(self._device)
        with torch.no_grad():
            return tuple(tensor[0].cpu().numpy() for tensor in self.bottleneck.hyper_decode(batch))

    def device_parameters(self) -> Iterator[nn.Parameter]:
        """Give the learned parameters on the device: of the encoder, and of h_a and h_s if any."""
        yield from self.encoder.parameters()
        for name in self.bottleneck.device_modules:
            yield from self.bottleneck.get_submodule(name).parameters()

    def edge_parameters(self) -> Iterator[nn.Parameter]:
        """Give the learned parameters on the edge; those of h_s are on both sides."""
        yield from self.decoder.parameters()
        for name in self.bottleneck.edge_modules:
            yield from self.bottleneck.get_submodule(name).parameters()

    @property
    def _device(self) -> torch.device:
        return next((one.device for one in self.parameters()), torch.device("cpu"))

    @property
    def calibration(self) -> Calibration | None:
        """The fitted entropy coder; new weights make it void."""
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        if self._tables_are_old:
            self.update()
        self._calibration = calibration
        self._codec = None

    def _coder(self) -> Coder:
        return self._calibration.coder() if self._calibration else self.bottleneck.entropy_coder()

    @property
    def codec(self) -> Codec:
        """Coder and stream id of the present weights; made anew after training."""
        if self._tables_are_old:
            self.update()
        if self._codec is None or self.training:
            coder = self._coder()
            # Of no memory: a coder looks at the shapes alone.
            wire = (np.broadcast_to(np.int32(0), one.shape) for one in self.spec.wire)
            self._codec = Codec(coder, self._digest(coder)[:4], coder.shape(*wire))
        return self._codec

    def digest(self) -> bytes:
        """Return the SHA-256 of all tensors, entropy tables included; the stream id begins it."""
        return self._digest(self._coder())

    def _digest(self, coder: Coder) -> bytes:
        content = hashlib.sha256(coder.digest())
        for name, tensor in sorted(self.state_dict().items()):
            content.update(f"{name}{tuple(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return content.digest()

    def update(self) -> None:
        """Make the integer tables from the present weights."""
        self.bottleneck.update()
        self._calibration = None
        self._codec = None
        self._tables_are_old = self.training

    def train(self, mode: bool = True) -> "SplitModel":
        """Set training mode; entering it makes tables, stream id and random seed void."""
        self._codec = None
        if mode:
            self._calibration = None
            self.random_seed = None
            self._tables_are_old = True
        return super().train(mode)

    def __getstate__(self) -> dict:
        # The coder's own models cannot be copied; they are made again when needed.
        return {**self.__dict__, "_codec": None}


def _weights_changed(model: SplitModel, _keys: object) -> None:
    model._calibration = None
    model._codec = None
    model._tables_are_old = False  # they came with the weights
    model.random_seed = None
