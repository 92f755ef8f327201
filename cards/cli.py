"""``splitzoo cards``: write and read model cards."""

from pathlib import Path
from typing import Annotated, Any

import typer

from splitrun.errors import UnknownNameError

from ..console import Console, Json, command_line

app = typer.Typer(no_args_is_help=True, help="Write and read model cards.")

ModelArgument = Annotated[
    str | None,
    typer.Argument(
        help="A registered name, or a saved model's folder.",
        show_default="what the bundle or the profile is of, else the default model",
    ),
]

PageOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="Markdown file to write.")
]
PhotosOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Images to calibrate and compare with.", show_default="made ones"
    ),
]


@app.command()
def build(
    model: ModelArgument = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put this bundle's parity and hashes on it.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Put these measurements on it.")
    ] = None,
    accuracy: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Put accuracy and bytes on it.")
    ] = None,
    tradeoff: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Put the image of tradeoffs on it.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write.", show_default="MODEL-card"),
    ] = None,
) -> None:
    """Write a model card with an image of the split. What was not measured is not on it."""
    console = Console()
    with console.progress() as progress:
        progress.step("writing the card")
        from .card import build_card, gather_facts

        sources: dict[str, Any] = {
            "bundle": bundle,
            "profile": profile,
            "accuracy": accuracy,
            "tradeoff": tradeoff,
        }
        facts = gather_facts(model, **sources)
        folder = output or Path(f"{facts.spec.name}-card")
        card = build_card(folder, model, **sources)
    console.print(str(card))
    if profile is None:
        console.hint("It holds no measurements. Make some: splitzoo profile encoder -o report.json")
    if accuracy is None:
        console.hint(
            "It says nothing of accuracy: splitzoo profile accuracy --data DIR -o acc.json"
        )
    if bundle is None:
        console.hint("It holds no parity and no hashes. Make a bundle: splitzoo export split")
    console.hint(f"Read it: splitzoo cards show {folder}")


@app.command()
def show(
    card: Annotated[
        str,
        typer.Argument(metavar="CARD", help="A card, its folder, or a model's name."),
    ],
    json: Json = False,
) -> None:
    """Print a card in the terminal."""
    from ..zoo.hub_push import CARD_NAME
    from .card import gather_facts, read_card, render_card

    console = Console(json)
    path = Path(card)
    if path.is_dir():
        path /= CARD_NAME
    shown = read_card(path) if path.is_file() else render_card(gather_facts(card))
    data = shown.data.to_dict()

    def terminal() -> None:
        console.table("", ("", ""), [(key, _line(value)) for key, value in data.items()])
        console.markdown(shown.text)

    console.data({"metadata": data, "text": shown.text}, terminal)


@app.command()
def zoo(
    output: PageOption,
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern with *.")] = "*",
) -> None:
    """Write the table of the zoo: what each architecture costs the device. Takes minutes."""
    import shlex
    import sys

    from benchmarks.matrix.page import write_page
    from benchmarks.matrix.zoo_parity import compare
    from benchmarks.matrix.zoo_table import measure_zoo, render_zoo

    from ..zoo.catalog import list_architectures, list_models

    console = Console()
    wanted = set(list_models(pattern))
    names = [first for first, all_ in list_architectures().items() if wanted.intersection(all_)]
    if not names:
        raise UnknownNameError("model", pattern, next_step="See: splitzoo zoo list")
    with console.progress() as progress:
        rows = measure_zoo(names, compare=compare, progress=progress)
    command = shlex.join(["splitzoo", *sys.argv[1:]])
    write_page(output, render_zoo(rows, command=command))
    console.print(str(output))


@app.command()
def targets(
    output: PageOption,
    models: Annotated[
        str,
        typer.Option(metavar="PATTERN", help="Of the models of the table; or any model's name."),
    ] = "*",
    target: Annotated[
        list[str] | None, typer.Option(help="Only these; repeatable.", show_default="all")
    ] = None,
    photos: PhotosOption = None,
    aot: Annotated[
        bool,
        typer.Option("--aot", help="Compile all models ahead of time, not two: minutes each."),
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, max=64, help="Models at a time; each takes up to 3 GB.")
    ] = 2,
    json: Json = False,
) -> None:
    """Write the table of models and targets: what is exported, and what holds. Takes long."""
    from benchmarks.matrix.page import write_page
    from benchmarks.matrix.targets_matrix import list_columns, matching_models, measure_matrix
    from benchmarks.matrix.targets_table import counted, render_targets

    console = Console(json)
    names, columns = matching_models(models), list_columns(target or ())
    with console.progress() as progress:
        matrix = measure_matrix(
            names, columns, images=photos, aot=aot, jobs=jobs, progress=progress
        )
    write_page(output, render_targets(matrix, command=command_line()))
    console.data(matrix, lambda: console.print(str(output)))
    console.hint(counted(matrix))


@app.command()
def runtimes(
    output: PageOption,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Names or folders.", show_default="two kinds"),
    ] = None,
    photos: PhotosOption = None,
    images: Annotated[int, typer.Option(min=8, help="To compare on, at most.")] = 96,
    json: Json = False,
) -> None:
    """Write the tables of what may be mixed between device and edge. Takes minutes."""
    from benchmarks.matrix.comparison import COMPARED, compare_models
    from benchmarks.matrix.page import write_page
    from benchmarks.matrix.runtimes_table import conclude, render_runtimes

    console = Console(json)
    with console.progress() as progress:
        comparisons = compare_models(
            models or COMPARED, images=photos, most=images, progress=progress
        )
    text = render_runtimes(comparisons, images=photos is not None, command=command_line())
    write_page(output, text)
    console.data(comparisons, lambda: console.print(str(output)))
    for one in comparisons:
        console.hint(conclude(one))


def _line(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
