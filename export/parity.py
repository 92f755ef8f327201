"""Hold exported graphs against PyTorch before anybody gets to use them."""

from collections.abc import Iterable
from dataclasses import asdict
from importlib.metadata import version

import numpy as np

from splitrun.bundle import Bundle
from splitrun.errors import ParityError
from splitrun.halves import Device, Edge
from splitrun.record import Named, Record
from splitrun.selftest import (
    Compared,
    check_answer,
    check_halves,
    compare_edge,
    compare_outputs,
    compare_received,
    compare_sent,
)

from .manifest import Allowed, Pair, Parity


def check_parity(bundle: Bundle, records: Iterable[Record], *, dynamic_batch: bool) -> Parity:
    """Compare a bundle's halves with PyTorch's records.

    Where the device's engine is not for every machine, another runs its graph.

    Raises:
        ParityError: Symbols or outputs differ beyond the bundle's limits, a stream does not give
            back its symbols, the edge cannot read what the device writes, or the output
            does not change with the image.
        BundleError: No answer can be made of the outputs.
    """
    device, edge = Device(bundle, stand_in=True), Edge(bundle, stand_in=True)
    checked: list[Record] = []
    compared, worst = Compared(), 0.0
    tolerance = bundle.limits.output_tolerance
    for record in records:
        sent = device.tensors(record.image)
        compared += compare_sent(bundle, sent, record)
        compare_received(edge, record, tolerance)
        worst = max(worst, compare_edge(edge, record, tolerance))
        check_halves(device, edge, sent)
        check_answer(bundle, edge, record)
        checked.append(record)
    _check_varies(checked)
    if dynamic_batch:
        _check_batch(bundle, device, edge, checked)
    edge_engine = edge.graph.session.version
    return Parity(
        images=len(checked),
        symbols=compared.symbols,
        symbols_differing=compared.differing,
        symbols_tied=compared.tied,
        largest_difference=compared.largest,
        output_max_relative_error=worst,
        limits=Allowed(**asdict(bundle.limits)),
        streams_decoded=True,
        # Records are streams of PyTorch's symbols.
        pairs=[
            Pair(device=f"torch {version('torch').partition('+')[0]}", edge=edge_engine),
            Pair(device=device.graph.session.version, edge=edge_engine),
        ],
    )


def _check_varies(records: list[Record]) -> None:
    def vary(group: str) -> bool:
        first, *others = (getattr(record, group) for record in records)
        return any(np.any(other[name] != first[name]) for other in others for name in first)

    if not vary("sent"):
        raise ParityError("The device graph gives the same symbols for different images.")
    if not vary("outputs"):
        raise ParityError("The edge graph gives the same output for different symbols.")


def _check_batch(bundle: Bundle, device: Device, edge: Edge, records: list[Record]) -> None:
    def joined(group: str) -> Named:
        parts = [getattr(record, group) for record in records]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    found = device.tensors(np.concatenate([record.image for record in records]))
    for number, record in enumerate(records):
        compare_sent(bundle, tuple(one[number : number + 1] for one in found), record)
    compare_outputs(
        edge.output(list(joined("received").values())),
        joined("outputs"),
        bundle.limits.output_tolerance,
    )
