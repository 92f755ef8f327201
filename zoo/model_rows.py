"""What was measured of models, one row of CSV for each. Imports no torch.

The files of ``zoo/results/`` come with the package, one for each data set; ``python -m
benchmarks.matrix results`` writes them from reports. Lists, tables, the gallery and ``profile
choose`` are made of them.
"""

import functools
import itertools
from pathlib import Path
from typing import Annotated

from pydantic import Field

from .bottleneck_specs import Part
from .csv_rows import Amount, MaybeText, Text, Whole, read_rows
from .kinds import Method, Task
from .resolve import DEFAULT_MODEL
from .spec import ModelSpec

FOLDER = Path(__file__).with_name("results")


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
    coding: MaybeText
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
    machine: MaybeText
    date: Text
    command: Annotated[str, Field(max_length=2000)]

    @property
    def exrd(self) -> float | None:
        """Encoder bits × bytes; None where the device holds no learned parameters."""
        return self.encoder_bits * self.stream_bytes or None


@functools.cache
def package_rows() -> tuple[ModelRow, ...]:
    """Return the rows that come with the package, those of the default model's data first."""
    tables = [read_rows(ModelRow, path) for path in sorted(FOLDER.glob("*.csv"))]
    tables.sort(key=lambda rows: DEFAULT_MODEL not in {row.model for row in rows})
    return tuple(itertools.chain.from_iterable(tables))


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
