"""Compare what two runtimes computed: integers with ties, floats with a tolerance, lossy pixels.

One home for all who compare: the self-test, the exporter's parity, the precision report, the board
that builds engines, and the matrix of runtimes.
"""

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ParityError
from .limits import Limits
from .manifest import GraphInfo

LOSSY_TOLERANCE = 1.0 / 255
"""Mean difference of what an image codec gives back on another machine, relative to its range:
libraries of other versions decode the same file to pixels that differ by one level here and there.
"""


@dataclass(frozen=True)
class Comparison:
    """Integers of one runtime, counted against those of another.

    Attributes:
        symbols: Integers compared.
        differing: Those that differ.
        tied: Those at ties.
        largest: Largest difference.
        nonzero: Those that are not 0 on both sides.
        beyond_ties: Those that differ elsewhere than at ties, or by more than 1.
    """

    symbols: int = 0
    differing: int = 0
    tied: int = 0
    largest: int = 0
    nonzero: int = 0
    beyond_ties: int = 0

    def __add__(self, other: "Comparison") -> "Comparison":
        return Comparison(
            self.symbols + other.symbols,
            self.differing + other.differing,
            self.tied + other.tied,
            max(self.largest, other.largest),
            self.nonzero + other.nonzero,
            self.beyond_ties + other.beyond_ties,
        )

    @property
    def changed(self) -> float:
        """Number of integers that differ for each that is not 0."""
        return self.differing / max(self.nonzero, 1)


def compare_integers(
    found: NDArray[Any], expected: NDArray[Any], ties: NDArray[np.bool_] | None = None
) -> Comparison:
    """Count how integers differ from expected ones of the same shape, at ``ties`` and elsewhere."""
    difference = np.abs(found.astype(np.int64) - expected)
    tied = np.zeros(difference.shape, bool) if ties is None else ties
    return Comparison(
        symbols=difference.size,
        differing=int((difference > 0).sum()),
        tied=int(tied.sum()),
        largest=int(difference.max()),
        nonzero=int(((found != 0) | (expected != 0)).sum()),
        beyond_ties=int(((difference > 1) | ((difference == 1) & ~tied)).sum()),
    )


def check_integers(
    found: NDArray[Any],
    expected: NDArray[Any],
    ties: NDArray[np.bool_],
    limits: Limits,
    name: str = "symbols",
) -> Comparison:
    """Compare integers with expected ones: at a tie, one may differ by 1.

    Raises:
        ParityError: More of them differ elsewhere, or by more, than the limits allow.
    """
    if found.shape != expected.shape:
        raise ParityError(f"The device graph gave {found.shape} {name}, not {expected.shape}.")
    counted = compare_integers(found, expected, ties)
    beyond = counted.beyond_ties > limits.changed * counted.nonzero
    if beyond or counted.largest > limits.difference:
        share = f"; {limits.changed:.1%} of the {counted.nonzero} that are not 0 may"
        allowed = f"{share}, by up to {limits.difference}" if limits.changed else ""
        raise ParityError(
            f"{counted.beyond_ties} of {counted.symbols} {name} differ from PyTorch's, by up to "
            f"{counted.largest}{allowed}.",
            next_step="The device graph on this machine is not the model. Do not ship it.",
        )
    return counted


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference, relative to the largest expected magnitude.

    It is infinite where a value is not a number.
    """
    scale = float(np.abs(expected).max()) or 1.0
    error = float(np.abs(found.astype(np.float64) - expected).max()) / scale
    return error if error < math.inf else math.inf


def check_floats(found: NDArray[Any], expected: NDArray[Any], tolerance: float, what: str) -> float:
    """Compare floats with expected ones and return the :func:`relative_error`.

    Args:
        what: Name of the tensor, for messages, as the beginning of a sentence.

    Raises:
        ParityError: The shapes differ, or the error is above the tolerance or not a number.
    """
    if found.shape != expected.shape:
        raise ParityError(f"{what} is {found.shape}, not {expected.shape}.")
    error = relative_error(found, expected)
    if not error <= tolerance:
        raise ParityError(
            f"{what} differs from PyTorch's by {error:.2e} of its largest value; "
            f"{tolerance:.0e} is allowed.",
            next_step="The graph on this machine is not the model. Do not ship it.",
        )
    return error


def check_outputs(
    found: Sequence[NDArray[Any]], expected: Mapping[str, NDArray[Any]], tolerance: float
) -> float:
    """Compare the outputs of an edge graph by :func:`check_floats`; return the largest error."""
    return max(
        check_floats(tensor, value, tolerance, f"The edge graph's {name}")
        for tensor, (name, value) in zip(found, expected.items(), strict=True)
    )


def check_lossy(found: NDArray[Any], expected: NDArray[Any], name: str) -> None:
    """Raise ``ParityError`` if what an image codec gave back is beyond :data:`LOSSY_TOLERANCE`."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ParityError(f"The received {name} are {found.shape}, not {expected.shape}.")
    span = 255.0 if expected.dtype == np.uint8 else float(np.ptp(expected)) or 1.0
    error = float(np.abs(found.astype(np.float64) - expected).mean()) / span
    if not error <= LOSSY_TOLERANCE:
        raise ParityError(
            f"The image codec on this machine gives other {name} back: by {error:.1%} of their "
            f"range on average; {LOSSY_TOLERANCE:.1%} is allowed."
        )


def check_wire(
    found: Sequence[NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    ties: Mapping[str, NDArray[np.bool_]],
    limits: Limits,
    left_out: Set[str] = frozenset(),
) -> Comparison:
    """Compare the wire tensors of a device graph with expected ones, and count their integers.

    Args:
        ties: Ties of those that are integers, by name.
        left_out: Names of those that are not compared; see :func:`not_comparable`.

    Raises:
        ParityError: An integer or a float differs by more than the limits allow.
    """
    counted = Comparison()
    for (name, value), tensor in zip(expected.items(), found, strict=True):
        if name in left_out:
            continue
        if name in ties:
            counted += check_integers(tensor, value, ties[name], limits, name)
        else:
            check_floats(tensor, value, limits.wire_tolerance, f"The device graph's {name}")
    return counted


def not_comparable(
    precision: str,
    hyper: GraphInfo | None,
    found: Sequence[NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
) -> Set[str]:
    """Return the names of wire tensors that cannot be compared with a reference in fp32.

    Below fp32, these are the tensors that are computed from rounded values, because one value that
    differs changes all of them: a hyperprior's scale indexes and means, and, where z differs, the
    symbols of a y that is rounded relative to the means. The self-test sees that the edge computes
    the same from the same z.
    """
    if precision == "fp32" or hyper is None:
        return frozenset()
    derived = {tensor.name for tensor in hyper.outputs}
    sources = {tensor.name for tensor in hyper.inputs}
    differs = any(
        name in sources and not np.array_equal(tensor, value)
        for (name, value), tensor in zip(expected.items(), found, strict=True)
    )
    return derived | ({"symbols"} if "means" in derived and differs else set())
