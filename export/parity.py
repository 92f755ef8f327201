"""Compare exported graphs with PyTorch before anybody gets to use them."""

from collections.abc import Iterable
from importlib.metadata import version

import numpy as np

from splitrun.bundle import Bundle
from splitrun.comparison import check_outputs
from splitrun.errors import ParityError
from splitrun.halves import Device, Edge
from splitrun.manifest import EnginePair, Parity
from splitrun.record import Arrays, Record
from splitrun.selftest import (
    DeviceTest,
    check_device,
    check_device_half,
    check_edge_half,
    check_halves,
)


def check_parity(bundle: Bundle, records: Iterable[Record], *, dynamic_batch: bool) -> Parity:
    """Compare a bundle's halves with PyTorch's records.

    Where the device's engine is not for every machine, another runs its graph.

    Raises:
        ParityError: Symbols or outputs differ beyond the bundle's limits, a stream does not give
            back its symbols, the edge cannot read what the device writes, or the output
            does not change with the image.
        BundleError: No prediction can be made of the outputs.
    """
    device, edge = Device(bundle, stand_in=True), Edge(bundle, stand_in=True)
    checked: list[Record] = []
    sent: list[DeviceTest] = []
    worst = 0.0
    for record in records:
        result, found = check_device_half(bundle, device, record.device)
        received = check_edge_half(bundle, edge, record.edge)
        check_halves(device, edge, found)
        worst = max(worst, received.output_relative_error)
        sent.append(result)
        checked.append(record)
    _check_varies(checked)
    if dynamic_batch:
        _check_batch(bundle, device, edge, checked)
    # Records are streams of PyTorch's symbols.
    writers = (f"torch {version('torch').partition('+')[0]}", device.graph.engine)
    return Parity(
        images=len(checked),
        symbols=sum(one.symbols for one in sent),
        symbols_differing=sum(one.symbols_differing for one in sent),
        symbols_tied=sum(one.symbols_tied for one in sent),
        largest_difference=max(one.largest_difference for one in sent),
        output_max_relative_error=worst,
        limits=bundle.limits,
        streams_decoded=True,
        pairs=tuple(EnginePair(writer, edge.graph.engine) for writer in writers),
    )


def _check_varies(records: list[Record]) -> None:
    def vary(arrays: list[Arrays]) -> bool:
        first, *others = arrays
        return any(np.any(other[name] != first[name]) for other in others for name in first)

    if not vary([record.device.wire for record in records]):
        raise ParityError("The device graph gives the same symbols for different images.")
    if not vary([record.edge.outputs for record in records]):
        raise ParityError("The edge graph gives the same output for different symbols.")


def _check_batch(bundle: Bundle, device: Device, edge: Edge, records: list[Record]) -> None:
    def joined(parts: list[Arrays]) -> Arrays:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    found = device.wire_tensors(np.concatenate([record.device.image for record in records]))
    for number, record in enumerate(records):
        tensors = tuple(tensor[number : number + 1] for tensor in found)
        check_device(bundle, tensors, record.device)
    inputs = list(joined([record.edge.inputs for record in records]).values())
    outputs = joined([record.edge.outputs for record in records])
    check_outputs(edge.graph(inputs), outputs, bundle.limits.output_tolerance)
