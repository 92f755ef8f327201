"""The report of an evaluation: accuracy, bytes and encoder size of one model."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from splitrun.errors import OutputError, ReportError
from splitrun.files import new_file
from splitrun.image_files import UnreadCount

from ..documents import read_document
from ..zoo.metrics import METRICS, NAMES, ClassResult, Result
from ..zoo.spec import ModelSpec
from .paired import PairedScores
from .report import (
    Count,
    Distribution,
    ImageRate,
    Part,
    Quantity,
    Report,
    SkippedImage,
    check_writable,
    skipped_rows,
)

SCHEMA_VERSION = 2
_MAX_REPORT_BYTES = 1 << 26


class DataFacts(Part):
    """The data set of an evaluation.

    Attributes:
        folder: Name of its folder, without those above it.
        images: Number of images that were used.
        classes: Number of classes.
        sha256: Digest of the images' names and sizes.
        empty_classes: Names of the classes' folders without an image.
    """

    folder: str
    images: Count
    classes: Count
    sha256: str
    empty_classes: tuple[str, ...] = ()


class EncoderFacts(Part):
    """What the device holds: Eq. 1 of the SC2 paper, and as sc2bench counts."""

    parameters: Count
    encoder_bits: Count
    sc2bench_encoder_bits: Count | None


class ImageResult(Part):
    """Bytes and scored result of one image."""

    rate: ImageRate
    result: Result


class AccuracyReport(Report):
    """Everything that ``splitzoo profile accuracy`` measures.

    Attributes:
        scores: Shares in [0, 1] by metric, through the real bitstream.
        bits_per_pixel: Bits of the stream per pixel of the model's input.
        calibrated: Coding that calibration kept; empty for tables as they were trained.
        paired: Top-1 beside another model's on the same images, where one was named.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    spec: ModelSpec
    subject: Literal["model", "bundle", "predictions"]
    runtime: str
    source: str
    weights: Literal["random", "trained"]
    seed: int | None
    model_id: str
    data: DataFacts
    scores: dict[str, Quantity]
    paired: PairedScores | None = None
    payload_bytes: Distribution
    stream_bytes: Distribution
    bits_per_pixel: Distribution
    estimated_bits: Distribution | None
    sc2bench_bytes: Distribution | None
    encoder: EncoderFacts
    calibrated: str
    skipped: list[SkippedImage]
    skipped_counts: tuple[UnreadCount, ...] = ()
    not_measured: list[str]
    environment: dict[str, str]
    date: str
    command: str

    @property
    def metric(self) -> str:
        """Key of the main metric of the model's task."""
        return METRICS[self.spec.task][0]

    @property
    def score(self) -> float:
        """Score by the main metric, a share in [0, 1]."""
        return self.scores[self.metric]

    @property
    def metric_name(self) -> str:
        """Name of the main metric for people."""
        return NAMES[self.metric]

    def summary(self) -> list[tuple[str, str]]:
        """Return what was measured as names and values; a name is empty where a row goes on."""
        rows = [
            ("model", self.spec.name),
            ("runtime", self.runtime),
            ("weights", self.weights if self.seed is None else f"random, seed {self.seed}"),
            ("data", f"{self.data.images} images of {self.data.folder}/"),
            *((NAMES[name], f"{score:.2%}") for name, score in self.scores.items()),
            *([("", f"{self.paired.said()} beside {self.paired.against}")] if self.paired else ()),
            ("stream bytes", self.stream_bytes.said()),
            ("payload bytes", self.payload_bytes.said()),
        ]
        if self.sc2bench_bytes:
            rows.append(("as sc2bench counts", self.sc2bench_bytes.said()))
        if self.estimated_bits:
            tables = "calibrated tables" if self.calibrated else "learned density"
            rows.append((f"by its {tables}", f"mean {self.estimated_bits.mean / 8:,.0f} bytes"))
        size = f"{self.encoder.encoder_bits:,} bits ({self.encoder.parameters:,} parameters)"
        rows += [
            ("bits per pixel", f"mean {self.bits_per_pixel.mean:.4f}, of the model's input"),
            ("encoder", size),
            *skipped_rows(self.skipped, self.skipped_counts),
            *(("no image", f"in the folder {name}/") for name in self.data.empty_classes),
        ]
        return rows + [("not measured", what) for what in self.not_measured]


def read_accuracy(path: Path) -> AccuracyReport:
    """Read a report that ``splitzoo profile accuracy -o`` wrote.

    Raises:
        ReportError: The file is missing, damaged, or of another schema version.
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


def save_table(images: Sequence[ImageResult], path: Path, *, force: bool = False) -> None:
    """Write one line per image as CSV.

    Columns: image, payload_bytes, stream_bytes, estimated_bits, sc2bench_bytes; for classifiers
    prediction, label and correct; else result, as JSON. With ``force``, a file is replaced.

    Raises:
        OutputError: The file exists or cannot be written.
    """
    rows = [_row(image) for image in images]
    with (
        new_file(path, force=force) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def check_output(path: Path, *, force: bool = False) -> None:
    """Raise ``OutputError`` if neither a report (.json) nor a table (.csv) can be written there."""
    check_writable(path, force=force)
    if path.suffix not in (".json", ".csv"):
        raise OutputError(
            path,
            "its name ends neither in .json, for the report, nor in .csv, for a line per image",
        )


def _row(image: ImageResult) -> dict[str, Any]:
    row: dict[str, Any] = image.rate.model_dump()
    result = image.result
    if isinstance(result, ClassResult):
        scored = {
            "prediction": result.prediction[0],
            "label": result.label,
            "correct": result.correct,
        }
        return row | scored
    return row | {"result": result.model_dump_json()}
