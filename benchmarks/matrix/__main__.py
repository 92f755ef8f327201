"""Commands that measure whole tables of models: ``python -m benchmarks.matrix``.

They write the pages in ``cards/generated/``: what is exported to which target, which runtimes may
be mixed, and what each architecture of the zoo costs.
"""

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

PageOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="Markdown file to write.")
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
    from benchmarks.matrix.targets_matrix import list_columns, matching_models, measure_matrix
    from benchmarks.matrix.targets_table import counted, render_targets

    console = Console(json)
    names, columns = matching_models(models), list_columns(target or ())
    with console.progress() as progress:
        matrix = measure_matrix(
            names, columns, images=images, aot=aot, jobs=jobs, progress=progress
        )
    _write(output, render_targets(matrix, command=_command()))
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
    most: Annotated[int, typer.Option(min=8, help="Most images to compare on.")] = 96,
    json: Json = False,
) -> None:
    """Compare runtimes: which may be mixed between device and edge. Takes minutes."""
    from benchmarks.matrix.comparison import COMPARED, compare_models
    from benchmarks.matrix.runtimes_table import conclude, render_runtimes

    console = Console(json)
    with console.progress() as progress:
        comparisons = compare_models(
            models or COMPARED, images=images, most=most, progress=progress
        )
    _write(output, render_runtimes(comparisons, synthetic=images is None, command=_command()))
    console.data(comparisons, lambda: console.print(str(output)))
    for comparison in comparisons:
        console.hint(conclude(comparison))


@app.command()
def zoo(
    output: PageOption,
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern with *.")] = "*",
) -> None:
    """Count what each architecture of the zoo costs the device. Takes minutes."""
    from benchmarks.matrix.zoo_parity import compare
    from benchmarks.matrix.zoo_table import measure_zoo, render_zoo
    from splitzoo.zoo.catalog import list_architectures, list_models

    console = Console()
    wanted = set(list_models(pattern))
    names = [first for first, same in list_architectures().items() if wanted.intersection(same)]
    if not names:
        raise UnknownNameError("model", pattern, next_step="See: splitzoo zoo list")
    with console.progress() as progress:
        rows = measure_zoo(names, compare=compare, progress=progress)
    _write(output, render_zoo(rows, command=_command()))
    console.print(str(output))


@app.command()
def measures(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="JSON file to write.")
    ],
) -> None:
    """Collect what lists of models show: encoder bits, and the reports of the carried models."""
    from benchmarks.matrix.measures import count_measures

    console = Console()
    with console.progress() as progress:
        found = count_measures(progress)
    _write(output, found.model_dump_json(indent=1) + "\n")
    console.print(str(output))


@app.command()
def cards() -> None:
    """Write the carried models' cards again, of the manifests and profiles beside them."""
    from benchmarks.matrix.carried_cards import FOLDER, write_cards

    write_cards()
    Console().print(str(FOLDER))


if __name__ == "__main__":
    sys.exit(run_stoppable(lambda: run(app)))
