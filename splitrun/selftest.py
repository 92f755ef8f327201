"""Does this machine compute what the exporting machine recorded?"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .errors import BitstreamError, DesyncError, ParityError
from .halves import Device, Edge, Tensors
from .limits import Limits
from .predictions import answer
from .record import Record

LOSSY_TOLERANCE = 1.0 / 255
"""Mean difference of what an image codec gives back on another machine, relative to its range:
libraries of other versions decode the same file to pixels that differ by one level here and there.
"""


@dataclass(frozen=True)
class SelfTest:
    """What a self-test found.

    Attributes:
        symbols: Integers compared, over all tensors sent.
        symbols_differing: In fp32, all of them at ties, by 1.
        symbols_tied: That lay at ties.
        largest_difference: Of a symbol.
        output_relative_error: Largest |difference| over largest |output|.
        output_tolerance: That was allowed.
        stream_bytes: Of the recorded stream.
        stream_rewritten: This machine wrote the same stream, byte for byte; image codecs of other
            versions need not.
        device: What ran the device graph, with its version.
        edge: Likewise.
    """

    symbols: int
    symbols_differing: int
    symbols_tied: int
    largest_difference: int
    output_relative_error: float
    output_tolerance: float
    stream_bytes: int
    stream_rewritten: bool
    device: str
    edge: str


def run_selftest(bundle: Bundle, threads: int = 0, *, stand_in: bool = False) -> SelfTest:
    """Run both halves on the recorded input and compare every step with the record.

    Args:
        bundle: That was opened.
        threads: For the engines; 0 lets them choose.
        stand_in: Let another engine run the graphs of one that is not here, where one can.

    Raises:
        ParityError: A symbol, the stream or the output differs by more than it may.
        BundleError: The record or a graph cannot be read.
    """
    device = Device(bundle, threads, stand_in=stand_in)
    edge = Edge(bundle, threads, stand_in=stand_in)
    record = Record.load(bundle)
    sent = device.tensors(record.image)
    compared = compare_sent(bundle, sent, record)
    rewritten = device.codec.compress(*(one[0] for one in record.sent.values())) == record.stream
    if device.codec.coder.lossless and not rewritten:
        raise ParityError("The entropy coder wrote another stream than the recorded one.")
    tolerance = bundle.limits.output_tolerance
    compare_received(edge, record, tolerance)
    error = compare_edge(edge, record, tolerance)
    check_halves(device, edge, sent)
    check_answer(bundle, edge, record)
    return SelfTest(
        symbols=compared.symbols,
        symbols_differing=compared.differing,
        symbols_tied=compared.tied,
        largest_difference=compared.largest,
        output_relative_error=error,
        output_tolerance=tolerance,
        stream_bytes=len(record.stream),
        stream_rewritten=rewritten,
        device=device.graph.session.version,
        edge=edge.graph.session.version,
    )


@dataclass(frozen=True)
class Compared:
    """Integers held against others.

    Attributes:
        symbols: How many.
        differing: Of them.
        tied: That lay at ties.
        largest: Difference.
        nonzero: That are not 0 on both sides.
    """

    symbols: int = 0
    differing: int = 0
    tied: int = 0
    largest: int = 0
    nonzero: int = 0

    def __add__(self, other: "Compared") -> "Compared":
        return Compared(
            self.symbols + other.symbols,
            self.differing + other.differing,
            self.tied + other.tied,
            max(self.largest, other.largest),
            self.nonzero + other.nonzero,
        )

    @property
    def changed(self) -> float:
        """Share of those not 0 that differ."""
        return self.differing / max(self.nonzero, 1)


def compare_edge(edge: Edge, record: Record, tolerance: float) -> float:
    """Run the edge graphs on what was received, and return the largest relative difference.

    Raises:
        ParityError: It is above the tolerance, or not a number.
    """
    outputs = edge.output(list(record.received.values()))
    error = compare_outputs(outputs, record.outputs, tolerance)
    if record.boxes_inputs:
        levels = [value for value in record.outputs.values() if value.ndim == 4]
        given = edge.boxes([*levels, *record.boxes_inputs.values()])
        error = max(error, compare_outputs(given, record.boxes_outputs, tolerance))
    return error


def compare_sent(bundle: Bundle, found: Tensors, record: Record) -> Compared:
    """Hold what the device sends against the record.

    Raises:
        ParityError: An integer or a float differs by more than the bundle's limits.
    """
    compared = Compared()
    left_out = incomparable(bundle, found, record.sent)
    for (name, expected), tensor in zip(record.sent.items(), found, strict=True):
        if name in left_out:
            continue
        if name in record.ties:
            compared += compare_symbols(tensor, expected, record.ties[name], bundle.limits, name)
        else:
            tolerance = bundle.limits.sent_tolerance
            _compare(tensor, expected, tolerance, f"The device graph's {name}")
    return compared


def incomparable(
    bundle: Bundle, found: Tensors, expected: Mapping[str, NDArray[Any]]
) -> Collection[str]:
    """Return the names of what a device sends that says nothing beside expected tensors.

    Below fp32, that is what is computed from rounded values, since one that differs changes all of
    it: a hyperprior's scale indexes and means, and the symbols of a y that is rounded relative to
    the means, where z differs. :func:`check_halves` sees that the edge computes the same.
    """
    if bundle.precision == "fp32" or "hyper" not in bundle.graphs:
        return ()
    derived = {one.name for one in bundle.graphs["hyper"].outputs}
    followed = {one.name for one in bundle.graphs["hyper"].inputs}
    differs = any(
        name in followed and not np.array_equal(tensor, value)
        for (name, value), tensor in zip(expected.items(), found, strict=True)
    )
    return derived | ({"symbols"} if "means" in derived and differs else set())


def compare_received(edge: Edge, record: Record, tolerance: float) -> None:
    """See that the recorded stream decodes to what it did.

    Raises:
        ParityError: It does not.
    """
    try:
        received = edge.tensors(record.stream)
    except DesyncError as error:
        raise ParityError(
            "The hyper graph on this machine gives other scale indexes than PyTorch's did: "
            f"the recorded stream cannot be read. {error.message}",
            next_step=error.next_step,
        ) from error
    exact = edge.codec.coder.lossless
    for tensor, (name, expected) in zip(received, record.received.items(), strict=True):
        if exact and expected.dtype.kind in "iu":
            if not np.array_equal(tensor, expected):
                raise ParityError(
                    f"The recorded stream decodes to other {name} than the recorded ones."
                )
        elif exact:
            _compare(tensor, expected, tolerance, f"The received {name}")
        else:
            _compare_lossy(tensor, expected, name)


def check_halves(device: Device, edge: Edge, sent: Tensors) -> None:
    """See that the edge here reads what the device here writes, as it will from now on.

    The recorded stream was made of PyTorch's symbols and scale indexes, not of this machine's.

    Args:
        device: That gave ``sent``.
        edge: Of the same bundle.
        sent: The device graph's outputs for one image, each (1, …).

    Raises:
        ParityError: It does not, or reads other integers.
    """
    stream = device.codec.compress(*(one[0] for one in sent))
    try:
        received = edge.tensors(stream)
    except BitstreamError as error:
        raise ParityError(
            f"The edge half here cannot read what the device half here writes: {error.message}",
            next_step=error.next_step,
        ) from error
    if not device.codec.coder.lossless:
        return
    kept = device.codec.coder.received(*(one[0] for one in sent))
    expected = {info.name: one for info, one in zip(device.graph.info.outputs, kept, strict=True)}
    for info, one in zip(edge.graph.info.inputs, received, strict=True):
        if info.name in expected and not np.array_equal(one[0], expected[info.name]):
            raise ParityError(f"The edge half here reads other {info.name} than were written.")


def check_answer(bundle: Bundle, edge: Edge, record: Record) -> None:
    """See that an answer can be made of the recorded outputs, with the labels and settings.

    Raises:
        BundleError: They do not fit one another.
    """
    answer(bundle, edge, tuple(record.outputs.values()), bundle.labels())


def compare_symbols(
    found: NDArray[Any],
    expected: NDArray[Any],
    ties: NDArray[np.bool_],
    limits: Limits,
    name: str = "symbols",
) -> Compared:
    """Hold integers against expected ones: at a tie, one may differ by 1.

    Raises:
        ParityError: More of them differ elsewhere, or by more, than the limits allow.
    """
    if found.shape != expected.shape:
        raise ParityError(f"The device graph gave {found.shape} {name}, not {expected.shape}.")
    difference = np.abs(found.astype(np.int64) - expected)
    compared = Compared(
        symbols=difference.size,
        differing=int((difference > 0).sum()),
        tied=int(ties.sum()),
        largest=int(difference.max()),
        nonzero=int(((found != 0) | (expected != 0)).sum()),
    )
    wrong = int(((difference > 1) | ((difference == 1) & ~ties)).sum())
    if wrong > limits.changed * compared.nonzero or compared.largest > limits.difference:
        allowed = (
            f"; {limits.changed:.1%} of the {compared.nonzero} that are not 0 may, by up to "
            f"{limits.difference}"
        )
        raise ParityError(
            f"{wrong} of {difference.size} {name} differ from PyTorch's, by up to "
            f"{compared.largest}{allowed if limits.changed else ''}.",
            next_step="The device graph on this machine is not the model. Do not ship it.",
        )
    return compared


def compare_outputs(
    found: Tensors, expected: Mapping[str, NDArray[Any]], tolerance: float
) -> float:
    """Return the largest difference relative to the largest expected magnitude of its tensor.

    Raises:
        ParityError: It is above the tolerance, or not a number.
    """
    return max(
        _compare(tensor, value, tolerance, f"The edge graph's {name}")
        for tensor, (name, value) in zip(found, expected.items(), strict=True)
    )


def _compare(found: NDArray[Any], expected: NDArray[Any], tolerance: float, what: str) -> float:
    if found.shape != expected.shape:
        raise ParityError(f"{what} is {found.shape}, not {expected.shape}.")
    scale = float(np.abs(expected).max())
    error = float(np.abs(found.astype(np.float64) - expected).max()) / (scale or 1.0)
    if not error <= tolerance:
        raise ParityError(
            f"{what} differs from PyTorch's by {error:.2e} of its largest value; "
            f"{tolerance:.0e} is allowed.",
            next_step="The graph on this machine is not the model. Do not ship it.",
        )
    return error


def _compare_lossy(found: NDArray[Any], expected: NDArray[Any], name: str) -> None:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ParityError(f"The received {name} are {found.shape}, not {expected.shape}.")
    span = 255.0 if expected.dtype == np.uint8 else float(np.ptp(expected)) or 1.0
    error = float(np.abs(found.astype(np.float64) - expected).mean()) / span
    if not error <= LOSSY_TOLERANCE:
        raise ParityError(
            f"The image codec on this machine gives other {name} back: by {error:.1%} of their "
            f"range on average; {LOSSY_TOLERANCE:.1%} is allowed."
        )
