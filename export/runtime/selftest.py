"""Does this machine compute what the exporting machine recorded?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BitstreamError, DesyncError, ParityError
from .answers import answer
from .bundle import Bundle
from .halves import Device, Edge, Tensors
from .record import Record

TIE_MARGIN = 1e-4
"""Distance from a rounding boundary, in symbols, below which a symbol may differ.

float32 sums of a few thousand products taken in another order differ by some 1e-6 of their size;
latents reach some tens, so 1e-4 covers them with room. About one symbol in 5,000 lies so close.
"""

OUTPUT_TOLERANCE = 1e-4
"""Relative to the largest output: float32 through fifty layers, in another order of additions."""

LOSSY_TOLERANCE = 1.0 / 255
"""Mean difference of what an image codec gives back on another machine, relative to its range:
libraries of other versions decode the same file to pixels that differ by one level here and there.
"""


@dataclass(frozen=True)
class SelfTest:
    """What a self-test found.

    Attributes:
        symbols: Integers compared, over all tensors sent.
        symbols_differing: All of them at ties, by 1.
        symbols_tied: That were allowed to differ.
        output_relative_error: Largest |difference| over largest |output|.
        output_tolerance: That was allowed.
        stream_bytes: Of the recorded stream.
        stream_rewritten: This machine wrote the same stream, byte for byte; image codecs of other
            versions need not.
    """

    symbols: int
    symbols_differing: int
    symbols_tied: int
    output_relative_error: float
    output_tolerance: float
    stream_bytes: int
    stream_rewritten: bool


def run_selftest(bundle: Bundle, threads: int = 0) -> SelfTest:
    """Run both halves on the recorded input and compare every step with the record.

    Raises:
        ParityError: A symbol, the stream or the output differs by more than it may.
        BundleError: The record or a graph cannot be read.
    """
    device, edge = Device(bundle, threads), Edge(bundle, threads)
    record = Record.load(bundle)
    sent = device.tensors(record.image)
    differing = compare_sent(bundle, sent, record)
    rewritten = device.codec.compress(*(one[0] for one in record.sent.values())) == record.stream
    if device.codec.coder.lossless and not rewritten:
        raise ParityError("The entropy coder wrote another stream than the recorded one.")
    compare_received(edge, record, bundle.output_tolerance)
    error = compare_edge(edge, record, bundle.output_tolerance)
    check_halves(device, edge, sent)
    check_answer(bundle, edge, record)
    return SelfTest(
        symbols=sum(one.size for one in record.ties.values()),
        symbols_differing=differing,
        symbols_tied=sum(int(one.sum()) for one in record.ties.values()),
        output_relative_error=error,
        output_tolerance=bundle.output_tolerance,
        stream_bytes=len(record.stream),
        stream_rewritten=rewritten,
    )


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


def compare_sent(bundle: Bundle, found: Tensors, record: Record) -> int:
    """Return how many integers differ from the record's, each at a tie and by 1.

    Raises:
        ParityError: One differs elsewhere, or by more, or a float differs beyond the tolerance.
    """
    differing = 0
    for (name, expected), tensor in zip(record.sent.items(), found, strict=True):
        if name in record.ties:
            differing += compare_symbols(tensor, expected, record.ties[name], name)
        else:
            _compare(tensor, expected, bundle.output_tolerance, f"The device graph's {name}")
    return differing


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
    written = {info.name: one for info, one in zip(device.graph.info.outputs, sent, strict=True)}
    for info, one in zip(edge.graph.info.inputs, received, strict=True):
        if info.name in written and not np.array_equal(one, written[info.name]):
            raise ParityError(f"The edge half here reads other {info.name} than were written.")


def check_answer(bundle: Bundle, edge: Edge, record: Record) -> None:
    """See that an answer can be made of the recorded outputs, with the labels and settings.

    Raises:
        BundleError: They do not fit one another.
    """
    answer(bundle, edge, tuple(record.outputs.values()), bundle.labels())


def compare_symbols(
    found: NDArray[Any], expected: NDArray[Any], ties: NDArray[np.bool_], name: str = "symbols"
) -> int:
    """Return how many integers differ, each at a tie and by 1.

    Raises:
        ParityError: One differs elsewhere, or by more.
    """
    if found.shape != expected.shape:
        raise ParityError(f"The device graph gave {found.shape} {name}, not {expected.shape}.")
    difference = np.abs(found.astype(np.int64) - expected)
    wrong = (difference > 1) | ((difference == 1) & ~ties)
    if wrong.any():
        raise ParityError(
            f"{int(wrong.sum())} of {wrong.size} {name} differ from PyTorch's, "
            f"by up to {int(difference.max())}.",
            next_step="The device graph on this machine is not the model. Do not ship it.",
        )
    return int((difference > 0).sum())


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
