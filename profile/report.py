"""The document that a profile is: written as JSON, read by the cards."""

import statistics
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ReportError
from ..files import new_file
from ..zoo.spec import ModelSpec

SCHEMA_VERSION = 1
_MAX_REPORT_BYTES = 1 << 28


class Size(BaseModel):
    """What the device holds. Deployed bytes are of files, so a model in PyTorch has none.

    ``encoder_bits`` is Eq. 1 of the SC2 paper, over the encoder's parameters;
    ``sc2bench_encoder_bits`` what its code counts: buffers and the entropy bottleneck too.
    """

    parameters: int
    encoder_bits: int
    sc2bench_encoder_bits: int
    graph_bytes: int | None
    tables_bytes: int | None


class OperatorCount(BaseModel):
    """Operations of one kind of operator."""

    operator: str
    macs: int
    flops: int


class Compute(BaseModel):
    """Operations of one pass of the device graph."""

    input_shape: tuple[int, ...]
    macs: int
    flops: int
    operators: list[OperatorCount]
    uncounted: dict[str, int]


class ImageRate(BaseModel):
    """Bytes of one image.

    ``estimated_bits`` (from the learned likelihoods) and ``sc2bench_bytes`` (the size that sc2bench
    reports: of a pickle around the payload) are for models in PyTorch alone.
    """

    image: str
    payload_bytes: int
    stream_bytes: int
    estimated_bits: float | None = None
    sc2bench_bytes: int | None = None


class Distribution(BaseModel):
    """Of a quantity over images; the 90th percentile is nearest-rank."""

    mean: float
    median: float
    p90: float
    smallest: float
    largest: float

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


class SkippedImage(BaseModel):
    """An image that could not be used."""

    image: str
    reason: str


class Rate(BaseModel):
    """Bytes per image over a set of images."""

    count: int
    payload_bytes: Distribution
    stream_bytes: Distribution
    estimated_bits: Distribution | None
    sc2bench_bytes: Distribution | None
    images: list[ImageRate]
    skipped: list[SkippedImage]


class StepLatency(BaseModel):
    """Percentiles of one step, milliseconds."""

    model_config = ConfigDict(from_attributes=True)

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float


class LatencyReport(BaseModel):
    """Latency of the device path on one image, per step and in total."""

    threads: int
    warmup: int
    iterations: int
    steps: dict[str, StepLatency]


class EncoderProfile(BaseModel):
    """Everything that ``splitzoo profile encoder`` measures."""

    schema_version: int = SCHEMA_VERSION
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
    peak_memory_bytes: int
    peak_memory_of: str
    rate: Rate | None
    not_measured: list[str]
    environment: dict[str, str]
    date: str
    command: str

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        with new_file(path) as temporary:
            temporary.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


class _Version(BaseModel):
    schema_version: int


def read_report(path: Path) -> EncoderProfile:
    """Read a report that ``splitzoo profile encoder -o`` wrote.

    Raises:
        ReportError: It is missing, damaged, or of a newer schema.
    """
    advice = "Make one with: splitzoo profile encoder -o report.json"
    try:
        if path.stat().st_size > _MAX_REPORT_BYTES:
            raise ReportError(f"{path} is larger than {_MAX_REPORT_BYTES >> 20} MiB.")
        text = path.read_text(encoding="utf-8")
        version = _Version.model_validate_json(text).schema_version
        if version > SCHEMA_VERSION:
            raise ReportError(
                f"{path} has schema {version}; this reads up to {SCHEMA_VERSION}.",
                next_step="pip install --upgrade splitzoo",
            )
        return EncoderProfile.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise ReportError(
            f"{path} is no encoder profile: {where}: {first['msg']}.", next_step=advice
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ReportError(f"Cannot read {path}: {reason.lower()}.", next_step=advice) from error
