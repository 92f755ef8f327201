"""What was measured of models, one row of CSV for each. Imports no torch.

The files of ``zoo/results/`` come with the package, one for each data set; ``python -m
benchmarks.matrix results`` writes them from reports. Lists, tables, the gallery and ``profile
choose`` are made of them.
"""

import csv
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from splitrun.errors import ReportError
from splitrun.files import new_file
from splitrun.text import check_texts

from .bottleneck_specs import Part
from .kinds import Method, Task
from .spec import ModelSpec

FOLDER = Path(__file__).with_name("results")
_MOST_BYTES = 1 << 24

Text = Annotated[str, Field(max_length=400)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, lt=1 << 63)]


class ModelRow(Part):
    """One model, measured on one data set through its real bitstream.

    Attributes:
        model: Name of the model.
        model_id: 8 hexadecimal digits, of all tensors of the model.
        series: Name of the models that differ in β, channels or quality only.
        coding: Coding that calibration kept; empty for tables as they were trained.
        rate_set_by: What sets the model's rate, in words.
        data: Name of the folder of images.
        data_sha256: Digest of the images' names and sizes.
        metric: Key of the main metric.
        score: Share in [0, 1] by the main metric.
        top5: The same by top-5, where there are more than five classes.
        stream_bytes: Bytes per image, mean.
        bits_per_pixel: Bits per pixel of the model's input, mean.
        encoder_bits: Encoder size, Eq. 1 of the SC2 paper.
        device_macs: Multiply-accumulates on the device, per image.
        edge_macs: The same on the edge.
        device_ms: Median latency of the device, image tensor to stream, milliseconds.
        device_graph_ms: The same of the device graph alone.
        edge_ms: The same of the edge, stream to output.
        edge_graph_ms: The same of the edge graph alone.
        machine: Engine and processor of the latencies.
        command: Command that measured accuracy and bytes.
    """

    model: Text
    model_id: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    task: Task
    method: Method
    backbone: Text
    series: Text
    coding: Text
    rate_set_by: Text
    data: Text
    data_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    images: Whole
    metric: Text
    score: Annotated[float, Field(ge=0, le=1)]
    top5: Annotated[float, Field(ge=0, le=1)] | None
    stream_bytes: Amount
    bits_per_pixel: Amount
    encoder_bits: Whole
    device_macs: Whole
    edge_macs: Whole
    device_ms: Amount | None
    device_graph_ms: Amount | None
    edge_ms: Amount | None
    edge_graph_ms: Amount | None
    machine: Text
    date: Text
    command: Annotated[str, Field(max_length=2000)]

    @property
    def exrd(self) -> float | None:
        """Encoder bits × bytes; None where the device holds no learned parameters."""
        return self.encoder_bits * self.stream_bytes or None


def write_rows(rows: Iterable[ModelRow], path: Path) -> None:
    """Write rows as CSV, whole or not at all; what was not measured is left empty.

    Raises:
        OutputError: The file cannot be written.
    """
    with (
        new_file(path, force=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(ModelRow.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.model_dump(mode="json") for row in rows)


def read_rows(path: Path) -> list[ModelRow]:
    """Read what :func:`write_rows` wrote.

    Raises:
        ReportError: The file cannot be read, or a row is not valid.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ReportError(f"{path} is larger than {_MOST_BYTES >> 20} MiB.")
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames != list(ModelRow.model_fields):
                raise ReportError(f"{path} has not the columns of a table of results.")
            return [_row(cells, path, number) for number, cells in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ReportError(f"Cannot read {path}: {reason}.") from error


def _row(cells: dict[str, str], path: Path, number: int) -> ModelRow:
    texts = ("coding", "machine")  # which may be empty
    try:
        check_texts(cells)
        return ModelRow.model_validate(
            {name: cell if cell or name in texts else None for name, cell in cells.items()}
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ReportError(f"{path}, row {number}: {where}: {first['msg']}.") from error
    except (ValueError, TypeError) as error:  # too few cells, too many, or hostile ones
        raise ReportError(f"{path}, row {number}, is not valid: {error}.") from error


@functools.cache
def package_rows() -> tuple[ModelRow, ...]:
    """Return the rows that come with the package."""
    return tuple(row for path in sorted(FOLDER.glob("*.csv")) for row in read_rows(path))


@functools.cache
def _by_model() -> dict[str, list[ModelRow]]:
    found: dict[str, list[ModelRow]] = {}
    for row in package_rows():
        found.setdefault(row.model, []).append(row)
    return found


def rates_of(spec: ModelSpec) -> list[ModelRow]:
    """Return what was measured of a model at each of its rates, by bytes.

    Where it was measured with the tables that it was trained with and with those that calibration
    kept, the latter are returned: a carried model is calibrated, where it can be.
    """
    rows = _by_model().get(spec.name, [])
    kept = [row for row in rows if row.coding] or rows
    return sorted(kept, key=lambda row: row.stream_bytes)


def row_of(spec: ModelSpec) -> ModelRow | None:
    """Return what was measured of a model at the rate that it has without being told another."""
    return next((row for row in rates_of(spec) if row.rate_set_by == spec.strength), None)
