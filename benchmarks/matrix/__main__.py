"""Commands that measure whole tables of models: ``python -m benchmarks.matrix``.

They write the pages in ``cards/generated/``: what is exported to which target, which runtimes may
be mixed, and what each architecture of the zoo costs.
"""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from splitrun.errors import UnknownNameError
from splitrun.files import new_file
from splitrun.signals import run_stoppable
from splitzoo.cli import run
from splitzoo.console import Console, Json, command_line

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Measure whole tables of models, and write pages.",
)

RESULTS = Path(__file__).parents[1] / "results"

PageOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="Markdown file to write.")
]
ResultsOption = Annotated[
    Path,
    typer.Option(
        metavar="FILE",
        help="JSON file of all rows: those measured are put into it, and the page tells all.",
        show_default="in benchmarks/results",
    ),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of images to calibrate and compare with.",
        show_default="synthetic images",
    ),
]


def _write(path: Path, text: str) -> None:
    with new_file(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _command() -> str:
    return command_line().replace("splitzoo", "python -m benchmarks.matrix", 1)


@app.command()
def targets(
    output: PageOption,
    models: Annotated[
        str,
        typer.Option(metavar="PATTERN", help="Part of the names to measure, or any model's name."),
    ] = "*",
    target: Annotated[
        list[str] | None, typer.Option(help="Target to measure; repeatable.", show_default="all")
    ] = None,
    results: ResultsOption = RESULTS / "targets.json",
    images: ImagesOption = None,
    aot: Annotated[
        bool,
        typer.Option("--aot", help="Compile all models ahead of time, not two: minutes each."),
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, max=64, help="Models at a time; each takes up to 3 GB.")
    ] = 2,
    json: Json = False,
) -> None:
    """Export every kind of model to every target and precision. Takes an hour."""
    from benchmarks.matrix.targets_matrix import (
        list_columns,
        matching_models,
        measure_matrix,
        put_into,
    )
    from benchmarks.matrix.targets_table import counted, render_targets

    console = Console(json)
    names, columns = matching_models(models), list_columns(target or ())
    with console.progress() as progress:
        matrix = measure_matrix(
            names, columns, images=images, aot=aot, jobs=jobs, progress=progress
        )
    matrix = put_into(results, matrix)
    # Without it, the same command makes the whole page.
    command = re.sub(" --models [^ ]+", "", _command())
    _write(output, render_targets(matrix, command=command))
    console.data(matrix, lambda: console.print(str(output)))
    console.hint(counted(matrix))


@app.command()
def runtimes(
    output: PageOption,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="Names or folders.", show_default="one of each kind"
        ),
    ] = None,
    images: ImagesOption = None,
    results: ResultsOption = RESULTS / "runtimes.json",
    most: Annotated[int, typer.Option(min=8, help="Most images to compare on.")] = 2016,
    side: Annotated[
        int, typer.Option(min=0, help="Height and width of the images; 0: the model's.")
    ] = 64,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes at a time.")] = 1,
    json: Json = False,
) -> None:
    """Compare runtimes: which may be mixed between device and edge. Takes an hour."""
    from benchmarks.matrix.comparison import COMPARED, compare_models, put_into
    from benchmarks.matrix.runtimes_table import conclude, render_runtimes

    console, comparisons = Console(json), []
    with console.progress() as progress:
        comparing = compare_models(
            models or COMPARED, images=images, most=most, side=side, jobs=jobs, progress=progress
        )
        for comparison in comparing:  # what is done is kept, whatever becomes of the next
            comparisons = put_into(results, [comparison])
    # Without models, the same command makes the whole page.
    command = " ".join(word for word in _command().split() if word not in (models or ()))
    _write(output, render_runtimes(comparisons, synthetic=images is None, command=command))
    console.data(comparisons, lambda: console.print(str(output)))
    for comparison in comparisons:
        console.hint(conclude(comparison))


@app.command()
def zoo(
    output: PageOption,
    pattern: Annotated[
        str | None,
        typer.Argument(
            help="Models to count anew: part of a name, or a pattern with *.", show_default="none"
        ),
    ] = None,
) -> None:
    """Write the page of the zoo. With a pattern, count those models first: '*' takes an hour."""
    from benchmarks.matrix.zoo_parity import compare
    from benchmarks.matrix.zoo_table import measure_zoo, names_to_measure, render_zoo
    from splitzoo.zoo.catalog import list_architectures, list_models
    from splitzoo.zoo.csv_rows import read_rows, write_rows
    from splitzoo.zoo.encoder_rows import FILE, EncoderRow

    console, names = Console(), names_to_measure()
    rows = {row.model: row for row in read_rows(EncoderRow, FILE)} if FILE.exists() else {}
    wanted = set(list_models(pattern)) if pattern else set()
    if pattern and not wanted:
        raise UnknownNameError("model", pattern, next_step="See: splitzoo zoo list")
    with console.progress() as progress:
        groups = list_architectures()
        chosen = [name for name in names if wanted.intersection(groups.get(name, [name]))]
        for row in measure_zoo(chosen, compare=compare, progress=progress):
            rows[row.model] = row  # what is done is kept, whatever becomes of the next
            write_rows(EncoderRow, [rows[name] for name in names if name in rows], FILE)
    command = "python -m benchmarks.matrix zoo -o cards/generated/zoo.md"
    _write(output, render_zoo(rows.values(), command=command))
    console.print(str(output))


@app.command()
def results(
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder to write.", show_default="zoo/results"
        ),
    ] = None,
) -> None:
    """Write the tables that come with the package: one for each family, of its reports."""
    from benchmarks.matrix.results_tables import FOLDER, write_tables

    console = Console()
    with console.progress() as progress:
        written = write_tables(output or FOLDER, progress)
    console.print("\n".join(map(str, written)))


@app.command()
def cards() -> None:
    """Write the carried models' cards again, of the manifests and profiles beside them."""
    from benchmarks.matrix.carried_cards import FOLDER, write_cards

    write_cards()
    Console().print(str(FOLDER))


if __name__ == "__main__":
    sys.exit(run_stoppable(lambda: run(app)))
