"""The network that predicts scales and means of y from the positions decoded so far.

::

    parameters from z ─────────────────────┐
                                           ├─► three 1×1 convolutions ─► scales, means of y
    y_hat so far ─► masked 5×5 convolution ┘

(Minnen et al. 2018, https://arxiv.org/abs/1809.02736.) The weights are float32, the arithmetic is
float64: the libraries of two machines, which add in different orders, then differ by 1e-15 and not
by 1e-7, and will hardly ever choose another scale for a symbol. In fixed point, they never differ.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import TablesError
from .blas_threads import one_blas_thread
from .coder import Array
from .integer_network import UNIT

Float64 = NDArray[np.float64]
Positions = tuple[NDArray[Any], NDArray[Any]]
"""Rows and columns of n positions."""
Fill = Callable[[Positions, Float64, Float64], Float64]
"""Function of n positions, their scales and their means, each (n, M), to their y_hat (n, M)."""

_TAPS = 12
_REACH = 2
_TAP_ROWS, _TAP_COLUMNS = np.divmod(np.arange(_TAPS), 2 * _REACH + 1)


class ContextNetwork:
    """The masked convolution and, with LeakyReLU(0.01) between them, the three 1×1 convolutions.

    M is the number of channels of y.

    Args:
        weights: Arrays float32, by the names in ``NAMES``: ``weight_0`` (2M, M, 12) of the masked
            convolution, its 12 taps before the centre in raster order; ``weight_1`` (A, 4M) over
            parameters and context; ``weight_2`` (B, A); ``weight_3`` (2M, B) for scales and means;
            and a bias of each.

    Attributes:
        weights: The same arrays.
        channels: Number of channels of y, M.

    Raises:
        TablesError: A weight is missing, not float32, not finite, or of another shape.
    """

    NAMES = tuple(f"{name}_{layer}" for layer in range(4) for name in ("weight", "bias"))

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = {name: finite_float32(weights, name) for name in self.NAMES}
        doubled, *inner = (self.weights[f"bias_{layer}"].size for layer in range(3))
        self.channels = doubled // 2
        outputs = 2 * self.channels
        inputs = ((self.channels, _TAPS), (2 * outputs,), *((size,) for size in inner))
        self._layers: list[tuple[Float64, Float64]] = []
        for layer, (size, shape) in enumerate(zip((outputs, *inner, outputs), inputs, strict=True)):
            weight, bias = self.weights[f"weight_{layer}"], self.weights[f"bias_{layer}"]
            if weight.shape != (size, *shape) or bias.shape != (size,) or not weight.size:
                raise TablesError(
                    f"Context network: layer {layer} has weights of shape {weight.shape} and "
                    f"{bias.shape}; {(size, *shape)} and {(size,)} were expected."
                )
            # Taps before channels, as the context is gathered.
            flat = np.moveaxis(weight, -1, 1).reshape(size, -1) if layer == 0 else weight
            self._layers.append((flat.T.astype(np.float64), bias.astype(np.float64)))

    def digest(self) -> bytes:
        """Return the SHA-256 of the weights."""
        content = hashlib.sha256()
        for weight in self.weights.values():
            content.update(repr(weight.shape).encode())
            content.update(weight.astype("<f4").tobytes())
        return content.digest()

    def macs(self, height: int, width: int) -> int:
        """Return the number of multiply-accumulates for a latent of this height and width."""
        return height * width * sum(weight.size for weight, _ in self._layers)

    def walk(self, params: NDArray[np.float32], fill: Fill) -> Float64:
        """Go through all positions; those that do not need each other go together.

        Args:
            params: Parameters (2M, h, w) float32, from the hyper-decoder.
            fill: Function that returns y_hat, the context of later positions.

        Returns:
            y_hat (M, h, w). Where weights or symbols are extreme it may not be finite.
        """
        _, height, width = params.shape
        # Channels last, so that what is gathered lies together.
        hyper = np.moveaxis(params, 0, -1).astype(np.float64)
        y_hat = np.zeros((height + _REACH, width + 2 * _REACH, self.channels))
        with np.errstate(all="ignore"), one_blas_thread():
            for rows, columns in _steps(height, width):
                context = y_hat[rows[:, None] + _TAP_ROWS, columns[:, None] + _TAP_COLUMNS]
                gaussians = self._gaussians(hyper[rows, columns], context.reshape(len(rows), -1))
                filled = fill((rows, columns), *gaussians)
                y_hat[rows + _REACH, columns + _REACH] = self._rounded(filled)
        return np.moveaxis(y_hat[_REACH:, _REACH:-_REACH], -1, 0)

    def _gaussians(self, params: Float64, context: Float64) -> list[Float64]:
        """Return scales and means (n, M) of n positions from parameters and flat context."""
        (masked, bias), *layers = self._layers
        x = np.concatenate([params, self._rounded(context @ masked + bias)], axis=1)
        for layer, (weight, bias) in enumerate(layers):
            x = self._rounded(np.maximum(x, 0.01 * x)) if layer else x
            x = self._rounded(x @ weight + bias)
        return np.split(x, 2, axis=1)

    def _rounded(self, values: Float64) -> Float64:
        """Return what is kept of activations and of y_hat: here, all."""
        return values


class FixedPointContextNetwork(ContextNetwork):
    """The same network in fixed point, held in float64: its result is the same on every machine.

    Activations, parameters and y_hat are multiples of 2^−10 up to 2^13 in magnitude, weights
    multiples of 2^−20, biases of 2^−10. As long as no sum can reach 2^53 of the products' units,
    all are exact in float64 and in any order.

    Raises:
        TablesError: A weight is not as the base class wants it or no such multiple, or a sum could
            leave the exact range.
    """

    WEIGHT_UNIT: ClassVar[float] = 2.0**-20
    _MOST: ClassVar[float] = 2.0**13

    def __init__(self, weights: Mapping[str, Array]) -> None:
        super().__init__(weights)
        for number, (weight, bias) in enumerate(self._layers):
            if np.any(weight % self.WEIGHT_UNIT) or np.any(bias % UNIT):
                raise TablesError(f"Context network: layer {number} is not in fixed point.")
            largest = float((self._MOST * np.abs(weight).sum(axis=0) + np.abs(bias)).max())
            exact = 2.0**53 * self.WEIGHT_UNIT * UNIT
            if largest >= exact:
                raise TablesError(
                    f"Context network: a sum of layer {number} could reach {largest:.3g}; sums are "
                    f"exact below {exact:.3g}."
                )

    def _rounded(self, values: Float64) -> Float64:
        return np.clip(np.rint(values / UNIT) * UNIT, -self._MOST, self._MOST)


def _steps(height: int, width: int) -> Iterator[Positions]:
    """Yield positions that can be decoded together: those of equal ``column + 3 row``.

    The context reaches two columns to the right in the row above, one step before.
    """
    for step in range(width + 3 * (height - 1)):
        rows = np.arange(max(0, (step - width) // 3 + 1), min(height, step // 3 + 1))
        if rows.size:
            yield rows, step - 3 * rows


def finite_float32(arrays: Mapping[str, Array], name: str) -> NDArray[np.float32]:
    """Return one of the arrays, which may be hostile.

    Raises:
        TablesError: It is missing, not float32, or not finite.
    """
    array = arrays.get(name)
    if array is None:
        raise TablesError(f"Context network: {name} is missing.")
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise TablesError(f"Context network: {name} is not an array of finite float32.")
    return array
