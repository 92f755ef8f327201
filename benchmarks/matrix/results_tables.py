"""The tables of results that come with the package: ``zoo/results/FAMILY.csv``, a row a model."""

from collections.abc import Iterator
from pathlib import Path

from splitzoo.profile.accuracy_report import read_accuracy
from splitzoo.profile.costs import read_latencies
from splitzoo.profile.rows import make_rows
from splitzoo.progress import SILENT, Progress
from splitzoo.zoo.csv_rows import write_rows
from splitzoo.zoo.model_rows import FOLDER, ModelRow

REPORTS = Path(__file__).parents[1] / "results"
LATENCY = REPORTS / "latency"
CARDS = Path(__file__).parents[2] / "cards" / "generated"


def families() -> dict[str, list[Path]]:
    """Return the accuracy reports of each family, by the folder that they lie in."""
    found: dict[str, list[Path]] = {}
    for path in sorted(REPORTS.glob("*/*.json")):
        if path.parent != LATENCY:
            found.setdefault(path.parent.name, []).append(path)
    return found


def report_of(name: str) -> Path:
    """Return the report of a carried model, as it is carried: with calibrated tables, if any."""
    found = {path.name: path for paths in families().values() for path in paths}
    return found.get(f"{name}-calibrated.json") or found[f"{name}.json"]


def tables(progress: Progress = SILENT) -> Iterator[tuple[str, list[ModelRow]]]:
    """Make each family's rows of its reports, and of the latencies that were measured."""
    latencies = read_latencies([*sorted(CARDS.glob("*/profile.json")), *sorted(LATENCY.glob("*"))])
    for family, paths in families().items():
        yield family, make_rows([*map(read_accuracy, paths)], latencies, progress=progress)


def write_tables(folder: Path = FOLDER, progress: Progress = SILENT) -> list[Path]:
    """Write every family's table."""
    folder.mkdir(exist_ok=True)
    written = []
    for family, rows in tables(progress):
        write_rows(ModelRow, rows, folder / f"{family}.csv")
        written.append(folder / f"{family}.csv")
    return written
