"""The 8-bit quantiser of CR + BQ: no learned density, each value is sent as one byte.

::

    latent ─► q = ⌊zero_point + latent / S⌉ ═ q, S, zero_point ═► latent_hat = S · (q − zero_point)

Jacob et al. 2018 (https://arxiv.org/abs/1712.05877), eq. 1 (r = S(q − Z)), where scale S and zero
point Z follow from the range of each image.
"""

import torch
from torch import Tensor

from splitrun.coding.quantised import QuantisedCoder

from .base import Bottleneck

_LARGEST = 255
_SMALLEST_SCALE = 2.0**-100
"""Keeps an all-zero latent from a division by zero; a normal number, which no runtime flushes."""
_ROUNDING = 2.0**-14
"""Four times the spacing of float32 below 256: a zero point this near to an integer is it."""


class UniformQuantiser(Bottleneck):
    """Quantises each image's latent to 256 equal steps from its smallest value to its largest.

    Training leaves the latent as it is: the quantiser comes after it. The formula is that of
    torchdistill 1.1.5 (``quantize_tensor``), but the range is that of one image, not of a batch,
    and always includes zero. Without zero, values above 255 steps saturate in the reference, and
    a constant latent divides by zero.

    Args:
        channels: Channels C of the latent.
    """

    wire_names = ("values", "scale", "zero_point")
    edge_inputs = ("values", "scale", "zero_point")
    side_information = ("zero_point",)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, latent: Tensor) -> Tensor:
        """Return the latent (N, C, h, w), quantised and dequantised except in training."""
        return latent if self.training else self.from_wire(*self.to_wire(latent))

    def _range(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scale and the zero point before it is rounded down, (N, 1, 1, 1) float32."""
        smallest = latent.amin((1, 2, 3), keepdim=True).clamp(max=0)
        largest = latent.amax((1, 2, 3), keepdim=True).clamp(min=0)
        scale = ((largest - smallest) / _LARGEST).clamp(min=_SMALLEST_SCALE)
        return scale, _ROUNDING - smallest / scale

    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return values, scale and zero point, float32; rounded, each is what is sent."""
        scale, position = self._range(latent)
        zero_point = torch.floor(position)
        values = (zero_point + latent / scale).clamp(0, _LARGEST)
        # Half a step back, so that rounding gives the integer below; an integer is its own.
        unrounded = torch.where(position == zero_point, position, position - 0.5)
        return values, scale, unrounded

    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Quantise the latent (N, C, h, w) float32.

        Returns:
            Values (N, C, h, w) uint8; scale (N, 1, 1, 1) float32, above 0; zero point, the value
            that stands for 0, (N, 1, 1, 1) int32 in [0, 255].
        """
        scale, position = self._range(latent)
        zero_point = torch.floor(position)
        values = torch.round((zero_point + latent / scale).clamp(0, _LARGEST))
        return values.to(torch.uint8), scale, zero_point.to(torch.int32)

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Turn values uint8, scale float32 and zero point int32 into latent_hat float32."""
        values, scale, zero_point = tensors
        return scale * (values.to(torch.float32) - zero_point.to(torch.float32))

    def entropy_coder(self) -> QuantisedCoder:
        """Return the coder, which packs the bytes."""
        return QuantisedCoder(self.channels)
