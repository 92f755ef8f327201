"""What the encoders of the zoo cost the device: ``encoders.csv``. Imports no torch.

``python -m benchmarks.matrix zoo`` counts, and makes the page of the zoo of the same rows.
"""

import functools
from pathlib import Path

from .bottleneck_specs import NeuralCodecBottleneck, Part
from .csv_rows import MaybeText, Text, Whole, read_rows
from .models import find_spec, registered
from .spec import ModelSpec

FILE = Path(__file__).with_name("encoders.csv")


class EncoderRow(Part):
    """The device side of one model, which stands for those with the same.

    Attributes:
        model: Name of the model.
        parameters: Learned parameters on the device.
        encoder_bits: Encoder size, Eq. 1 of the SC2 paper.
        device_macs: Multiply-accumulates on the device, per image; at least so many, where some
            were not counted.
        uncounted: Operators that were not counted; empty where all were.
        parity: Comparison with the reference implementation, in words.
        versions: Versions of what counted and compared.
    """

    model: Text
    parameters: Whole
    encoder_bits: Whole
    device_macs: Whole
    uncounted: MaybeText
    parity: Text
    versions: Text


def encoder_of(spec: ModelSpec) -> str:
    """Return what models with encoders of one size have in common."""
    codec = spec.bottleneck
    sizes = codec.sizes if isinstance(codec, NeuralCodecBottleneck) else ""
    return f"{spec.backbone} {spec.cut} {codec.model_dump_json(exclude={'quality'})} {sizes}"


def first_of_encoders() -> list[str]:
    """Return the first registered model of those with encoders of one size, for each size."""
    firsts: dict[str, str] = {}
    for spec in registered():
        firsts.setdefault(encoder_of(spec), spec.name)
    return list(firsts.values())


@functools.cache
def encoder_rows() -> dict[str, EncoderRow]:
    """Return the rows that come with the package, by the name of their model."""
    return {row.model: row for row in read_rows(EncoderRow, FILE)}


@functools.cache
def _bits() -> dict[str, int]:
    return {encoder_of(find_spec(name)): row.encoder_bits for name, row in encoder_rows().items()}


def counted_bits(spec: ModelSpec) -> int | None:
    """Return the encoder bits that were counted of a model; None where they were not."""
    return _bits().get(encoder_of(spec))
