"""A hyperprior's decoder in integers: the same result on every machine, whatever multiplies.

::

    symbols of z ─► z_hat ─► layer ─► layer ─► layer ─► parameters of y's Gaussians
                     │         │        │        │
                  12 bits   12 bits  12 bits   multiples of 1/1024

The parameters decide how symbols are coded, so device and edge must compute the same ones. Floats
of two libraries differ in their last digits; sums of integers do not (Ballé, Johnston and Minnen
2019, "Integer Networks for Data Compression with Latent-Variable Models", section 3). The integers
are held in float32 and multiplied by whatever matrix product the machine is fastest at: as long as
no sum can leave ±2^24, products and partial sums are exact in any order, fused or not. A layer
whose sums can takes float64, exact up to 2^53. Which it is, the weights prove when it is made.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import TablesError
from .blas_threads import one_blas_thread
from .coder import Array
from .stream import MAX_SYMBOLS
from .tables import IntegerTables

Float32 = NDArray[np.float32]

LARGEST = 4095
"""Largest magnitude of z_hat and of activations, in units of their own: 12 bits and a sign."""

EXACT = 1 << 24
"""Bound below which integers, and so sums of them, are exact in float32."""

_EXACT_DOUBLE = 1 << 53

UNIT = 2.0**-10
"""Unit of the parameters."""

LARGEST_PARAMETER = 1 << 23
"""Largest magnitude of a parameter, in its unit."""

NO_LEAK = 1 << 16
"""Slope below zero, in units of 2^−16, where no ReLU follows."""

_MOST_VALUES = 2 * MAX_SYMBOLS
"""Bound of what a layer gives: scales and means of the largest latent."""

_MOST_WEIGHT = (1 << 15) - 1
_MOST_BIAS = (1 << 31) - 1
_MOST_SHIFT = 60
_MOST_KERNEL = 15
_MOST_STRIDE = 8


@lru_cache(maxsize=2)
def product_type(kind: type) -> type:
    """Return the first type from ``kind`` on in which this machine's matrix products are exact.

    That is the type itself wherever a library multiplies float32 in float32. One that was told to
    round to bfloat16, or that sums other things than products, is found here.
    """
    random = np.random.default_rng(0)
    shape = 96, 640
    a, b = (random.integers(-LARGEST, LARGEST, shape, endpoint=True) for _ in range(2))
    a = a * (EXACT - 1) // (LARGEST * np.abs(a).sum(axis=1, keepdims=True))
    expected = a @ b.T
    for candidate in (np.float32, np.float64):
        if candidate().itemsize >= kind().itemsize:
            product = a.astype(candidate) @ b.T.astype(candidate)
            if np.array_equal(product, expected):
                return candidate
    return np.int64  # by numpy's own loops: slow, and exact


def phases(weight: Array, stride: int) -> list[list[Array]]:
    """Part the kernel of a transposed convolution into ordinary ones, for each phase of the output.

    Args:
        weight: (O, I, k, k).
        stride: Stride; 1 gives one kernel, turned around.

    Returns:
        Kernels (O, I, a, b) by rows and columns of phases; a or b is 0 where the stride exceeds k.
    """
    sides = range(stride)
    return [
        [weight[:, :, row::stride, column::stride][:, :, ::-1, ::-1] for column in sides]
        for row in sides
    ]


def largest_sums(kernels: list[list[Array]]) -> tuple[Array, Array]:
    """Return the largest sum of magnitudes of weights for each output channel, (O,).

    Args:
        kernels: Kernels (O, I, a, b), as :func:`phases` gives them.

    Returns:
        That over one row of a kernel, which is one matrix product; and that over a whole kernel.
    """
    rows = [np.abs(kernel).sum(axis=(1, 3)) for line in kernels for kernel in line if kernel.size]
    return (
        np.max([row.max(axis=1) for row in rows], axis=0),
        np.max([row.sum(axis=1) for row in rows], axis=0),
    )


def output_size(
    side: int, kernel: int, transposed: int, stride: int, padding: int, output_padding: int
) -> int:
    """Return height or width of a layer's output for an input of so many rows or columns."""
    if transposed:
        return (side - 1) * stride + kernel - 2 * padding + output_padding
    return side + 2 * padding - kernel + 1


@dataclass(frozen=True, eq=False)
class IntegerLayer(IntegerTables):
    """A convolution of stride 1, or a transposed one, and a ReLU, leaky or not, or none after it.

    ``clip(⌊leak(W x + bias) 2^−shift⌉)``, halves to even.

    Attributes:
        weight: Weights (O, I, k, k), up to 15 bits; of a transposed convolution, too.
        bias: Biases (O,), in the unit of the sums.
        shift: Binary places (O,) by which sums are divided.
        geometry: 1 where transposed, stride, padding, output padding, and the slope below zero in
            units of 2^−16.

    Raises:
        TablesError: The arrays do not fit together, or a sum could leave the exact range.
    """

    title: ClassVar[str] = "Integer network"
    specs: ClassVar[Mapping[str, tuple[int, int]]] = {
        "weight": (4, _MOST_WEIGHT),
        "bias": (1, _MOST_BIAS),
        "shift": (1, _MOST_SHIFT),
        "geometry": (1, NO_LEAK),
    }

    weight: NDArray[np.int32]
    bias: NDArray[np.int32]
    shift: NDArray[np.int32]
    geometry: NDArray[np.int32]

    def _check(self) -> None:
        outputs, inputs, height, width = self.weight.shape
        fits = outputs and inputs and 1 <= height == width <= _MOST_KERNEL
        if not fits or not self.bias.shape == self.shift.shape == (outputs,):
            raise TablesError(f"{self.title}: the arrays of a layer do not fit together.")
        if self.geometry.shape != (5,) or self.geometry.min() < 0:
            raise TablesError(f"{self.title}: a layer's geometry is not valid.")
        transposed, stride, padding, output_padding, _ = self.geometry.tolist()
        most = _MOST_STRIDE if transposed else 1
        if transposed > 1 or not 1 <= stride <= most or padding >= height:
            raise TablesError(f"{self.title}: a layer's stride or padding is not valid.")
        if output_padding >= stride:
            raise TablesError(f"{self.title}: a layer's output padding is not valid.")
        _, whole = self._bounds
        if whole.max() >= _EXACT_DOUBLE:
            raise TablesError(
                f"{self.title}: a sum of output channel {whole.argmax()} could reach "
                f"{whole.max():,}; sums are exact below {_EXACT_DOUBLE:,}."
            )

    @cached_property
    def _kernels(self) -> list[list[Array]]:
        if self.geometry[0]:
            return phases(self.weight, int(self.geometry[1]))
        return [[self.weight]]

    @cached_property
    def _bounds(self) -> tuple[Array, Array]:
        rows, whole = (LARGEST * sums.astype(np.int64) for sums in largest_sums(self._kernels))
        return rows, whole + np.abs(self.bias)

    @cached_property
    def _products(self) -> list[list[list[Float32]]]:
        """The kernels by rows, each (O, columns I), in the type that its products are exact in."""
        kind = product_type(np.float32 if self._bounds[0].max() < EXACT else np.float64)

        def by_rows(kernel: Array) -> list[Float32]:
            if not kernel.size:
                return []
            rows = np.moveaxis(kernel, 2, 0).transpose(0, 1, 3, 2)
            flat = rows.reshape(len(rows), len(self.weight), -1)
            return list(np.ascontiguousarray(flat, kind))

        return [[by_rows(kernel) for kernel in line] for line in self._kernels]

    @cached_property
    def _sums(self) -> type:
        """Type that holds whole sums exactly."""
        return np.float32 if self._bounds[1].max() < EXACT else np.float64

    def size(self, side: int) -> int:
        """Return height or width of the output for an input of so many rows or columns."""
        return output_size(side, self.weight.shape[-1], *self.geometry[:4].tolist())

    def macs(self, height: int, width: int) -> int:
        """Return the number of multiply-accumulates for an input of this height and width."""
        side = (lambda size: size) if self.geometry[0] else self.size
        return side(height) * side(width) * self.weight.size

    def __call__(self, x: Float32, largest: int) -> Float32:
        """Compute the output (O, H', W') of an input (I, H, W), both integers in float32.

        Args:
            x: Input, of magnitudes up to :data:`LARGEST`.
            largest: Largest magnitude of the output.
        """
        sums = self._transposed(x) if self.geometry[0] else self._convolved(x)
        if self.bias.any():
            sums += self.bias[:, None, None].astype(self._sums)
        leak = int(self.geometry[4])
        if leak != NO_LEAK:
            # In float64, since a sum times the slope has more bits than float32 holds.
            sums = sums.astype(np.float64, copy=False)
            sums = np.maximum(sums, sums * (leak / NO_LEAK))
        sums *= np.ldexp(1.0, -self.shift)[:, None, None].astype(sums.dtype)
        np.rint(sums, out=sums)
        np.clip(sums, -largest, largest, out=sums)
        return sums.astype(np.float32, copy=False)

    def _convolved(self, x: Float32) -> NDArray[Any]:
        padding = int(self.geometry[2])
        ((rows,),) = self._products
        return self._correlated(x, rows, *((padding, self.size(side)) for side in x.shape[1:]))

    def _transposed(self, x: Float32) -> NDArray[Any]:
        """Compute each phase of the output by itself, and interleave them."""
        _, stride, padding, _, _ = self.geometry.tolist()
        sizes = [self.size(side) for side in x.shape[1:]]
        whole = np.zeros((len(self.weight), *sizes), self._sums)
        for row, line in enumerate(self._products):
            for column, rows in enumerate(line):
                if not rows:
                    continue
                # Where in the output the phase begins, and how much of it lies before that.
                begins = [(phase - padding) % stride for phase in (row, column)]
                place = whole[:, begins[0] :: stride, begins[1] :: stride]
                taps = len(rows), rows[0].shape[1] // len(x)
                before = [
                    tap - 1 - (begin + padding) // stride
                    for tap, begin in zip(taps, begins, strict=True)
                ]
                spans = zip(before, place.shape[1:], strict=True)
                place[...] = self._correlated(x, rows, *spans)
        return whole

    def _correlated(self, x: Float32, rows: list[Float32], *spans: tuple[int, int]) -> NDArray[Any]:
        """Correlate x (I, H, W) with a kernel by rows: one matrix product for each.

        Args:
            x: Input.
            rows: Kernel, as ``_products`` holds it.
            spans: Zeros that the output begins before x, in rows and in columns (below 0: how much
                of x it leaves out), each with the output's size.
        """
        (above, height), (left, width) = spans
        across = rows[0].shape[1] // len(x)
        shifted = np.zeros((across, len(x), height + len(rows) - 1, width), rows[0].dtype)
        there, here = _overlap(shifted.shape[2], x.shape[1], above)
        for column, place in enumerate(shifted):
            to, of = _overlap(width, x.shape[2], left - column)
            place[:, there, to] = x[:, here, of]
        flat = shifted.reshape(across * len(x), -1)
        total = np.zeros((len(rows[0]), height * width), self._sums)
        for number, row in enumerate(rows):
            total += row @ flat[:, number * width : (number + height) * width]
        return total.reshape(-1, height, width)


def _overlap(size: int, given: int, before: int) -> tuple[slice, slice]:
    """Return where so many values lie in ``size`` places that begin before them, and which do."""
    first, end = max(before, 0), max(min(before + given, size), max(before, 0))
    return slice(first, end), slice(first - before, end - before)


class HyperSynthesis:
    """h_s in integers: symbols of z to the parameters of y's Gaussians.

    Args:
        arrays: Arrays by the names in ``NAMES``, which may be hostile: ``medians`` (D,), the
            medians of z in units of z_hat; ``shift``, the binary places by which symbols of z are
            multiplied to be in it; ``means``, 1 where the second half of the parameters are means;
            and of each of three layers the arrays of :class:`IntegerLayer`.

    Attributes:
        layers: The layers.
        has_means: Whether the second half of the parameters are means, as the first are scales.
        arrays: The arrays by name.

    Raises:
        TablesError: An array is missing or not valid, or a sum could leave the exact range.
    """

    LAYERS: ClassVar[int] = 3
    NAMES: ClassVar[tuple[str, ...]] = (
        "synthesis_medians",
        "synthesis_shift",
        "synthesis_means",
        *(name for layer in range(3) for name in IntegerLayer.names(f"synthesis_{layer}_")),
    )

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        origin = _Origin.of(arrays, "synthesis_")
        self._medians, self._shift = origin.medians, origin.shift
        self.has_means = bool(origin.means)
        prefixes = (f"synthesis_{layer}_" for layer in range(self.LAYERS))
        self.layers = tuple(IntegerLayer.of(arrays, prefix) for prefix in prefixes)
        widths = [len(self._medians), *(len(layer.weight) for layer in self.layers)]
        if any(
            layer.weight.shape[1] != width
            for layer, width in zip(self.layers, widths, strict=False)
        ):
            raise TablesError("Integer network: a layer does not take what the one before gives.")
        self.arrays: dict[str, Array] = {
            **origin.arrays("synthesis_"),
            **{
                name: array
                for number, layer in enumerate(self.layers)
                for name, array in layer.arrays(f"synthesis_{number}_").items()
            },
        }

    @property
    def channels(self) -> tuple[int, int]:
        """Numbers of channels of z, and of parameters."""
        return len(self._medians), len(self.layers[-1].weight)

    def digest(self) -> bytes:
        """Return the SHA-256 of the integers."""
        content = hashlib.sha256(b"synthesis-1")
        for name, array in self.arrays.items():
            content.update(f"{name}{array.shape}".encode())
            content.update(array.astype("<i4").tobytes())
        return content.digest()

    def size(self, side: int) -> int:
        """Return height or width of the parameters for a z of so many rows or columns."""
        for layer in self.layers:
            side = layer.size(side)
        return side

    def macs(self, height: int, width: int) -> int:
        """Return the number of multiply-accumulates for a z of this height and width."""
        total = 0
        for layer in self.layers:
            total += layer.macs(height, width)
            height, width = layer.size(height), layer.size(width)
        return total

    def can_take(self, height: int, width: int) -> bool:
        """Say whether a z of this height and width gives something, and no layer too much."""
        for layer in self.layers:
            height, width = layer.size(height), layer.size(width)
            if min(height, width) < 1 or len(layer.weight) * height * width > _MOST_VALUES:
                return False
        return True

    def __call__(self, hyper_symbols: NDArray[np.int32]) -> Float32:
        """Compute the parameters (O, H, W), integers in float32, of z's symbols (D, h, w).

        Raises:
            TablesError: They are of another number of channels, or too many, or too few to give
                any.
        """
        channels, height, width = hyper_symbols.shape
        if channels != len(self._medians) or not self.can_take(height, width):
            raise TablesError(
                f"The integer network does not take symbols of z of shape {hyper_symbols.shape}."
            )
        symbols = np.clip(hyper_symbols, -LARGEST, LARGEST).astype(np.int64) << self._shift
        x = np.clip(symbols + self._medians[:, None, None], -LARGEST, LARGEST).astype(np.float32)
        with one_blas_thread():
            for layer in self.layers[:-1]:
                x = layer(x, LARGEST)
            return self.layers[-1](x, LARGEST_PARAMETER)


@dataclass(frozen=True, eq=False)
class _Origin(IntegerTables):
    """Where z_hat lies for symbols of z, and in which unit."""

    title: ClassVar[str] = "Integer network"
    specs: ClassVar[Mapping[str, tuple[int, int]]] = {
        "medians": (1, EXACT),
        "shift": (0, 10),
        "means": (0, 1),
    }

    medians: NDArray[np.int32]
    shift: int
    means: int

    def _check(self) -> None:
        if min(self.shift, self.means) < 0 or not self.medians.size:
            raise TablesError(f"{self.title}: the unit of z is not valid.")
