"""Image codecs as bottlenecks: over the image itself, or over the features of a layer.

::

    input codec    image ─► round(255 · image) = pixels ─► JPEG, … ─► pixels ─► / 255 ─► normalise
    feature codec  features ─► 8-bit planes ─► JPEG or WebP ─► planes ─► features

Their losses are part of the model, so ``forward`` goes through the codec too. It does not in
training, where no gradient would pass: freeze a codec to train what comes after it.
"""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor, nn

from splitrun.coding.features import FeaturesCoder
from splitrun.coding.pixels import PixelsCoder

from ..bottleneck_specs import InputCodecBottleneck, NeuralCodecBottleneck
from .base import Bottleneck


class _ImageCodec(Bottleneck):
    """A bottleneck whose ``forward`` goes through its coder, image by image."""

    def forward(self, latent: Tensor) -> Tensor:
        """Code and decode the latent (N, C, h, w); in training, return it as it is."""
        if self.training:
            return latent
        coder = self.entropy_coder()
        (sent,) = self.to_wire(latent.detach())
        if coder.codec.lossless:
            return self.from_wire(sent)
        height, width = sent.shape[-2:]
        payloads = [coder.encode(image.cpu().numpy()) for image in sent]
        received = [coder.decode(payload, height, width)[0] for payload in payloads]
        return self.from_wire(torch.from_numpy(np.stack(received)).to(latent.device))

    @abstractmethod
    def entropy_coder(self) -> PixelsCoder | FeaturesCoder: ...


class InputCodec(_ImageCodec):
    """An image codec over the image.

    Args:
        codec: Name of the codec in ``IMAGE_CODECS``.
        quality: Quality in the codec's own units.
    """

    wire_names = ("pixels",)
    edge_inputs = ("pixels",)

    def __init__(self, codec: str, quality: int) -> None:
        super().__init__()
        self.codec, self.quality = codec, quality

    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return the image (N, 3, H, W), from [0, 1] to [0, 255]."""
        return (latent.clamp(0, 1) * 255,)

    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Turn the image (N, 3, H, W) float32 in [0, 1] into pixels uint8."""
        return tuple(torch.round(tensor).to(torch.uint8) for tensor in self.unrounded_wire(latent))

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Turn pixels (N, 3, H, W) uint8 into the image float32 in [0, 1]."""
        (pixels,) = tensors
        return pixels.to(torch.float32) / 255

    def entropy_coder(self) -> PixelsCoder:
        """Return the image codec as a coder; TablesError where there is none such."""
        return PixelsCoder(self.codec, self.quality)


class FeatureCodec(_ImageCodec):
    """An image codec, as for :class:`InputCodec`, over ``channels`` planes of features.

    It quantises them too.
    """

    wire_names = ("features",)
    edge_inputs = ("features",)

    def __init__(self, codec: str, quality: int, channels: int) -> None:
        super().__init__()
        self.codec, self.quality, self.channels = codec, quality, channels

    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return the features (N, C, h, w) float32."""
        return (latent,)

    unrounded_wire = to_wire

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Return the features (N, C, h, w) float32."""
        (features,) = tensors
        return features

    def entropy_coder(self) -> FeaturesCoder:
        """Return the image codec as a coder; TablesError where there is none such."""
        return FeaturesCoder(self.codec, self.quality, self.channels)


class Normalise(nn.Module):
    """Turns a decoded image in [0, 1] into a backbone's input: cropped to the centre, normalised.

    Args:
        spec: Bottleneck with the crop, mean and standard deviation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: InputCodecBottleneck | NeuralCodecBottleneck) -> None:
        super().__init__()
        self.crop = spec.crop
        # Constants of the spec, so they are not part of the weights.
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Normalise the image (N, 3, H, W) float32."""
        if self.crop:
            height, width = self.crop
            # torchvision's rule for an odd difference; int(), since traced sizes are tensors.
            top = round((int(image.shape[-2]) - height) / 2)
            left = round((int(image.shape[-1]) - width) / 2)
            image = image[..., top : top + height, left : left + width]
        return (image - self.mean) / self.std
