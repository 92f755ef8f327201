"""Hold exported graphs against PyTorch before anybody gets to use them."""

from collections.abc import Iterable

import numpy as np

from ..errors import ParityError
from .manifest import Parity
from .runtime.bundle import Bundle
from .runtime.halves import Device, Edge
from .runtime.record import Named, Record
from .runtime.selftest import (
    OUTPUT_TOLERANCE,
    TIE_MARGIN,
    check_answer,
    check_halves,
    compare_edge,
    compare_outputs,
    compare_received,
    compare_sent,
    compare_symbols,
)


def check_parity(bundle: Bundle, records: Iterable[Record], *, dynamic_batch: bool) -> Parity:
    """Compare a bundle's halves with PyTorch's records.

    Raises:
        ParityError: A symbol differs beyond a tie, an output beyond the tolerance, a stream does
            not give back its symbols, the edge cannot read what the device writes, or the output
            does not change with the picture.
        BundleError: No answer can be made of the outputs.
    """
    device, edge = Device(bundle), Edge(bundle)
    checked: list[Record] = []
    differing, worst = 0, 0.0
    for record in records:
        sent = device.tensors(record.image)
        differing += compare_sent(bundle, sent, record)
        compare_received(edge, record, OUTPUT_TOLERANCE)
        worst = max(worst, compare_edge(edge, record, OUTPUT_TOLERANCE))
        check_halves(device, edge, sent)
        check_answer(bundle, edge, record)
        checked.append(record)
    _refuse_constant(checked)
    if dynamic_batch:
        _check_batch(device, edge, checked)
    ties = [tied for record in checked for tied in record.ties.values()]
    return Parity(
        images=len(checked),
        symbols=sum(tied.size for tied in ties),
        symbols_differing=differing,
        symbols_tied=sum(int(tied.sum()) for tied in ties),
        tie_margin=TIE_MARGIN,
        output_max_relative_error=worst,
        output_tolerance=OUTPUT_TOLERANCE,
        streams_decoded=True,
    )


def _refuse_constant(records: list[Record]) -> None:
    def vary(group: str) -> bool:
        first, *others = (getattr(record, group) for record in records)
        return any(np.any(other[name] != first[name]) for other in others for name in first)

    if not vary("sent"):
        raise ParityError("The device graph gives the same symbols for different pictures.")
    if not vary("outputs"):
        raise ParityError("The edge graph gives the same output for different symbols.")


def _check_batch(device: Device, edge: Edge, records: list[Record]) -> None:
    def joined(group: str) -> Named:
        parts = [getattr(record, group) for record in records]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    sent, ties = joined("sent"), joined("ties")
    found = device.tensors(np.concatenate([record.image for record in records]))
    for (name, expected), tensor in zip(sent.items(), found, strict=True):
        if name in ties:
            compare_symbols(tensor, expected, ties[name], name)
    compare_outputs(
        edge.output(list(joined("received").values())), joined("outputs"), OUTPUT_TOLERANCE
    )
