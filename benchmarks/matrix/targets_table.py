"""The page of models and targets."""

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from benchmarks.matrix.page import made_here, table_line
from benchmarks.matrix.targets_cell import Cell
from benchmarks.matrix.targets_matrix import Matrix, Row
from splitzoo import __version__
from splitzoo.export.options import KEPT

_TASKS = {
    "image-classification": "classification",
    "object-detection": "detection",
    "semantic-segmentation": "segmentation",
}
_PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")
_BEYOND = "†"
_PARTS = {"last": "the last convolution", "gdn": "GDN's norms"}
_SYMBOLS = ("symbols_differing", "symbols")

Note = Callable[[str], str]


def render_targets(matrix: Matrix, *, command: str) -> str:
    """Render the matrix as Markdown; below it, the reasons why something is not exported."""
    reasons: list[str] = []

    def note(reason: str) -> str:
        if reason not in reasons:
            reasons.append(reason)
        return f"[{reasons.index(reason) + 1}]"

    header = ("model", "bottleneck", "task", "input", *matrix.columns)
    lines = [table_line(_cells(row, note)) for row in matrix.rows]
    return "\n".join(
        [
            "# Models and targets",
            "",
            *_head(matrix),
            "",
            table_line(header),
            table_line("---" for _ in header),
            *lines,
            "",
            *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)),
            *[""] * bool(reasons),
            f"Made by `{command}` with splitzoo {__version__}, {_versions(matrix)}, {made_here()}; "
            f"one after another, the exports took {_minutes(matrix.seconds)}.",
            "",
        ]
    )


def counted(matrix: Matrix) -> str:
    """Say how many exports there are of each state."""
    cells = [cell for row in matrix.rows for cell in row.cells]
    states = ("exported", "refused", "failed", "not tried")
    found = {state: sum(cell.state == state for cell in cells) for state in states}
    said = ", ".join(f"{count} {state}" for state, count in found.items() if count)
    return f"{len(matrix.rows)} models × {len(matrix.columns)} columns: {said}"


def _head(matrix: Matrix) -> Iterable[str]:
    cells = [cell for row in matrix.rows for cell in row.cells if cell.state == "exported"]
    exact = [cell for cell in cells if cell.flips is None]
    differing, count = (sum(getattr(cell, name) for cell in exact) for name in _SYMBOLS)
    farthest = max((cell.output_error for cell in cells), default=0.0)
    images = "synthetic images" if matrix.synthetic else "images"
    yield f"{counted(matrix)}."
    yield ""
    yield (
        "Each cell is a complete export with `splitzoo export split`, checked against PyTorch on "
        "three test images. In fp32 it gives how many of the integers that the device sends "
        "differ; those lay within 1e-4 of a rounding boundary, or the export would have "
        f"failed. Over all cells in fp32, {differing:,} of {count:,} differ, and no edge's output "
        f"is farther from PyTorch's than {farthest:.0e} of the largest value. Where floats are "
        "sent, the cell gives their tolerance, relative to the largest."
    )
    yield ""
    yield (
        "Below fp32, the device graph computes in lower precision; the edge stays in fp32. The "
        f"cell gives the share of symbols that differ from fp32's, on {images} that were not "
        "used for calibration; the largest difference where it is more than 1; and how much the "
        "payload grows. The 8-bit values of channel reduction have a range of their own in each "
        "image: where an extreme moves, all of them move. With means from a hyperprior, y is "
        f"compared on images whose z is the same. {_kept()} {_BEYOND} marks an export beyond the "
        f"exporter's limits: it needs `--accept`. {_weights(matrix)}"
    )
    yield ""
    yield (
        "`raspberrypi` has the graphs of `cpu`, byte for byte, and another number of threads; "
        "`torch-tensorrt` compiles on an NVIDIA GPU only. Neither has a column."
    )
    if any(column.startswith("jetson") for column in matrix.columns):
        yield ""
        yield _jetson(matrix, cells)
    if any(row.task != "image-classification" for row in matrix.rows):
        yield ""
        yield (
            "To save time, detection and segmentation take smaller images here than in the zoo; "
            "their graphs are the same. A detector's graphs are its dense parts; proposals and the "
            "choice of boxes run between and after them."
        )


def _kept() -> str:
    kept = " and ".join(_PARTS[part] for part in KEPT)
    return f"int8 leaves {kept} in fp32." if kept else "int8 leaves nothing in fp32."


def _weights(matrix: Matrix) -> str:
    trained = [f"`{row.model}`" for row in matrix.rows if row.trained]
    which = f"Weights are random except {', '.join(trained)}" if trained else "Weights are random"
    return f"{which}; with untrained tables nearly all symbols cost the same: bytes say little."


def _jetson(matrix: Matrix, cells: Sequence[Cell]) -> str:
    """Say what of the columns for a Jetson was checked here."""
    said = (
        "For a Jetson, a bundle holds ONNX files; their symbols are computed by ONNX Runtime for "
        "the comparison. "
    )
    if not matrix.tensorrt_rtx:
        return f"{said}TensorRT-RTX is not installed: no engine was built."
    built = [graph for cell in cells for graph in cell.built]
    done = sum(not graph.reason for graph in built)
    return (
        f"{said}TensorRT-RTX {matrix.tensorrt_rtx} parsed and built {done} of {len(built)} files "
        "ahead of time; none was run on a Jetson. “Built” refers to all graphs in the column fp32, "
        "and to the device graph in the others, because their edge graphs are the same."
    )


def _cells(row: Row, note: Note) -> Iterable[str]:
    yield f"`{row.model}`"
    yield row.bottleneck
    yield _TASKS.get(row.task, row.task)
    yield "×".join(map(str, row.input))
    for cell in row.cells:
        yield _said(cell, note)


def _said(cell: Cell, note: Note) -> str:
    if cell.state != "exported":
        word = f"**{cell.state}**" if cell.state == "failed" else cell.state
        return f"{word} {note(cell.reason)}"
    words = []
    if not cell.symbols:
        words.append(f"floats within {cell.sent_tolerance:.0e}")
    elif cell.flips is None:
        words.append(f"{cell.symbols_differing:,} of {cell.symbols:,}")
    else:
        by = f" (≤ {cell.largest_difference})" * (cell.largest_difference > 1)
        words.append(f"{cell.flips:.2%}{by}")
    if cell.rate_inflation is not None:
        words.append(f"bytes {round(cell.rate_inflation, 3) + 0.0:+.1%}")
    failed = [
        f"{graph.graph} not built {note(graph.reason)}" for graph in cell.built if graph.reason
    ]
    words += failed or ["built"] * bool(cell.built)
    return ", ".join(words) + f" {_BEYOND}" * bool(cell.beyond)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"


def _versions(matrix: Matrix) -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return ", ".join([*found, *[f"tensorrt_rtx {matrix.tensorrt_rtx}"] * bool(matrix.tensorrt_rtx)])
