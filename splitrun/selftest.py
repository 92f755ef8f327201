"""Check that this machine computes what the exporting machine recorded."""

from dataclasses import dataclass

import numpy as np

from .bundle import Bundle
from .comparison import (
    Comparison,
    check_floats,
    check_lossy,
    check_outputs,
    check_wire,
    not_comparable,
)
from .errors import BitstreamError, DesyncError, ParityError
from .halves import Device, Edge, Tensors
from .record import Record


@dataclass(frozen=True)
class SelfTest:
    """Result of a self-test.

    Attributes:
        symbols: Integers compared, over all wire tensors.
        symbols_differing: Those that differ; in fp32, all of them at ties, by 1.
        symbols_tied: Those at ties.
        largest_difference: Largest difference of a symbol.
        output_relative_error: Largest |difference| over largest |output|.
        output_tolerance: Largest error allowed.
        stream_bytes: Size of the recorded stream.
        stream_rewritten: This machine wrote the same stream, byte for byte; image codecs of other
            versions need not.
        device: Engine that ran the device graph, with its version.
        edge: Engine that ran the edge graph, with its version.
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
        bundle: Bundle from :func:`open_bundle`.
        threads: Number of threads for the engines; 0 lets them choose.
        stand_in: Let another engine run the graphs of one that is not here, where one can.

    Raises:
        ParityError: A symbol, the stream or the output differs by more than it may.
        BundleError: The record or a graph cannot be read.
    """
    device = Device(bundle, threads, stand_in=stand_in)
    edge = Edge(bundle, threads, stand_in=stand_in)
    record = Record.load(bundle)
    counted, error, rewritten = check_record(bundle, device, edge, record)
    return SelfTest(
        symbols=counted.symbols,
        symbols_differing=counted.differing,
        symbols_tied=counted.tied,
        largest_difference=counted.largest,
        output_relative_error=error,
        output_tolerance=bundle.limits.output_tolerance,
        stream_bytes=len(record.stream),
        stream_rewritten=rewritten,
        device=device.graph.engine,
        edge=edge.graph.engine,
    )


def check_record(
    bundle: Bundle, device: Device, edge: Edge, record: Record
) -> tuple[Comparison, float, bool]:
    """Run both halves on a record's input and compare every step with the record.

    Returns:
        The wire tensors' integers, counted; the largest relative error of the outputs; and whether
        this machine wrote the recorded stream, byte for byte.

    Raises:
        ParityError: A step differs by more than the bundle's limits.
        BundleError: No prediction can be made of the outputs.
    """
    found, tolerance = device.wire_tensors(record.image), bundle.limits.output_tolerance
    counted = check_device(bundle, found, record)
    wire = [tensor[0] for tensor in record.wire.values()]
    rewritten = device.codec.compress(*wire) == record.stream
    if device.codec.coder.lossless and not rewritten:
        raise ParityError("The entropy coder wrote another stream than the recorded one.")
    _check_edge_inputs(edge, record, tolerance)
    error = check_outputs(edge.graph(list(record.edge_inputs.values())), record.outputs, tolerance)
    if record.boxes_inputs:
        boxes = edge.boxes(record.all_boxes_inputs())
        error = max(error, check_outputs(boxes, record.boxes_outputs, tolerance))
    check_halves(device, edge, found)
    edge.prediction(list(record.outputs.values()))  # labels and settings fit the outputs
    return counted, error, rewritten


def check_device(bundle: Bundle, found: Tensors, record: Record) -> Comparison:
    """Compare what the device graph gave with the record, and count the integers.

    Raises:
        ParityError: An integer or a float differs by more than the bundle's limits.
    """
    left_out = not_comparable(bundle.precision, bundle.graphs.get("hyper"), found, record.wire)
    return check_wire(found, record.wire, record.ties, bundle.limits, left_out)


def check_halves(device: Device, edge: Edge, wire: Tensors) -> None:
    """See that the edge here reads what the device here writes, as it will from now on.

    The recorded stream was made of PyTorch's symbols and scale indexes, not of this machine's.

    Raises:
        ParityError: It does not, or reads other integers.
    """
    tensors = [tensor[0] for tensor in wire]
    try:
        inputs = edge.decompress(device.compress(*tensors))
    except BitstreamError as error:
        raise ParityError(
            f"The edge half here cannot read what the device half here writes: {error.message}",
            next_step=error.next_step,
        ) from error
    if not device.codec.coder.lossless:
        return
    kept = device.codec.coder.decoded(*tensors)
    expected = {
        info.name: value for info, value in zip(device.graph.info.outputs, kept, strict=True)
    }
    for info, tensor in zip(edge.graph.info.inputs, inputs, strict=True):
        if info.name in expected and not np.array_equal(tensor[0], expected[info.name]):
            raise ParityError(f"The edge half here reads other {info.name} than were written.")


def _check_edge_inputs(edge: Edge, record: Record, tolerance: float) -> None:
    """See that the recorded stream decodes to the recorded inputs of the edge graph."""
    try:
        inputs = edge.decompress(record.stream)
    except DesyncError as error:
        raise ParityError(
            "The hyper graph on this machine gives other scale indexes than PyTorch's did: "
            f"the recorded stream cannot be read. {error.message}",
            next_step=error.next_step,
        ) from error
    for tensor, (name, expected) in zip(inputs, record.edge_inputs.items(), strict=True):
        if not edge.codec.coder.lossless:
            check_lossy(tensor, expected, name)
        elif expected.dtype.kind == "f":
            check_floats(tensor, expected, tolerance, f"The received {name}")
        elif not np.array_equal(tensor, expected):
            raise ParityError(
                f"The recorded stream decodes to other {name} than the recorded ones."
            )
