"""What lists show of the models that this package knows. Imports no torch.

Accuracy and bytes are rows of ``results/*.csv``; encoder sizes, of models that nobody measured too,
those of ``encoders.csv``.
"""

from .bottleneck_specs import Part
from .encoder_rows import counted_bits
from .model_rows import rates_of, row_of
from .spec import ModelSpec


class MeasuredRate(Part):
    """A model at one of its rates.

    Attributes:
        set_by: What sets the rate, in words.
        score: Share in [0, 1] by the main metric.
        stream_bytes: Bytes per image, mean.
    """

    set_by: str
    score: float
    stream_bytes: float


class Measured(Part):
    """Accuracy and bytes of a model's own weights, through the real bitstream.

    Attributes:
        scores: Shares in [0, 1] by metric, the main one first.
        stream_bytes: Bytes per image, mean.
        images: Number of images.
        data: Name of their folder.
        command: Command that measured.
        rates: Each rate that was measured, by bytes, where the model has several.
    """

    scores: dict[str, float]
    stream_bytes: float
    images: int
    data: str
    command: str
    rates: list[MeasuredRate]


class Listed(Part):
    """A model as lists show it.

    Attributes:
        spec: Spec of the model.
        weights_at_hand: Whether its weights lie on this machine.
        encoder_bits: Encoder size; None where it was not counted.
        measured: Accuracy and bytes, where they were measured.
    """

    spec: ModelSpec
    weights_at_hand: bool
    encoder_bits: int | None
    measured: Measured | None

    @property
    def accuracy(self) -> str:
        """The main score as lists show it; empty where there is none."""
        return f"{next(iter(self.measured.scores.values())):.2%}" if self.measured else ""

    @property
    def stream_bytes(self) -> str:
        """The bytes per image as lists show them; empty where they were not measured."""
        return f"{self.measured.stream_bytes:,.0f}" if self.measured else ""

    @property
    def bits(self) -> str:
        """The encoder size as lists show it; empty where it was not counted."""
        return "" if self.encoder_bits is None else f"{self.encoder_bits:,}"


def measured_of(spec: ModelSpec) -> Measured | None:
    """Return accuracy and bytes of a model, where they were measured."""
    row, rates = row_of(spec), rates_of(spec)
    if row is None:
        return None
    return Measured(
        scores={row.metric: row.score} | ({} if row.top5 is None else {"top5": row.top5}),
        stream_bytes=row.stream_bytes,
        images=row.images,
        data=row.data,
        command=row.command,
        rates=[
            MeasuredRate(set_by=one.rate_set_by, score=one.score, stream_bytes=one.stream_bytes)
            for one in rates
            if len(rates) > 1
        ],
    )


def listed(spec: ModelSpec, *, weights_at_hand: bool) -> Listed:
    """Return a model as lists show it."""
    return Listed(
        spec=spec,
        weights_at_hand=weights_at_hand,
        encoder_bits=counted_bits(spec),
        measured=measured_of(spec),
    )
