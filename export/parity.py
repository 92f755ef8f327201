"""Compare exported graphs with PyTorch before anybody gets to use them."""

from collections.abc import Iterable
from importlib.metadata import version

import numpy as np

from splitrun.bundle import Bundle
from splitrun.comparison import Comparison, check_outputs
from splitrun.errors import ParityError
from splitrun.halves import Device, Edge
from splitrun.manifest import EnginePair, Parity
from splitrun.record import Arrays, Record
from splitrun.selftest import check_device, check_record


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
    counted, worst = Comparison(), 0.0
    for record in records:
        more, error, _ = check_record(bundle, device, edge, record)
        counted, worst = counted + more, max(worst, error)
        checked.append(record)
    _check_varies(checked)
    if dynamic_batch:
        _check_batch(bundle, device, edge, checked)
    # Records are streams of PyTorch's symbols.
    writers = (f"torch {version('torch').partition('+')[0]}", device.graph.engine)
    return Parity(
        images=len(checked),
        symbols=counted.symbols,
        symbols_differing=counted.differing,
        symbols_tied=counted.tied,
        largest_difference=counted.largest,
        output_max_relative_error=worst,
        limits=bundle.limits,
        streams_decoded=True,
        pairs=tuple(EnginePair(writer, edge.graph.engine) for writer in writers),
    )


def _check_varies(records: list[Record]) -> None:
    def vary(group: str) -> bool:
        first, *others = (getattr(record, group) for record in records)
        return any(np.any(other[name] != first[name]) for other in others for name in first)

    if not vary("wire"):
        raise ParityError("The device graph gives the same symbols for different images.")
    if not vary("outputs"):
        raise ParityError("The edge graph gives the same output for different symbols.")


def _check_batch(bundle: Bundle, device: Device, edge: Edge, records: list[Record]) -> None:
    def joined(group: str) -> Arrays:
        parts = [getattr(record, group) for record in records]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    found = device.wire_tensors(np.concatenate([record.image for record in records]))
    for number, record in enumerate(records):
        check_device(bundle, tuple(tensor[number : number + 1] for tensor in found), record)
    inputs = list(joined("edge_inputs").values())
    check_outputs(edge.graph(inputs), joined("outputs"), bundle.limits.output_tolerance)
