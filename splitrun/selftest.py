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
from .limits import EDGE_TOLERANCES
from .record import DeviceRecord, EdgeRecord


@dataclass(frozen=True)
class DeviceTest:
    """Result of the device half's self-test.

    Attributes:
        engine: Engine that ran the graph, with its version.
        symbols: Integers compared, over all wire tensors.
        symbols_differing: Those that differ; in fp32, all of them at ties, by 1.
        symbols_tied: Those at ties.
        largest_difference: Largest difference of a symbol.
        stream_bytes: Size of the recorded stream.
        stream_rewritten: This machine wrote the same stream, byte for byte; image codecs of other
            versions need not.
    """

    engine: str
    symbols: int
    symbols_differing: int
    symbols_tied: int
    largest_difference: int
    stream_bytes: int
    stream_rewritten: bool


@dataclass(frozen=True)
class EdgeTest:
    """Result of the self-test of the edge half with one tail, which read the recorded stream.

    Attributes:
        engine: Engine that ran the graph, with its version.
        stream_bytes: Size of the recorded stream.
        output_relative_error: Largest |difference| over largest |output|.
        output_tolerance: Largest error allowed.
    """

    engine: str
    stream_bytes: int
    output_relative_error: float
    output_tolerance: float


@dataclass(frozen=True)
class SelfTest:
    """Result of a self-test of the halves that are here.

    Where both are, the edge also read what the device wrote here.

    Attributes:
        device: Result of the device half; None where it is not here.
        edge: Results of the edge half by tail; empty where it is not here.
    """

    device: DeviceTest | None
    edge: dict[str, EdgeTest]

    def rows(self) -> list[tuple[str, str]]:
        """Return what people read: what was compared, and how it compares."""
        rows = []
        if device := self.device:
            equal = device.symbols - device.symbols_differing
            rows += [
                ("device half", f"run by {device.engine}"),
                ("symbols", f"{equal:,} of {device.symbols:,} equal to PyTorch's in fp32"),
            ]
            if device.symbols_differing:
                rows.append(("", f"the others differ by up to {device.largest_difference}"))
            exactly = " exactly" if device.stream_rewritten else " anew"
            rows.append(("written", f"{device.stream_bytes:,} bytes,{exactly}"))
        for name, edge in self.edge.items():
            within = f"within {edge.output_relative_error:.1e} of PyTorch's"
            rows += [
                ("edge half", f"{name}, run by {edge.engine}"),
                ("read", f"{edge.stream_bytes:,} bytes, as PyTorch does"),
                ("output", f"{within} ({edge.output_tolerance:.0e} allowed)"),
            ]
        return rows


def run_selftest(bundle: Bundle, threads: int = 0, *, stand_in: bool = False) -> SelfTest:
    """Run the halves that are here on what was recorded, and compare every step with the record.

    Args:
        bundle: Bundle from :func:`open_bundle`.
        threads: Number of threads for the engines; 0 lets them choose.
        stand_in: Let another engine run the graphs of one that is not here, where one can.

    Raises:
        ParityError: A symbol, the stream or the output differs by more than it may.
        BundleError: A record or a graph cannot be read, or no prediction can be made.
    """
    halves, tails = bundle.manifest.halves, bundle.manifest.edge.tails
    device = Device(bundle, threads, stand_in=stand_in) if "device" in halves else None
    edges = {
        name: Edge(bundle, threads, tail=name, stand_in=stand_in)
        for name in (tails if "edge" in halves else ())
    }
    tested, found = None, None
    if device:
        tested, found = check_device_half(bundle, device, DeviceRecord.load(bundle))
    result = SelfTest(
        tested,
        {
            name: check_edge_half(bundle, edge, EdgeRecord.load(bundle, name))
            for name, edge in edges.items()
        },
    )
    if device and found:
        for edge in edges.values():
            check_halves(device, edge, found)
    return result


def check_device_half(
    bundle: Bundle, device: Device, record: DeviceRecord
) -> tuple[DeviceTest, Tensors]:
    """Run the device half on a record's image and compare every step with the record.

    Returns:
        The result, and the wire tensors that the graph gave.

    Raises:
        ParityError: A step differs by more than the bundle's limits.
    """
    found = device.wire_tensors(record.image)
    counted = check_device(bundle, found, record)
    wire = [tensor[0] for tensor in record.wire.values()]
    rewritten = device.codec.compress(*wire) == record.stream
    if device.codec.coder.lossless and not rewritten:
        raise ParityError("The entropy coder wrote another stream than the recorded one.")
    result = DeviceTest(
        engine=device.graph.engine,
        symbols=counted.symbols,
        symbols_differing=counted.differing,
        symbols_tied=counted.tied,
        largest_difference=counted.largest,
        stream_bytes=len(record.stream),
        stream_rewritten=rewritten,
    )
    return result, found


def check_edge_half(bundle: Bundle, edge: Edge, record: EdgeRecord) -> EdgeTest:
    """Run the edge half on a record's stream and compare every step with the record.

    Raises:
        ParityError: A step differs by more than the bundle's limits.
        BundleError: No prediction can be made of the outputs.
    """
    tolerance = bundle.limits.output_tolerance
    check_edge_inputs(edge, record)
    error = check_outputs(edge.graph(list(record.inputs.values())), record.outputs, tolerance)
    if record.boxes_inputs:
        boxes = edge.boxes(record.all_boxes_inputs())
        error = max(error, check_outputs(boxes, record.boxes_outputs, tolerance))
    edge.prediction(list(record.outputs.values()))  # labels and settings fit the outputs
    return EdgeTest(edge.graph.engine, len(record.stream), error, tolerance)


def check_device(bundle: Bundle, found: Tensors, record: DeviceRecord) -> Comparison:
    """Compare what the device graph gave with the record, and count the integers.

    Raises:
        ParityError: An integer or a float differs by more than the bundle's limits.
    """
    left_out = not_comparable(bundle.precision, bundle.manifest.edge.hyper, found, record.wire)
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
    expected = {}
    for info, value in zip(device.graph.info.outputs, kept, strict=True):
        # What is rounded by the coder has another name on the edge.
        expected |= {info.name: value, f"{info.name}_hat": value}
    for info, tensor in zip(edge.graph.info.inputs, inputs, strict=True):
        if info.name in expected and not np.array_equal(tensor[0], expected[info.name]):
            raise ParityError(f"The edge half here reads other {info.name} than were written.")


def check_edge_inputs(edge: Edge, record: EdgeRecord) -> None:
    """See that the recorded stream decodes to the recorded inputs of the edge graph.

    Raises:
        ParityError: It does not.
    """
    try:
        inputs = edge.decompress(record.stream)
    except DesyncError as error:
        raise ParityError(
            "The hyper graph on this machine gives other scale indexes than PyTorch's did: "
            f"the recorded stream cannot be read. {error.message}",
            next_step=error.next_step,
        ) from error
    for tensor, (name, expected) in zip(inputs, record.inputs.items(), strict=True):
        if not edge.codec.coder.lossless:
            check_lossy(tensor, expected, name)
        elif expected.dtype.kind == "f" and edge.codec.coder.needs_hyper:
            # The hyper graph is in fp32, whatever the edge graph is in.
            exact = EDGE_TOLERANCES["fp32"]
            check_floats(tensor, expected, exact, f"The received {name}")
        elif not np.array_equal(tensor, expected):
            raise ParityError(
                f"The recorded stream decodes to other {name} than the recorded ones."
            )
