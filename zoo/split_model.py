"""The model that everything else works on: a network cut in two, with an entropy coder between."""

import copy
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from splitrun.coding import Codec, Coder
from splitrun.errors import BitstreamError, SpecError

from .bottleneck_specs import shape_text
from .bottlenecks.base import Bottleneck
from .bottlenecks.hyperprior import Hyperprior
from .bottlenecks.integer_hyperprior import IntegerSynthesis
from .calibration.record import Calibration
from .spec import ModelSpec
from .train.record import TrainingRecord

Images = Tensor | NDArray[np.floating]
"""Images (N, 3, H, W) or one (3, H, W), float32, normalised as ``spec.preprocessing`` says."""

Logits = Tensor
"""A classifier's output (N, classes), or a segmentation model's (N, classes, H, W); float32."""

Detections = dict[str, Tensor]
"""The objects in one image, best first: ``boxes`` (D, 4) float32, x0, y0, x1, y1 in pixels of the
input; ``labels`` (D,) int64; ``scores`` (D,) float32 in [0, 1]."""

ModelOutput = Logits | list[Detections]
"""A model's prediction to a batch: logits, or for detectors one :data:`Detections` per image."""


_SENDING = ("encoder.", "bottleneck.")
"""Beginnings of the names of the tensors that streams are made with."""


class SplitModel(nn.Module):
    """An encoder for the device, a bottleneck for the link, a decoder for the edge.

    ::

        device                                              edge
        image ─► encoder ─► bottleneck ═ bytes ═► bottleneck ─► decoder ─► output

    The three share nothing else. ``forward`` skips the bytes; ``compress`` and ``decompress`` go
    through them.

    Args:
        spec: Description of the model.
        encoder: Layers from image (N, 3, H, W) float32 to latent (N, C, h, w) float32.
        bottleneck: Quantiser and entropy model of the latent.
        decoder: Layers from the quantised latent to the output, the backbone's tail included.

    Attributes:
        source: Argument of :func:`splitzoo.zoo.load`: a name, a folder or a repository.
        origin: Place where the weights were before, in words, such as a file that was converted.
        training_record: Record of the training, where it was done here.
        random_seed: Seed of random weights; None once they were trained or loaded.
        tail_of: Name of the whole network whose tail this model has unchanged; a saved model leaves
            the tail to it. Empty where the tail is the model's own.
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
        self.tail_of = ""
        self._calibration: Calibration | None = None
        self._codec: Codec | None = None
        self._tables_are_old = False
        self.register_load_state_dict_post_hook(_weights_changed)

    def forward(self, image: Tensor) -> ModelOutput:
        """Run both halves without entropy coding, for training and evaluation.

        Args:
            image: Images (N, 3, H, W) float32, normalised as ``spec.preprocessing`` says.

        Returns:
            Logits (N, classes) float32 of classifiers, (N, classes, H, W) of segmentation models;
            of detectors, for each image ``boxes`` (D, 4), ``labels`` (D,) and ``scores`` (D,).
        """
        return self.decoder(self.bottleneck(self.encoder(image)))

    @torch.no_grad()
    def wire_tensors(self, image: Images) -> tuple[NDArray[Any], ...]:
        """Run the device half up to the entropy coder.

        Args:
            image: Images as :meth:`forward` takes them, or one (3, H, W); a tensor or an array.

        Returns:
            The tensors that ``spec.wire`` lists, each (N, C, h, w).

        Raises:
            SpecError: The image is no such tensor, or so small that it leaves no latent.
        """
        latent = self.encoder(self._batch(image))
        return tuple(tensor.cpu().numpy() for tensor in self.bottleneck.to_wire(latent))

    def _batch(self, image: Images) -> Tensor:
        shape = list(getattr(image, "shape", ()))
        floats = (isinstance(image, Tensor) and image.is_floating_point()) or (
            isinstance(image, np.ndarray) and image.dtype.kind == "f"
        )
        if not floats or len(shape) not in (3, 4) or shape[-3] != 3:
            dtype = getattr(image, "dtype", "no dtype")
            raise SpecError(
                "Images are expected as a tensor or array (N, 3, H, W) or (3, H, W) float32, not "
                f"as {type(image).__name__} {tuple(shape)} of {dtype}.",
                next_step="From a path, a Pillow image or pixels (H, W, 3) uint8: "
                "model.spec.preprocessing.load(image).",
            )
        height, width = shape[-2:]
        if any(min(tensor.shape) < 1 for tensor in self.spec.bottleneck.wire(height, width)):
            raise SpecError(
                f"An image of {height}×{width} pixels leaves no latent.",
                next_step=f"{self.spec.name} is made for {shape_text(self.spec.input_shape[1:])}: "
                "scale it up.",
            )
        given = np.ascontiguousarray(image) if isinstance(image, np.ndarray) else image
        batch = torch.as_tensor(given, dtype=torch.float32, device=self._device)
        return batch.reshape(-1, 3, height, width)

    def compress(self, image: Images, beta: float | None = None) -> list[bytes]:
        """Run the device half on images as :meth:`wire_tensors` takes them; a stream for each.

        Args:
            image: Images.
            beta: β that chooses the level of a model of variable rate; None: that of its spec.

        Raises:
            SpecError: The image is no such tensor, or so small that it leaves no latent.
            RateError: The model's rate is fixed, or β is outside its range.
        """
        codec = self.codec.at(beta)
        images = zip(*self.wire_tensors(image), strict=True)
        return [codec.compress(*tensors) for tensors in images]

    def at(self, beta: float | None) -> "SplitModel":
        """Return a model with the same weights that encodes at another level of rate.

        Args:
            beta: β; the nearest level is taken. None: the model itself.

        Raises:
            RateError: The model's rate is fixed, or β is outside its range.
        """
        if beta is None:
            return self
        codec, changed = self.codec.at(beta), copy.copy(self)
        bottleneck: Any = copy.copy(self.bottleneck)
        changed._modules = {**self._modules, "bottleneck": bottleneck}
        changed.spec, changed._codec = self.spec.at(beta), codec
        bottleneck.level = getattr(changed.spec.bottleneck, "level")  # noqa: B009  # has levels
        return changed

    @torch.no_grad()
    def decompress(self, streams: bytes | Sequence[bytes]) -> ModelOutput:
        """Run the edge half.

        Args:
            streams: One stream, or streams of equal latent shape.

        Returns:
            Output of :meth:`forward` for one batch of all the images.

        Raises:
            BitstreamError: A stream is damaged, of another model, or of another shape than the
                first; or there is none.
        """
        if isinstance(streams, bytes | bytearray | memoryview):
            streams = [bytes(streams)]
        if not streams:
            raise BitstreamError(
                "No streams were given, and a batch has at least one image.",
                next_step="Give one stream or several: decompress([stream])",
            )
        received = [self.codec.decompress(stream, self.hyper_decode) for stream in streams]
        shapes = {tuple(tensor.shape for tensor in tensors) for tensors in received}
        if len(shapes) != 1:
            raise BitstreamError(
                f"{len(streams)} streams cannot make one batch: "
                f"latents of {sorted({shape[0] for shape in shapes})}.",
                next_step="Decompress streams of different shapes one by one.",
            )
        batch = [torch.from_numpy(np.stack(images)).to(self._device) for images in zip(*received)]  # noqa: B905  # of one shape, as checked
        return self.decoder(self.bottleneck.from_wire(*batch))

    @property
    def hyperprior(self) -> Hyperprior:
        """The bottleneck, where it has a hyperprior.

        Raises:
            SpecError: It has none.
        """
        if not isinstance(self.bottleneck, Hyperprior):
            raise SpecError(f"{self.spec.name} has no hyperprior.")
        return self.bottleneck

    def hyper_decode(self, hyper_symbols: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
        """Run the hyper-decoder for one image.

        Args:
            hyper_symbols: Symbols of z, (D, h, w) int32.

        Returns:
            Scale indexes of y, (C, H, W) int32, and its means float32 if there are any; of an
            autoregressive model, the parameters (2C, H, W) float32.

        Raises:
            SpecError: The model has no hyperprior.
        """
        batch = torch.from_numpy(np.ascontiguousarray(hyper_symbols))[None].to(self._device)
        with torch.no_grad():
            return tuple(tensor[0].cpu().numpy() for tensor in self.hyperprior.hyper_decode(batch))

    def device_parameters(self) -> Iterator[Tensor]:
        """Yield the device's learned parameters: the encoder's, and those of h_a and h_s if any.

        Those of an h_s in integers are int16.
        """
        yield from self.encoder.parameters()
        yield from self._weights(self.bottleneck.device_modules)

    def edge_parameters(self) -> Iterator[Tensor]:
        """Yield the edge's learned parameters; those of h_s are on both sides."""
        yield from self.decoder.parameters()
        yield from self._weights(self.bottleneck.edge_modules)

    def _weights(self, names: Sequence[str]) -> Iterator[Tensor]:
        for name in names:
            module = self.bottleneck.get_submodule(name)
            in_integers = isinstance(module, IntegerSynthesis)
            yield from module.weights() if in_integers else module.parameters()

    @property
    def _device(self) -> torch.device:
        return next((parameter.device for parameter in self.parameters()), torch.device("cpu"))

    @property
    def calibration(self) -> Calibration | None:
        """The entropy coder fitted to images, used in place of the bottleneck's own.

        See :func:`splitzoo.zoo.calibrate`. New weights make it void.
        """
        return self._calibration

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        if self._tables_are_old:
            self.update()
        self._calibration = calibration
        self._codec = None

    def _coder(self) -> Coder:
        own = self.bottleneck.entropy_coder()
        if self._calibration is None:
            return own
        fitted = self._calibration.coder()
        return fitted.at(own.beta) if own.beta else fitted

    @property
    def codec(self) -> Codec:
        """The entropy coder and stream id of the present weights; made anew after training."""
        if self._tables_are_old:
            self.update()
        if self._codec is None or self.training:
            coder = self._coder()
            # Broadcast, so that they take no memory: a coder looks at the shapes alone.
            wire = (np.broadcast_to(np.int32(0), tensor.shape) for tensor in self.spec.wire)
            self._codec = Codec(coder, self._digest(coder, _SENDING)[:4], coder.shape(*wire))
        return self._codec

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        message: str | None = None,
        card: str | Path | None = None,
    ) -> str:
        """Publish the model on the Hub: config and weights, and a card if one is given.

        The arguments are those of :func:`splitzoo.zoo.hub_push.push_model`; ``cards.build`` writes
        a card.

        Returns:
            The address of the repository.

        Raises:
            HubError: The Hub refused, or cannot be reached.
        """
        from .hub_push import push_model
        from .store import save_folder

        with tempfile.TemporaryDirectory() as place:
            folder = save_folder(self, Path(place, "model"))
            options = {"private": private, "token": token, "message": message, "card": card}
            return push_model(folder, repo_id, **options)

    def digest(self) -> bytes:
        """Return the SHA-256 of all tensors, entropy tables included."""
        return self._digest(self._coder())

    def device_digest(self) -> bytes:
        """Return the SHA-256 of encoder, bottleneck and entropy tables; the stream id begins it.

        Models with several tails behind one encoder have it in common, and read the same streams.
        """
        return self._digest(self._coder(), _SENDING)

    def _digest(self, coder: Coder, parts: tuple[str, ...] = ("",)) -> bytes:
        state = self.state_dict()
        named = {name: tensor for name, tensor in state.items() if name.startswith(parts)}
        return hash_tensors(named, coder.digest()).digest()

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

    def __repr__(self) -> str:
        spec, bottleneck = self.spec, self.spec.bottleneck
        on_device = list(self.device_parameters())
        count = sum(parameter.numel() for parameter in on_device)
        bits = sum(8 * parameter.numel() * parameter.element_size() for parameter in on_device)
        on_edge = sum(parameter.numel() for parameter in self.edge_parameters())
        weights = "trained" if self.random_seed is None else f"random, seed {self.random_seed}"
        weights += f", {self.origin}" if self.origin else ""
        weights += f", loaded from {self.source}" if self.source != spec.name else ""
        edge = (bottleneck.edge, f"{'rest of ' if spec.cut else ''}{spec.backbone}")
        fitted = self._calibration.record if self._calibration else None
        rows = {
            "task": f"{spec.task}, {spec.num_classes} classes ({spec.dataset})",
            "backbone": f"{spec.backbone}, cut {f'after {spec.cut}' if spec.cut else 'before it'}",
            "method": f"{spec.method}, {bottleneck.kind} bottleneck, {spec.strength}",
            "input": f"{shape_text(spec.input_shape)} float32",
            "on the wire": ", ".join(map(str, spec.wire)),
            "device": f"{count:,} parameters, {bits:,} encoder bits: {bottleneck.device}",
            "edge": f"{on_edge:,} parameters: {', '.join(filter(None, edge))}",
            "weights": weights,
            "calibration": f"{fitted.kept}, on {fitted.fitted} images" if fitted else "none",
        }
        lines = (f"  {name + ':':<13}{text}" for name, text in rows.items())
        return "\n".join((f"SplitModel {spec.name}", *lines))

    def __getstate__(self) -> dict:
        # The coder's own models cannot be copied; they are made again when needed.
        return {**self.__dict__, "_codec": None}


def hash_tensors(tensors: Mapping[str, Tensor], begin: bytes = b"") -> "hashlib._Hash":
    """Return the SHA-256 of names, shapes and bytes of tensors, in the order of their names."""
    content = hashlib.sha256(begin)
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content.update(flat.numpy().data)
    return content


def _weights_changed(model: SplitModel, _keys: object) -> None:
    model._calibration = None
    model._codec = None
    model._tables_are_old = False  # the tables came with the weights
    model.tail_of = ""
    model.random_seed = None
