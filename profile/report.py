"""The report of an encoder profile, as JSON that cards read, and the parts of all reports."""

import contextlib
import statistics
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from splitrun.errors import ReportError
from splitrun.files import new_file
from splitrun.image_files import Unread, UnreadCount, count_unread
from splitrun.sizes import format_size

from ..documents import read_document
from ..zoo.spec import ModelSpec

SCHEMA_VERSION = 4
_MAX_REPORT_BYTES = 1 << 28

Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Part(BaseModel):
    """Part of a report; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


class Size(Part):
    """What the device holds.

    Attributes:
        parameters: Learned parameters on the device.
        encoder_bits: Eq. 1 of the SC2 paper: bits of these parameters.
        sc2bench_encoder_bits: Bits as sc2bench's code counts them, with buffers and the entropy
            bottleneck; None for bundles with context coding, which sc2bench lacks.
        graph_bytes: Bytes of the device graph's files; None for a model in PyTorch.
        tables_bytes: Bytes of the entropy tables' file; None for a model in PyTorch.
    """

    parameters: Count
    encoder_bits: Count
    sc2bench_encoder_bits: Count | None
    graph_bytes: Count | None
    tables_bytes: Count | None


class OperatorCount(Part):
    """Operations of one kind of operator."""

    operator: str
    macs: Count
    flops: Count


class Compute(Part):
    """Operations of one half on one image; one MAC is 2 FLOPs, whatever the operator.

    Attributes:
        input_shape: Shape of the model's input.
        macs: Multiply-accumulates: at least so many, where the count is not complete.
        flops: Floating point operations, likewise.
        complete: Whether every operator was counted.
        operators: Operations by operator, most FLOPs first.
        uncounted: Calls of each operator that was not counted.
    """

    input_shape: tuple[Count, ...]
    macs: Count
    flops: Count
    complete: bool
    operators: list[OperatorCount]
    uncounted: dict[str, Count]

    @model_validator(mode="after")
    def _is_as_complete_as_it_says(self) -> Self:
        if self.complete == bool(self.uncounted):
            raise ValueError("a count is complete where no operator is left uncounted")
        return self

    def said(self, what: Literal["macs", "flops"] = "macs") -> str:
        """Return a total in words, which never looks complete where it is not."""
        return f"{'' if self.complete else 'at least '}{getattr(self, what):,}"

    def left_out(self) -> str:
        """Return the operators that were not counted, in words; empty where all were."""
        return ", ".join(f"{name} ×{count}" for name, count in self.uncounted.items())


class ImageRate(Part):
    """Bytes of one image.

    Attributes:
        image: Name of the image file.
        payload_bytes: Bytes that the entropy coder wrote.
        stream_bytes: Bytes that are sent: the payload in its frame.
        estimated_bits: −log2 of the learned likelihoods or, for a calibrated model, of the
            probabilities in its tables (escaped magnitudes not counted); in PyTorch only.
        sc2bench_bytes: Size that sc2bench reports: of a pickle around the payload, or of an image
            codec's file; in PyTorch only, for kinds of bottleneck that sc2bench sends in the same
            form, and not for calibrated models.
    """

    image: str
    payload_bytes: Count
    stream_bytes: Count
    estimated_bits: Quantity | None = None
    sc2bench_bytes: Count | None = None


class Distribution(Part):
    """Distribution of a quantity over images; the 90th percentile is nearest-rank."""

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

    def said(self) -> str:
        """Return mean, median and 90th percentile in words."""
        return f"mean {self.mean:,.0f}, median {self.median:,.0f}, p90 {self.p90:,.0f}"


class SkippedImage(Part):
    """A file that could not be used."""

    image: str
    reason: str


def skipped_parts(files: Sequence[Unread]) -> dict[str, Any]:
    """Return the fields of a report that say what was not used."""
    skipped = [SkippedImage(image=file.name, reason=file.reason) for file in files]
    return {"skipped": skipped, "skipped_counts": tuple(count_unread(files))}


def skipped_rows(
    skipped: Sequence[SkippedImage], counts: Sequence[UnreadCount]
) -> list[tuple[str, str]]:
    """Return rows of a summary: what was not used, counted, and the first by name."""
    said = [str(count) for count in counts]
    said += [f"{file.image}: {file.reason}" for file in skipped[:8]]
    said += [f"and {len(skipped) - 8} more"] * (len(skipped) > 8)
    return [("" if number else "skipped", text) for number, text in enumerate(said)]


class Rate(Part):
    """Bytes per image over a set of images."""

    count: Count
    payload_bytes: Distribution
    stream_bytes: Distribution
    estimated_bits: Distribution | None
    estimated_by: Literal["learned density", "calibrated tables"] = "learned density"
    sc2bench_bytes: Distribution | None
    images: list[ImageRate]
    skipped: list[SkippedImage]
    skipped_counts: tuple[UnreadCount, ...] = ()


class StepLatency(Part):
    """Percentiles of one step's latency, milliseconds."""

    p50_ms: Quantity
    p90_ms: Quantity
    p99_ms: Quantity
    mean_ms: Quantity


class LatencyReport(Part):
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


class Report(Part):
    """A document of measurements."""

    @abstractmethod
    def summary(self) -> list[tuple[str, str]]:
        """Return what was measured as names and values; a name is empty where a row goes on."""

    def __str__(self) -> str:
        rows = self.summary()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the report as JSON, whole or not at all; a file that exists, with ``force`` alone.

        Raises:
            OutputError: The file exists or cannot be written.
        """
        with new_file(path, force=force) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


class EncoderProfile(Report):
    """Everything that ``splitzoo profile encoder`` measures.

    Attributes:
        compute: Operations of the device.
        edge_compute: Operations of the edge, which are counted only: nothing of it is timed.
    """

    schema_version: Literal[4] = SCHEMA_VERSION
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
    edge_compute: Compute
    latency: LatencyReport
    peak_memory_bytes: Count
    peak_memory_of: str
    rate: Rate | None
    not_measured: list[str]
    environment: dict[str, str]
    date: str
    command: str

    def summary(self) -> list[tuple[str, str]]:
        """Return what was measured as names and values; a name is empty where a row goes on."""
        size, compute, rate, env = self.size, self.compute, self.rate, self.environment
        rows = [
            ("model", self.spec.name),
            ("runtime", f"{self.runtime}, {self.device}"),
            ("weights", self.weights if self.seed is None else f"random, seed {self.seed}"),
            ("parameters", f"{size.parameters:,}"),
            ("encoder size", f"{size.encoder_bits:,} bits (Eq. 1: its parameters)"),
        ]
        if size.sc2bench_encoder_bits is not None:
            rows.append(("", f"{size.sc2bench_encoder_bits:,} bits as sc2bench counts"))
        if size.graph_bytes is not None and size.tables_bytes is not None:
            parts = f"graph {size.graph_bytes:,}, tables {size.tables_bytes:,}"
            rows.append(("", f"{size.graph_bytes + size.tables_bytes:,} bytes deployed ({parts})"))
        rows += [
            *_operations("operations", compute),
            *_operations("… on the edge", self.edge_compute),
            ("latency", f"{self.latency.steps['total'].p50_ms:.3f} ms (median)"),
            ("peak memory", f"{format_size(self.peak_memory_bytes)}, {self.peak_memory_of}"),
        ]
        if rate:
            stream = f"stream {rate.stream_bytes.said()}, payload {rate.payload_bytes.mean:,.0f}"
            rows.append((f"bytes, {rate.count} images", stream))
            if rate.estimated_bits:
                estimate = f"{rate.estimated_bits.mean / 8:,.0f} by its {rate.estimated_by}"
                rows.append(("", estimate))
            if rate.sc2bench_bytes:
                rows.append(("", f"{rate.sc2bench_bytes.mean:,.0f} as sc2bench counts"))
            rows += skipped_rows(rate.skipped, rate.skipped_counts)
        rows += [("not measured", what) for what in self.not_measured]
        rows.append(("machine", f"{env['cpu']} ({env['instructions']}), {env['cores']} cores"))
        return rows


def parts_of(runtime: str) -> tuple[str, str]:
    """Return the engine and the device half's precision that a report's runtime names."""
    device, _, _ = runtime.partition(", edge ")
    engine, _, precision = device.rpartition(", ")
    known = ("fp32", "fp16", "bf16", "int8")
    return (engine, precision) if precision in known else (device, "fp32")


def _operations(name: str, compute: Compute) -> list[tuple[str, str]]:
    rows = [(name, f"{compute.said()} MACs, {compute.said('flops')} FLOPs per image")]
    return rows if compute.complete else [*rows, ("", f"not counted: {compute.left_out()}")]


def check_writable(path: Path, *, force: bool = False) -> None:
    """Raise ``OutputError`` if no file of that name can be written.

    Long work calls it before it starts.
    """
    with contextlib.suppress(EOFError), new_file(path, force=force):
        raise EOFError  # ends the trial: nothing is written


def read_report(path: Path) -> EncoderProfile:
    """Read a report that ``splitzoo profile encoder -o`` wrote.

    Raises:
        ReportError: The file is missing, damaged, or of another schema version.
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
