"""The matrix of targets: each kind of model exported to each target and precision."""

import fnmatch
import gc
import os
import signal
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.matrix.page import write_images
from benchmarks.matrix.processes import run_apart
from benchmarks.matrix.targets_cell import Cell, Column, measure_cell, rtx_version
from splitrun.files import new_file
from splitzoo.export.targets import TARGETS
from splitzoo.progress import SILENT, Progress
from splitzoo.zoo import catalog
from splitzoo.zoo.packaged import packaged_folder
from splitzoo.zoo.spec import ModelSpec

MODELS = (
    "flowers-splittable_regnetx_002-fp-beta3",
    "svbi_tf_efficientnet_lite0-fp-variable",
    "splittable_resnet50-fp-beta0.16",
    "splittable_resnet50-shp-beta0.16",
    "splittable_resnet50-mshp-beta0.16",
    "splittable_regnety6.4gf-fp-beta0.16",
    "splittable_hybrid_vit_small_r26_s32_224-mshp-beta0.16",
    "splittable_resnet50-bq3ch",
    "splittable_resnet50-bq12ch_v0.1.1",
    "splittable_densenet169-bq12ch_v0.1.1",
    "splittable_inception_v3-bq12ch_v0.1.1",
    "resnet50-eb_after_layer2-beta1.0e-8",
    "resnet50-layer2-jpeg-q90",
    "resnet50-jpeg-q90",
    # The zoo's own EfficientNet is L2, of 480 million parameters.
    "tf_efficientnet_b0-webp-q90",
    # Qualities from 5 on, the zoo's own among them, have layers half again as wide.
    "resnet50-factorized_prior-q1",
    "resnet50-scale_hyperprior-q1",
    "resnet50-mean_scale_hyperprior-q1",
    "resnet50-joint_autoregressive_hierarchical_prior-q1",
    "deeplabv3_splittable_resnet50-fp-beta0.16",
    "deeplabv3_splittable_resnet50-mshp-beta0.16",
    "deeplabv3_splittable_resnet50-bq3ch",
    "deeplabv3_resnet50-jpeg-q90",
    "deeplabv3_resnet50-mean_scale_hyperprior-q1",
    "faster_rcnn_splittable_resnet50-fp-beta0.16",
    "faster_rcnn_splittable_resnet50-mshp-beta0.16",
    "faster_rcnn_splittable_resnet50-bq3ch",
    "faster_rcnn_resnet50-jpeg-q90",
    "faster_rcnn_resnet50-mean_scale_hyperprior-q1",
)
"""One model for each kind of bottleneck, task and backbone."""

COMPILED = ("flowers-splittable_regnetx_002-fp-beta3", "splittable_resnet50-mshp-beta0.16")
"""Models that are compiled ahead of time by default."""

NOT_TRIED = "Compiling takes a minute or two a model: `--aot` does it."

SAME_FILES = "raspberrypi"
"""Target with the same graphs as ``cpu``."""

ON_A_GPU = "torch-tensorrt"
"""Target that compiles on an NVIDIA GPU only."""

_DENSE_INPUT = {"resize": 256, "crop": (256, 320), "longest": 0}
_IMAGES = 16


@dataclass(frozen=True)
class Row:
    """One model, exported to all of the columns.

    Attributes:
        model: Name of the model.
        bottleneck: Kind of its bottleneck, in words.
        task: Task of the model.
        input: Height and width of the images that it was exported for, pixels.
        trained: Whether its weights are trained, not random.
        cells: One cell for each column.
    """

    model: str
    bottleneck: str
    task: str
    input: tuple[int, int]
    trained: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Matrix:
    """All rows.

    Attributes:
        columns: Titles of the columns.
        rows: Rows in the order of the models that were asked for.
        synthetic: Whether precisions below fp32 were compared on synthetic images.
        tensorrt_rtx: Version of TensorRT-RTX; empty where it is not installed.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    synthetic: bool
    tensorrt_rtx: str

    @property
    def seconds(self) -> float:
        """Time that all exports took, one after another."""
        return sum(cell.seconds for row in self.rows for cell in row.cells)


@dataclass(frozen=True)
class Job:
    """A row to make.

    Attributes:
        name: Name of the model.
        columns: Columns to export to.
        images: Folder of images; None makes synthetic ones.
        aot: Whether to compile ahead of time, though it takes long.
        folder: Folder for what the process makes; the caller removes it.
        threads: Number of threads for PyTorch in the process.
    """

    name: str
    columns: tuple[Column, ...]
    images: Path | None = None
    aot: bool = False
    folder: Path = Path()
    threads: int = 1


def list_columns(targets: Sequence[str] = ()) -> list[Column]:
    """Return the columns of targets, by default of all that can be tried anywhere and differ.

    Raises:
        UnknownNameError: There is no such target.
    """
    names = targets or [name for name in TARGETS.names() if name not in (SAME_FILES, ON_A_GPU)]
    columns = []
    for name in names:
        target = TARGETS.get(name)
        columns += [Column(name, precision) for precision in target.precisions]
        columns += [Column(name, "fp32", aot=True)] if target.aot else []
    return columns


def matching_models(pattern: str) -> list[str]:
    """Return the models of the matrix whose names match; or a name that it does not list.

    Args:
        pattern: Shell-style pattern; a word without wildcards matches anywhere.

    Raises:
        UnknownNameError: None matches, and no model has that name.
    """
    wild = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
    found = fnmatch.filter(MODELS, wild)
    return found or [catalog.get_spec(pattern).name]


def matrix_spec(name: str) -> ModelSpec:
    """Return the spec of a name as it is exported here: dense tasks get fewer pixels, for time.

    Raises:
        UnknownNameError: No model has that name.
    """
    spec = catalog.get_spec(name)
    if spec.task == "image-classification":
        return spec
    smaller = replace(spec.preprocessing, **_DENSE_INPUT)
    return spec.model_copy(update={"preprocessing": smaller})


def measure_matrix(
    names: Sequence[str],
    columns: Sequence[Column],
    *,
    images: Path | None = None,
    aot: bool = False,
    jobs: int = 1,
    progress: Progress = SILENT,
) -> Matrix:
    """Export every model to every column, each model in a process of its own.

    Args:
        names: Names of models.
        columns: Columns to export to.
        images: Folder of images for precisions below fp32; None makes synthetic ones.
        aot: Whether to compile every model ahead of time.
        jobs: Models at a time.
        progress: Progress to report to.
    """
    rows = {}
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with tempfile.TemporaryDirectory() as folder:
        work = [Job(name, tuple(columns), images, aot, Path(folder), threads) for name in names]
        measured = run_apart(_measure_apart, work, jobs=jobs, crashed=_crashed)
        for number, row in progress.track(measured, "models", total=len(work)):
            rows[number] = row
    return Matrix(
        columns=tuple(column.title for column in columns),
        rows=tuple(rows[number] for number in sorted(rows)),
        synthetic=images is None,
        tensorrt_rtx=rtx_version(),
    )


def put_into(path: Path, matrix: Matrix) -> Matrix:
    """Put rows into a file of rows, in the place of those of the same models.

    Args:
        path: JSON file; it need not exist. Rows of other columns or images are not kept.
        matrix: Rows that were measured.

    Returns:
        All rows, in the order of ``MODELS``.
    """
    file = TypeAdapter(Matrix)
    rows = {row.model: row for row in matrix.rows}
    if path.exists():
        before = file.validate_json(path.read_bytes())
        if replace(before, rows=()) == replace(matrix, rows=()):
            rows = {row.model: row for row in before.rows} | rows
    places = {name: number for number, name in enumerate(MODELS)}
    ordered = sorted(rows.values(), key=lambda row: places.get(row.model, len(places)))
    whole = replace(matrix, rows=tuple(ordered))
    with new_file(path, force=True) as temporary:
        temporary.write_bytes(file.dump_json(whole, indent=1) + b"\n")
    return whole


def _measure_apart(job: Job) -> Row:
    import torch

    torch.set_num_threads(job.threads)
    # The folder takes with it what a stopped process leaves behind.
    tempfile.tempdir = str(job.folder)
    return measure_row(job)


def measure_row(job: Job) -> Row:
    """Build or load a model, and export it to each column."""
    model = (
        catalog.load(job.name)
        if packaged_folder(job.name)
        else catalog.build(matrix_spec(job.name))
    )
    with tempfile.TemporaryDirectory() as made:
        if job.images is None:
            write_images(model.spec.preprocessing, Path(made), _IMAGES)
        cells = []
        for column in job.columns:
            gc.collect()
            left_out = column.aot and not job.aot and job.name not in COMPILED
            cells.append(
                Cell(column.title, "not tried", NOT_TRIED)
                if left_out
                else measure_cell(model, column, job.images or Path(made))
            )
    return _row(model.spec, cells, trained=model.random_seed is None)


def _crashed(job: Job, code: int) -> Row:
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    reason = f"The process that exported the model ended with {ended}."
    cells = (Cell(column.title, "failed", reason) for column in job.columns)
    return _row(matrix_spec(job.name), cells, trained=packaged_folder(job.name) is not None)


def _row(spec: ModelSpec, cells: Iterable[Cell], *, trained: bool) -> Row:
    kind = spec.bottleneck.kind
    # The name of a codec says more than its kind.
    which = getattr(spec.bottleneck, "codec", getattr(spec.bottleneck, "architecture", ""))
    return Row(
        model=spec.name,
        bottleneck=f"{kind} {which}".strip(),
        task=spec.task,
        input=spec.preprocessing.crop,
        trained=trained,
        cells=tuple(cells),
    )
