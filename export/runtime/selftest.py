"""Does this machine compute what the exporting machine recorded?"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError, ParityError
from ...zoo.coding.arrays import read_arrays, write_arrays
from .bundle import Bundle
from .halves import Device, Edge

TIE_MARGIN = 1e-4
"""Distance from a rounding boundary, in symbols, below which a symbol may differ.

float32 sums of a few thousand products taken in another order differ by some 1e-6 of their size;
latents reach some tens, so 1e-4 covers them with room. About one symbol in 5,000 lies so close.
"""

OUTPUT_TOLERANCE = 1e-4
"""Relative to the largest output: float32 through fifty layers, in another order of additions."""

_MAX_BYTES = 1 << 28
_ARRAYS = ("image", "symbols", "ties", "output", "stream")


@dataclass(frozen=True)
class Record:
    """An input with what PyTorch made of it.

    Attributes:
        image: (1, 3, H, W) float32.
        symbols: (1, C, h, w) int32.
        ties: Like ``symbols``, bool: where the latent lay so close to a rounding boundary that
            another order of additions may round it to the neighbour.
        output: (1, …) float32, from ``symbols``.
        stream: Of ``symbols``.
    """

    image: NDArray[np.float32]
    symbols: NDArray[np.int32]
    ties: NDArray[np.bool_]
    output: NDArray[np.float32]
    stream: bytes

    def save(self, path: Path) -> None:
        """Write the record as a compressed ``.npz`` file."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays["stream"] = np.frombuffer(self.stream, np.uint8)
        write_arrays(path, arrays, save=np.savez_compressed)

    @classmethod
    def load(cls, bundle: Bundle) -> "Record":
        """Read a bundle's record.

        Raises:
            BundleError: The file is damaged, too large, or does not fit the bundle's graphs.
        """
        path = bundle.part_paths["selftest"]
        try:
            arrays = read_arrays(path, _ARRAYS, limit_bytes=_MAX_BYTES)
        except ValueError as error:
            raise BundleError(f"Cannot read the self-test record {path}: {error}.") from error
        latent = bundle.device.output.shape[1:]
        expected = {
            "image": (np.float32, (1, *bundle.device.input.shape[1:])),
            "symbols": (np.int32, (1, *latent)),
            "ties": (np.bool_, (1, *latent)),
            "output": (np.float32, (1, *bundle.edge.output.shape[1:])),
            "stream": (np.uint8, arrays["stream"].shape[:1]),
        }
        for name, (dtype, shape) in expected.items():
            value = arrays[name]
            if value.dtype != dtype or value.shape != shape:
                raise BundleError(
                    f"The self-test record holds {name} as {value.dtype} {value.shape}, "
                    f"not {np.dtype(dtype)} {shape}."
                )
        stream = arrays.pop("stream").tobytes()
        return cls(stream=stream, **arrays)  # pyright: ignore[reportArgumentType]  # as checked


@dataclass(frozen=True)
class SelfTest:
    """What a self-test found.

    Attributes:
        symbols: Compared.
        symbols_differing: All of them at ties, by 1.
        symbols_tied: That were allowed to differ.
        output_relative_error: Largest |difference| over largest |output|.
        output_tolerance: That was allowed.
        stream_bytes: Of the recorded stream, which this machine wrote again byte for byte.
    """

    symbols: int
    symbols_differing: int
    symbols_tied: int
    output_relative_error: float
    output_tolerance: float
    stream_bytes: int


def run_selftest(bundle: Bundle, threads: int = 0) -> SelfTest:
    """Run both halves on the recorded input and compare every step with the record.

    Raises:
        ParityError: A symbol, the stream or the output differs by more than it may.
        BundleError: The record or a graph cannot be read.
    """
    record = Record.load(bundle)
    device, edge = Device(bundle, threads), Edge(bundle, threads)
    differing = compare_symbols(device.symbols(record.image), record.symbols, record.ties)
    if device.codec.compress(record.symbols[0]) != record.stream:
        raise ParityError("The entropy coder wrote another stream than the recorded one.")
    if not np.array_equal(edge.symbols(record.stream), record.symbols):
        raise ParityError("The recorded stream decodes to other symbols than the recorded ones.")
    error = compare_outputs(edge.output(record.symbols), record.output, bundle.output_tolerance)
    return SelfTest(
        symbols=record.symbols.size,
        symbols_differing=differing,
        symbols_tied=int(record.ties.sum()),
        output_relative_error=error,
        output_tolerance=bundle.output_tolerance,
        stream_bytes=len(record.stream),
    )


def compare_symbols(
    found: NDArray[np.int32], expected: NDArray[np.int32], ties: NDArray[np.bool_]
) -> int:
    """Return how many symbols differ, each at a tie and by 1.

    Raises:
        ParityError: One differs elsewhere, or by more.
    """
    if found.shape != expected.shape:
        raise ParityError(f"The device graph gave {found.shape} symbols, not {expected.shape}.")
    difference = np.abs(found.astype(np.int64) - expected)
    wrong = (difference > 1) | ((difference == 1) & ~ties)
    if wrong.any():
        raise ParityError(
            f"{int(wrong.sum())} of {wrong.size} symbols differ from PyTorch's, "
            f"by up to {int(difference.max())}.",
            next_step="The device graph on this machine is not the model. Do not ship it.",
        )
    return int((difference > 0).sum())


def compare_outputs(
    found: NDArray[np.float32], expected: NDArray[np.float32], tolerance: float
) -> float:
    """Return the largest difference relative to the largest expected magnitude.

    Raises:
        ParityError: It is above the tolerance, or not a number.
    """
    if found.shape != expected.shape:
        raise ParityError(f"The edge graph gave an output of {found.shape}, not {expected.shape}.")
    scale = float(np.abs(expected).max())
    error = float(np.abs(found.astype(np.float64) - expected).max()) / (scale or 1.0)
    if not error <= tolerance:
        raise ParityError(
            f"The edge graph's output differs from PyTorch's by {error:.2e} of its largest value; "
            f"{tolerance:.0e} is allowed.",
            next_step="The edge graph on this machine is not the model. Do not ship it.",
        )
    return error
