"""The document that a profile is: written as JSON, read by the cards."""

import contextlib
import statistics
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from splitrun.errors import OutputError, ReportError
from splitrun.files import new_file

from ..documents import read_document
from ..zoo.spec import ModelSpec

SCHEMA_VERSION = 2
_MAX_REPORT_BYTES = 1 << 28

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", from_attributes=True)


class Size(_Part):
    """What the device holds. Deployed bytes are of files, so a model in PyTorch has none.

    ``encoder_bits`` is Eq. 1 of the SC2 paper, over the encoder's parameters;
    ``sc2bench_encoder_bits`` what its code counts: buffers and the entropy bottleneck too; None for
    bundles with context coding, which it has not.
    """

    parameters: Count
    encoder_bits: Count
    sc2bench_encoder_bits: Count | None
    graph_bytes: Count | None
    tables_bytes: Count | None


class OperatorCount(_Part):
    """Operations of one kind of operator."""

    operator: str
    macs: Count
    flops: Count


class Compute(_Part):
    """Operations of one pass of the device graph."""

    input_shape: tuple[Count, ...]
    macs: Count
    flops: Count
    operators: list[OperatorCount]
    uncounted: dict[str, Count]


class ImageRate(_Part):
    """Bytes of one image.

    ``estimated_bits`` (−log2 of the learned likelihoods or, of a calibrated model, of the
    probabilities in its tables, escaped magnitudes not counted) and ``sc2bench_bytes`` (the size
    that sc2bench reports: of a pickle around the payload, or of an image codec's file) are for
    models in PyTorch alone, the second for the kinds of bottleneck that sc2bench counts in the same
    form, and not for calibrated models.
    """

    image: str
    payload_bytes: Count
    stream_bytes: Count
    estimated_bits: Quantity | None = None
    sc2bench_bytes: Count | None = None


class Distribution(_Part):
    """Of a quantity over images; the 90th percentile is nearest-rank."""

    mean: Quantity
    median: Quantity
    p90: Quantity
    smallest: Quantity
    largest: Quantity

    @classmethod
    def of(cls, values: list[float]) -> "Distribution":
        """Summarise at least one value."""
        ordered = sorted(values)
        return cls(
            mean=statistics.fmean(values),
            median=statistics.median(values),
            p90=ordered[max(-(-9 * len(ordered) // 10) - 1, 0)],
            smallest=ordered[0],
            largest=ordered[-1],
        )


class SkippedImage(_Part):
    """An image that could not be used."""

    image: str
    reason: str


class Rate(_Part):
    """Bytes per image over a set of images."""

    count: Count
    payload_bytes: Distribution
    stream_bytes: Distribution
    estimated_bits: Distribution | None
    estimated_by: Literal["learned density", "calibrated tables"] = "learned density"
    sc2bench_bytes: Distribution | None
    images: list[ImageRate]
    skipped: list[SkippedImage]


class StepLatency(_Part):
    """Percentiles of one step, milliseconds."""

    p50_ms: Quantity
    p90_ms: Quantity
    p99_ms: Quantity
    mean_ms: Quantity


class LatencyReport(_Part):
    """Latency of the device path on one image, per step and in total."""

    threads: Count
    warmup: Count
    iterations: Count
    steps: dict[str, StepLatency]

    @model_validator(mode="after")
    def _has_the_steps(self) -> Self:
        if not {"encoder", "entropy coding", "framing", "total"} <= self.steps.keys():
            raise ValueError("the device path has the steps encoder, entropy coding, framing")
        return self


class Report(_Part):
    """A document of measurements on disk."""

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all.

        Raises:
            OutputError: It cannot be written, or something else is there.
        """
        check_kind(path)
        with new_file(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


class EncoderProfile(Report):
    """Everything that ``splitzoo profile encoder`` measures."""

    schema_version: Count = SCHEMA_VERSION
    spec: ModelSpec
    subject: Literal["model", "bundle"]
    runtime: str
    device: str
    source: str
    weights: Literal["random", "trained"]
    seed: int | None
    model_id: str
    size: Size
    compute: Compute
    latency: LatencyReport
    peak_memory_bytes: Count
    peak_memory_of: str
    rate: Rate | None
    not_measured: list[str]
    environment: dict[str, str]
    date: str
    command: str


def check_kind(path: Path) -> None:
    """Raise ``OutputError`` if no report can be written there, or another file would be lost.

    Long work calls it before it starts.
    """
    if path.exists() and path.suffix != ".json":
        raise OutputError(
            path, "it exists and its name is not a report's", next_step="Name a .json file with -o."
        )
    check_writable(path)


def check_writable(path: Path) -> None:
    """Raise ``OutputError`` if no file of that name can be written."""
    with contextlib.suppress(_Probe), new_file(path):
        raise _Probe


class _Probe(Exception):
    """Ends a trial of writing."""


def read_report(path: Path) -> EncoderProfile:
    """Read a report that ``splitzoo profile encoder -o`` wrote.

    Raises:
        ReportError: It is missing, damaged, or of a newer schema.
    """
    return read_document(
        EncoderProfile,
        path,
        what="encoder profile",
        version_field="schema_version",
        supported=SCHEMA_VERSION,
        limit_bytes=_MAX_REPORT_BYTES,
        error=ReportError,
        next_step="Make one with: splitzoo profile encoder -o report.json",
    )
