"""What a precision below fp32 changes: symbols, bytes and answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DatasetError, ImageError, ParityError
from ..signals import check_stopped
from ..zoo.calibration.photographs import choose, parted, refuse_few
from ..zoo.datasets import read_dataset
from ..zoo.labels import labels_of
from ..zoo.preprocessing import Preprocessing
from ..zoo.split_model import SplitModel
from .manifest import Effect
from .recording import picture
from .runtime.bundle import Bundle
from .runtime.halves import Device, Edge, Tensors
from .runtime.limits import Limits
from .runtime.selftest import Compared, compare_symbols, incomparable

MOST_INFLATION = {"fp16": 0.01, "bf16": 0.05, "int8": 0.05}
"""Share by which the payload may change: a graph that loses its signal sends less."""

MOST_POINTS = 0.5
"""Of top-1 that may be lost, beside one photograph: a hundred of them tell no more."""

_MADE = 16
"""Pictures that are made where no photographs are given."""


@dataclass(frozen=True)
class Photographs:
    """A folder of photographs, parted.

    Attributes:
        fitted: To be calibrated with.
        held_out: To be compared on.
        classes: Index of the class of the model, of those that lie in a folder of its name.
        skipped: Pictures that could not be read.
    """

    fitted: list[Path]
    held_out: list[Path]
    classes: dict[Path, int]
    skipped: int


def read_photographs(model: SplitModel, folder: Path) -> Photographs:
    """Find the photographs of a folder that can be read, and part them.

    Raises:
        CalibrationError: There are fewer than 8.
        ImageError: The folder does not exist, or holds no image.
    """
    chosen, usable = choose(folder), []
    for path in chosen:
        check_stopped()
        try:
            model.spec.preprocessing.load(path)
        except ImageError:
            continue
        usable.append(path)
    refuse_few(folder, len(chosen), len(usable))
    fitted, held_out = parted(usable)
    return Photographs(fitted, held_out, _classes(model, folder), len(chosen) - len(usable))


def _classes(model: SplitModel, folder: Path) -> dict[Path, int]:
    if model.spec.task != "image-classification":
        return {}
    try:
        dataset = read_dataset(model.spec.task, folder, "train", labels_of(model.spec))
    except DatasetError:
        return {}  # photographs without labels calibrate as well
    return {one.path: one.target for one in dataset.samples if isinstance(one.target, int)}


def measure_effect(
    model: SplitModel, bundle: Bundle, photographs: Photographs | None, kept: list[str]
) -> Effect:
    """Compare the device half of a bundle with the model in fp32.

    Args:
        model: In evaluation mode.
        bundle: Of it, with a device graph of a lower precision.
        photographs: Those held out are compared; None compares made pictures.
        kept: Names of the parts left in fp32.
    """
    device, edge = Device(bundle, stand_in=True), Edge(bundle, stand_in=True)
    compared, most = Compared(), 0.0
    payloads: list[tuple[int, int]] = []
    right: list[tuple[bool, bool]] = []
    for image, label in _pictures(model.spec.preprocessing, photographs):
        check_stopped()
        exact = model.wire_tensors(torch.from_numpy(image))
        found = device.tensors(image)
        here = _compared(bundle, found, dict(zip(model.coder.sends, exact, strict=True)))
        compared, most = compared + here, max(most, here.changed)
        streams = [device.codec.compress(*(one[0] for one in sent)) for sent in (exact, found)]
        before, after = (len(device.codec.unframe(stream)[0]) for stream in streams)
        payloads.append((before, after))
        if label is not None:
            before, after = (int(edge.decode(one)[0].argmax()) == label for one in streams)
            right.append((before, after))
    sums = np.sum(right, axis=0) if right else (None, None)
    means = np.mean(payloads, axis=0)
    return Effect(
        calibrated=len(photographs.fitted) if photographs else 0,
        skipped=photographs.skipped if photographs else 0,
        held_out=len(payloads),
        photographs=photographs is not None,
        flips=compared.differing / max(compared.symbols, 1),
        changed=compared.changed,
        most_changed=most,
        largest_difference=compared.largest,
        payload_bytes_fp32=float(means[0]),
        payload_bytes=float(means[1]),
        labelled=len(right),
        right_fp32=None if sums[0] is None else int(sums[0]),
        right=None if sums[1] is None else int(sums[1]),
        kept_fp32=kept,
    )


def _compared(bundle: Bundle, found: Tensors, exact: Mapping[str, NDArray[Any]]) -> Compared:
    """Count the integers of one picture that differ, of those that can be compared."""
    anything, left_out = Limits(changed=1, difference=1 << 40), incomparable(bundle, found, exact)
    counted = Compared()
    for (name, before), after in zip(exact.items(), found, strict=True):
        if before.dtype.kind in "iu" and name not in left_out:
            ties = np.zeros(before.shape, bool)
            counted += compare_symbols(after, before, ties, anything, name)
    return counted


def _pictures(
    preprocessing: Preprocessing, photographs: Photographs | None
) -> Iterable[tuple[NDArray[np.float32], int | None]]:
    if photographs is None:
        yield from ((picture(preprocessing, number), None) for number in range(_MADE))
    else:
        for path in photographs.held_out:
            yield preprocessing.load(path), photographs.classes.get(path)


def beyond(effect: Effect, limits: Limits, precision: str) -> list[str]:
    """Return what is beyond the limits, in words."""
    found, most = [], MOST_INFLATION[precision]
    if effect.changed > limits.changed:
        found.append(
            f"of the symbols that are not 0, {effect.changed:.2%} differ ({limits.changed:.0%} may)"
        )
    if effect.largest_difference > limits.difference:
        found.append(
            f"a symbol differs by {effect.largest_difference} ({limits.difference} is allowed)"
        )
    if abs(effect.rate_inflation) > most:
        found.append(f"the payload changes by {effect.rate_inflation:+.1%} ({most:.0%} is allowed)")
    if effect.right is not None and effect.right_fp32 is not None:
        lost = effect.right_fp32 - effect.right
        if lost > 1 + MOST_POINTS / 100 * effect.labelled:
            found.append(
                f"{lost} of {effect.labelled} photographs are no longer named right "
                f"({MOST_POINTS} points and one photograph are allowed)"
            )
    return found


def refuse_beyond(effect: Effect, limits: Limits, precision: str) -> None:
    """Refuse an effect that is beyond the limits.

    Raises:
        ParityError: It is, with all that is.
    """
    if found := beyond(effect, limits, precision):
        raise ParityError(
            f"In {precision}, {'; '.join(found)}.",
            next_step="Keep more in fp32 (--keep-fp32 last --keep-fp32 gdn), give other "
            "photographs, or take it as it is with --accept.",
        )
