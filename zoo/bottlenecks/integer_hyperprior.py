"""Hyperpriors whose decoder runs in integers: streams that every machine reads.

::

    device                                      edge
    y ──────────────────► latent ─┐
    └► h_a ─► z ─► hyper_symbols ─┴► coder ═════► coder ─► latent_hat

The graphs hold h_a alone. The coder computes h_s in integers on both sides, rounds y relative to
its means, and adds these again: see ``splitrun.coding.integer_hyperprior``. Training is that of the
float hyperprior; the integers are made from its weights whenever the tables are.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from splitrun.coding.coder import Array
from splitrun.coding.context_network import FixedPointContextNetwork
from splitrun.coding.hyperprior import HyperpriorCoder
from splitrun.coding.integer_hyperprior import (
    IntegerAutoregressiveCoder,
    IntegerCoder,
    IntegerHyperpriorCoder,
)
from splitrun.coding.integer_network import (
    EXACT,
    LARGEST,
    NO_LEAK,
    UNIT,
    HyperSynthesis,
    largest_sums,
    output_size,
    phases,
)
from splitrun.coding.tables import FactorizedTables
from splitrun.errors import SpecError

from .hyperprior import Hyperprior, MeanScaleHyperprior, ScaleHyperprior, check_described
from .joint_autoregressive import JointAutoregressive

_SAMPLES, _SIDE = 4, 24
_MARGIN = 4.0
"""Times the largest activation of sampled z that a range reaches. Symbols of real z hang together,
and so give larger ones than samples, which do not."""

_FINE = 64
"""Least magnitude of a channel's largest weight: with fewer levels, it would be another channel."""

_MOST_WEIGHT = (1 << 15) - 1
_MOST_BIAS = (1 << 31) - 1

_PREFIX = "synthesis_"


class IntegerSynthesis(nn.Module):
    """The integers of h_s as buffers: part of the state dict and of the saved weights.

    Args:
        h_s: Hyper-decoder.
        channels: Channels D of z.
    """

    def __init__(self, h_s: nn.Module, channels: int) -> None:
        super().__init__()
        zeros: dict[str, np.ndarray] = {
            "medians": np.zeros(channels, np.int32),
            "shift": np.zeros((), np.int32),
            "means": np.zeros((), np.int32),
        }
        layers = [layer for layer, _ in _layers(h_s)]
        self._learned = {f"{number}_weight" for number in range(len(layers))}
        for number, layer in enumerate(layers):
            weight = _weight(layer)
            if getattr(layer, "bias", None) is not None:
                self._learned.add(f"{number}_bias")
            zeros |= {
                f"{number}_weight": np.zeros(weight.shape, np.int16),
                f"{number}_bias": np.zeros(len(weight), np.int32),
                f"{number}_shift": np.zeros(len(weight), np.int32),
                f"{number}_geometry": np.zeros(5, np.int32),
            }
        for name, array in zeros.items():
            self.register_buffer(name, torch.from_numpy(array))

    def weights(self) -> Iterator[Tensor]:
        """Yield the weights, int16, and the biases, int32, of layers that have some."""
        for name, buffer in self.named_buffers():
            if name in self._learned:
                yield buffer

    def read(self) -> HyperSynthesis:
        """Return what the coder runs.

        Raises:
            TablesError: The integers have not been made, or those loaded are not valid.
        """
        named = self.named_buffers()
        return HyperSynthesis({f"{_PREFIX}{name}": array.cpu().numpy() for name, array in named})

    def write(self, synthesis: HyperSynthesis) -> None:
        """Take these integers."""
        for name, buffer in self.named_buffers():
            buffer.copy_(torch.from_numpy(np.array(synthesis.arrays[f"{_PREFIX}{name}"])))


class IntegerHyperprior(Hyperprior):
    """The common part of hyperpriors in integers: what lies on the wire, and the integers.

    Attributes:
        trains_integers: Whether training computes h_s in integers, as the coder does; gradients are
            those of the float h_s.
    """

    wire_names = ("latent", "hyper_symbols")
    edge_inputs: ClassVar[tuple[str, ...]] = ("latent_hat",)
    hyper_outputs: ClassVar[tuple[str, ...]] = ()
    device_modules: ClassVar[tuple[str, ...]] = ("h_a", "synthesis")
    edge_modules: ClassVar[tuple[str, ...]] = ("synthesis",)
    has_means: ClassVar[bool]

    def __init__(self, h_a: nn.Module, h_s: nn.Module, hyper_channels: int, *others) -> None:
        super().__init__(h_a, h_s, hyper_channels, *others)
        self.synthesis = IntegerSynthesis(h_s, hyper_channels)
        self._is_old = True
        self.trains_integers = False

    def train(self, mode: bool = True) -> "IntegerHyperprior":
        """Set training mode; entering it makes tables and integers void."""
        self._is_old = self._is_old or mode
        return super().train(mode)

    def forward(self, latent: Tensor) -> Tensor:
        """Quantise y (N, C, h, w): additive noise in training, as the coder does otherwise."""
        if self.training:
            return super().forward(latent)
        if self._is_old:
            self.update()
        coder = self.entropy_coder()
        wire = (tensor.detach().cpu().numpy() for tensor in self.to_wire(latent))
        rounded = (coder.decoded(*tensors)[0] for tensors in zip(*wire, strict=True))
        return torch.from_numpy(np.stack(list(rounded))).to(latent.device)

    def forward_with_likelihoods(self, latent: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return y_hat, and the probabilities of the elements of y and of z, by the float h_s."""
        latent_hat, likelihoods = super().forward_with_likelihoods(latent)
        return latent_hat if self.training else self(latent), likelihoods

    def _synthesise(self, z_hat: Tensor) -> Tensor:
        params = super()._synthesise(z_hat)
        if not (self.training and self.trains_integers):
            return params
        symbols = torch.round(z_hat.detach() - self.medians).to(torch.int32).cpu().numpy()
        synthesis = synthesis_of(self.h_s, self.medians, symbols, means=self.has_means)
        exact = np.stack([synthesis(image) for image in symbols]) * np.float32(UNIT)
        return params + (torch.from_numpy(exact).to(params) - params).detach()

    def unrounded_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y, and z less its medians, float32.

        Raises:
            SpecError: h_s gives another size than the latent's.
        """
        z = self._hyper_encode(latent)
        check_described(latent, tuple(map(self._described_size, z.shape[2:])))
        return latent, z - self.medians

    def _described_size(self, side: int) -> int:
        """Return height or width of what h_s gives for a z of so many rows or columns."""
        for layer, _ in _layers(self.h_s):
            transposed, stride, padding, output_padding = _geometry(layer)
            kernel = _weight(layer).shape[-1]
            side = output_size(side, kernel, transposed, stride, padding, output_padding)
        return side

    def to_wire(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Return y (N, C, h, w) float32, and the symbols of z int32."""
        latent, z = self.unrounded_wire(latent)
        return latent, torch.round(z).to(torch.int32)

    def from_wire(self, *tensors: Tensor) -> Tensor:
        """Return y_hat (N, C, h, w) float32: the coder has done it all."""
        (latent_hat,) = tensors
        return latent_hat

    def update(self) -> None:
        """Make the integer tables, and from the learned weights the integers of h_s.

        Raises:
            SpecError: The weights make exact sums impossible.
        """
        super().update()
        self._make_integers()

    def _make_integers(self) -> None:
        """Make the integers of h_s from its weights and from the tables of z."""
        hyper_symbols = _sampled(self.tables()[0])
        self.synthesis.write(
            synthesis_of(self.h_s, self.medians, hyper_symbols, means=self.has_means)
        )
        self._is_old = False

    def entropy_coder(self) -> IntegerCoder:
        """Return the coder with the present tables and integers."""
        scales = self.gaussian_conditional.scale_table.detach().cpu().numpy()
        return IntegerHyperpriorCoder(HyperpriorCoder(*self.tables()), self._integers(), scales)

    def _integers(self) -> HyperSynthesis:
        if self._is_old:
            self._make_integers()
        return self.synthesis.read()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args, **kwargs) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        names = {f"{prefix}synthesis.{name}": name for name, _ in self.synthesis.named_buffers()}
        self._is_old = not any(name in state_dict for name in names)
        if self._is_old:
            # Weights of a hyperprior in floats; the integers are made of them when they are needed.
            state_dict |= {name: self.synthesis.get_buffer(own) for name, own in names.items()}


class IntegerScaleHyperprior(IntegerHyperprior, ScaleHyperprior):
    """Zero-mean Gaussians; see :class:`ScaleHyperprior`."""

    has_means = False


class IntegerMeanScaleHyperprior(IntegerHyperprior, MeanScaleHyperprior):
    """Gaussians with means; see :class:`MeanScaleHyperprior`."""

    has_means = True


class IntegerJointAutoregressive(IntegerHyperprior, JointAutoregressive):
    """Gaussians from z and from the y decoded so far; see :class:`JointAutoregressive`."""

    has_means = False
    device_modules: ClassVar[tuple[str, ...]] = (
        "h_a",
        "synthesis",
        "context_prediction",
        "entropy_parameters",
    )
    edge_modules: ClassVar[tuple[str, ...]] = (
        "synthesis",
        "context_prediction",
        "entropy_parameters",
    )

    def entropy_coder(self) -> IntegerCoder:
        """Return the coder with the present tables, integers and context network."""
        scales = self.gaussian_conditional.scale_table.detach().cpu().numpy()
        network = FixedPointContextNetwork(fixed_point(self._context_weights()))
        inner = IntegerAutoregressiveCoder.inner_type(*self.tables(), scales, network)
        return IntegerAutoregressiveCoder(inner, self._integers())


@torch.no_grad()
def synthesis_of(
    h_s: nn.Module, medians: Tensor, hyper_symbols: Array, *, means: bool
) -> HyperSynthesis:
    """Make the integers of a hyper-decoder.

    Activations become integers of 12 bits in a unit that is a power of two, weights those that the
    exact range leaves room for. The parameters come in units of 2^−10.

    Args:
        h_s: Three convolutions of stride 1 or transposed ones, each with a ReLU or leaky ReLU after
            it, or nothing.
        medians: Medians of z, (1, D, 1, 1) float32.
        hyper_symbols: Symbols of z, (N, D, h, w) int32, that ranges are taken from.
        means: Whether the second half of the parameters are means.

    Raises:
        SpecError: The weights make exact sums impossible: names the layer and the bound.
    """
    medians = medians.detach().cpu()
    x = torch.from_numpy(np.asarray(hyper_symbols, np.float32)) + medians
    bits = min(10, _range_bits(x, 2.0))
    arrays: dict[str, Array] = {
        "medians": np.rint(np.ldexp(medians.double().numpy().reshape(-1), bits)).astype(np.int32),
        "shift": np.array(bits, np.int32),
        "means": np.array(means, np.int32),
    }
    layers = _layers(copy.deepcopy(h_s).cpu())
    for number, (layer, slope) in enumerate(layers):
        if not all(parameter.isfinite().all() for parameter in layer.parameters()):
            raise SpecError(f"Layer {number} of h_s has weights that are not finite.")
        x = torch.maximum(y := layer(x), slope * y)
        last = number + 1 == len(layers)
        next_bits = _OUTPUT_BITS if last else _range_bits(x, _MARGIN)
        named = _integer_layer(layer, number, bits, next_bits)
        named["geometry"] = np.array([*_geometry(layer), round(slope * NO_LEAK)], np.int32)
        arrays |= {f"{number}_{name}": array for name, array in named.items()}
        bits = next_bits
    return HyperSynthesis({f"{_PREFIX}{name}": array for name, array in arrays.items()})


_OUTPUT_BITS = -round(math.log2(UNIT))


def _range_bits(values: Tensor, margin: float) -> int:
    """Return the binary places of the finest unit in which these values have 12 bits."""
    largest = max(float(values.abs().max()) * margin, 2.0**-20)
    return math.floor(math.log2(LARGEST / largest))


def _integer_layer(layer: nn.Module, number: int, bits: int, next_bits: int) -> dict[str, Array]:
    """Return weights, biases and shifts of a layer whose input and output have so many places."""
    weight = _weight(layer).detach().cpu().double().numpy()
    given = getattr(layer, "bias", None)
    bias = np.zeros(len(weight)) if given is None else given.detach().cpu().double().numpy()
    transposed, stride, _, _ = _geometry(layer)
    kernels = phases(weight, stride) if transposed else [[weight]]
    rows, _ = largest_sums(kernels)
    largest = np.abs(weight).max(axis=(1, 2, 3))
    # Rounding may add half a unit to each weight of a row.
    taps = max(kernel[0, :, 0].size for line in kernels for kernel in line if kernel.size)
    with np.errstate(divide="ignore"):
        most = np.floor(np.log2(_MOST_WEIGHT / largest))
        most = np.minimum(most, np.floor(np.log2(_MOST_BIAS / np.abs(bias))) - bits)
        room = max((EXACT - 1) / LARGEST - taps / 2, 0.0)
        single = np.minimum(most, np.floor(np.log2(room / rows)))
    # float32 where it leaves room for 7 bits, since it is twice as fast.
    fine = np.ldexp(largest, np.clip(single, -60, 60).astype(np.int64)) >= _FINE
    places = single if np.all(fine | (largest == 0)) else most
    places = np.clip(places, -60, 60).astype(np.int64)
    integers = np.rint(np.ldexp(weight, places[:, None, None, None]))
    coarse = (largest > 0) & (np.abs(integers).max(axis=(1, 2, 3)) < _FINE)
    if coarse.any():
        channel = int(coarse.argmax())
        raise SpecError(
            f"Layer {number} of h_s cannot be computed in exact integers: in output channel "
            f"{channel}, the largest weight is {largest[channel]:.3g} and the bias "
            f"{bias[channel]:.3g}, and both together need more than 31 bits.",
            next_step="Keep this model's hyperprior in floats: --float-hyperprior",
        )
    return {
        "weight": integers.astype(np.int32),
        "bias": np.rint(np.ldexp(bias, places + bits)).astype(np.int32),
        "shift": (places + bits - next_bits).astype(np.int32),
    }


def _layers(h_s: nn.Module) -> list[tuple[nn.Module, float]]:
    """Return the convolutions of h_s, each with the slope below zero of the ReLU after it, or 1.

    Raises:
        SpecError: It holds other layers.
    """
    found: list[tuple[nn.Module, float]] = []
    for layer in h_s.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            found.append((layer, 1.0))
        elif isinstance(layer, nn.ReLU | nn.LeakyReLU) and found:
            found[-1] = found[-1][0], float(getattr(layer, "negative_slope", 0.0))
        elif not isinstance(layer, nn.Sequential):
            raise SpecError(f"A hyper-decoder in integers cannot hold {type(layer).__name__}.")
    if len(found) != HyperSynthesis.LAYERS:
        raise SpecError(
            f"A hyper-decoder in integers has {HyperSynthesis.LAYERS} convolutions, not "
            f"{len(found)}."
        )
    return found


def _weight(layer: nn.Module) -> Tensor:
    """Return the weights of a convolution, or of a transposed one, as (O, I, k, k)."""
    weight = layer.get_parameter("weight")
    return weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight


def _geometry(layer: Any) -> tuple[int, int, int, int]:
    """Return whether a layer is transposed, its stride, its padding and its output padding."""
    transposed = isinstance(layer, nn.ConvTranspose2d)
    pairs = layer.kernel_size, layer.stride, layer.padding, layer.output_padding
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    if not plain or any(a != b for a, b in pairs) or (not transposed and layer.stride != (1, 1)):
        raise SpecError(f"A hyper-decoder in integers cannot hold {layer}.")
    return int(transposed), layer.stride[0], int(layer.padding[0]), layer.output_padding[0]


def _sampled(tables: FactorizedTables) -> Array:
    """Return symbols of z drawn from its tables, (N, D, h, w) int32; the seed is fixed."""
    random = np.random.default_rng(0)
    drawn = []
    for row, length, offset in zip(tables.cdf, tables.length, tables.offset, strict=True):
        counts = random.integers(0, row[length - 2], (_SAMPLES, _SIDE, _SIDE))
        drawn.append(offset + np.searchsorted(row[: length - 1], counts, side="right") - 1)
    return np.stack(drawn, axis=1).astype(np.int32)


def fixed_point(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Round the weights of a context network to the multiples that the fixed-point one takes."""

    def rounded(name: str, array: np.ndarray) -> np.ndarray:
        unit = FixedPointContextNetwork.WEIGHT_UNIT if name.startswith("weight") else UNIT
        return (np.rint(array.astype(np.float64) / unit) * unit).astype(np.float32)

    return {name: rounded(name, array) for name, array in weights.items()}
