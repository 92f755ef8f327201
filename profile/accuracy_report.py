"""The document that an evaluation is: accuracy, bytes and encoder size of one model."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from splitrun.errors import DependencyError, OutputError, ReportError
from splitrun.files import new_file

from ..documents import read_document
from ..zoo.metrics import METRICS, NAMES, ClassResult, Result
from ..zoo.spec import ModelSpec
from .report import (
    Count,
    Distribution,
    ImageRate,
    Quantity,
    Report,
    SkippedImage,
    check_writable,
)

SCHEMA_VERSION = 1
TABLES = (".csv", ".parquet")
"""Endings of files of per-image results."""
_MAX_REPORT_BYTES = 1 << 26


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class DataFacts(_Part):
    """What was evaluated on.

    Attributes:
        folder: Its name, without the folders above it.
        images: That were used.
        sha256: Of the images' names and sizes.
    """

    folder: str
    images: Count
    classes: Count
    sha256: str


class EncoderFacts(_Part):
    """What the device holds: Eq. 1 of the SC2 paper, and as sc2bench counts."""

    parameters: Count
    encoder_bits: Count
    sc2bench_encoder_bits: Count | None


class ImageResult(_Part):
    """What is known of one image: its bytes, and what is scored."""

    rate: ImageRate
    result: Result


class AccuracyReport(Report):
    """Everything that ``splitzoo profile accuracy`` measures.

    Attributes:
        scores: By metric, shares in [0, 1], through the real bitstream.
        bits_per_pixel: Of the stream, per pixel of the model's input.
        calibrated: The coding that calibration kept; empty for tables as they were trained.
    """

    schema_version: Count = SCHEMA_VERSION
    spec: ModelSpec
    subject: Literal["model", "bundle", "predictions"]
    runtime: str
    source: str
    weights: Literal["random", "trained"]
    seed: int | None
    model_id: str
    data: DataFacts
    scores: dict[str, Quantity]
    payload_bytes: Distribution
    stream_bytes: Distribution
    bits_per_pixel: Distribution
    estimated_bits: Distribution | None
    sc2bench_bytes: Distribution | None
    encoder: EncoderFacts
    calibrated: str = ""
    skipped: list[SkippedImage]
    not_measured: list[str]
    environment: dict[str, str]
    date: str
    command: str

    @property
    def metric(self) -> str:
        """The main metric of the model's task."""
        return METRICS[self.spec.task][0]

    @property
    def score(self) -> float:
        """The main metric, a share in [0, 1]."""
        return self.scores[self.metric]

    @property
    def metric_name(self) -> str:
        """The main metric as people call it."""
        return NAMES[self.metric]


def read_accuracy(path: Path) -> AccuracyReport:
    """Read a report that ``splitzoo profile accuracy -o`` wrote.

    Raises:
        ReportError: It is missing, damaged, or of a newer schema.
    """
    report = read_document(
        AccuracyReport,
        path,
        what="accuracy report",
        version_field="schema_version",
        supported=SCHEMA_VERSION,
        limit_bytes=_MAX_REPORT_BYTES,
        error=ReportError,
        next_step="Make one with: splitzoo profile accuracy --data DIR -o result.json",
    )
    if report.metric not in report.scores:
        raise ReportError(f"{path} has no {report.metric_name}.")
    return report


def save_images(images: Sequence[ImageResult], path: Path) -> None:
    """Write one line per image as CSV or Parquet, by the name's ending.

    Columns: image, payload_bytes, stream_bytes, estimated_bits, sc2bench_bytes; for classifiers
    answer, label and right; else result, as JSON.

    Raises:
        OutputError: It cannot be written.
        DependencyError: Parquet needs pyarrow.
    """
    rows = [_row(one) for one in images]
    if path.suffix == ".csv":
        with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return
    require_parquet()
    import pyarrow
    import pyarrow.parquet

    with new_file(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), temporary)


def require_parquet() -> None:
    """Raise ``DependencyError`` where no Parquet can be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            "Parquet is written by pyarrow, which is not installed.",
            next_step="pip install 'splitzoo[train]', or name a .csv file.",
        ) from error


def check_table(path: Path) -> None:
    """Refuse a name for per-image results that cannot be written.

    Raises:
        OutputError: It ends in neither .csv nor .parquet, or is a folder.
        DependencyError: Parquet needs pyarrow.
    """
    if path.suffix not in TABLES:
        raise OutputError(
            path,
            "its name ends neither in .json, for the report, nor in .csv or .parquet, for images",
        )
    if path.suffix == ".parquet":
        require_parquet()
    check_writable(path)


def _row(one: ImageResult) -> dict[str, Any]:
    row: dict[str, Any] = one.rate.model_dump()
    result = one.result
    if isinstance(result, ClassResult):
        return row | {"answer": result.answer[0], "label": result.label, "right": result.correct}
    return row | {"result": result.model_dump_json()}
