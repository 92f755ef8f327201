"""``splitzoo zoo train`` and ``splitzoo zoo recipe``."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...console import Console, Json, command_line
from ...progress import SILENT


def recipe(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Of a recipe, of a model or experiment that one trains, or a YAML file.",
            show_default="list all",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the training recipes, or print one: a file to begin your own with."""
    from .recipe import FOLDER, find_recipe, read_recipe, recipes

    console = Console(json)
    if name is None:
        known = recipes()

        def table() -> None:
            rows = [
                (
                    stem,
                    str(len(one.models)),
                    ", ".join(str(s.epochs) for s in one.stages),
                    one.about,
                )
                for stem, one in known.items()
            ]
            console.table("", ("recipe", "models>", "epochs", "what it does"), rows)

        console.data({stem: one.names() for stem, one in known.items()}, table)
        console.hint("Read one: splitzoo zoo recipe RECIPE. Train a model of it by its name.")
        return
    if name.endswith((".yaml", ".yml")):
        found, path = read_recipe(Path(name)), Path(name)
    else:
        known = recipes()
        stem = name if name in known else find_recipe(name)[0]
        found, path = known[stem], FOLDER / f"{stem}.yaml"
    text = path.read_text(encoding="utf-8")
    console.data(found, lambda: console.print(text.rstrip("\n")))


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A model or experiment that a recipe trains, or a YAML file."
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="DIR", help="Of the data set.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Folder to write.")],
    model: Annotated[
        str, typer.Option(help="The one to train, where the recipe has several.")
    ] = "",
    epochs: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Of all stages; or give it once for each.", show_default="recipe"),
    ] = None,
    teacher: Annotated[
        str, typer.Option(metavar="MODEL", help="In place of the recipe's teacher.")
    ] = "",
    start: Annotated[
        str,
        typer.Option(metavar="MODEL", help="In place of the model that the recipe starts from."),
    ] = "",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=1 << 31)] = 0,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Processes that read images.")] = 1,
    mixed_precision: Annotated[
        Literal["no", "fp16", "bf16"], typer.Option(help="For a GPU that has it.")
    ] = "no",
) -> None:
    """Train a model from a recipe; begun anew with --resume, it goes on where it was stopped.

    Several processes: accelerate launch -m splitzoo zoo train … with the same words.
    """
    from .plan import Plan, with_epochs
    from .recipe import find_recipe
    from .run import train as run

    console = Console()
    name, found, spec = find_recipe(recipe, model)
    plan = Plan(
        name=name,
        recipe=with_epochs(found, epochs or ()),
        spec=spec,
        data=data,
        run=output,
        teacher=teacher,
        start=start,
        seed=seed,
        workers=workers,
        mixed_precision=mixed_precision,
        command=command_line(),
    )
    shown = os.environ.get("RANK", "0") == "0"
    if shown:
        console.hint(f"Training {spec.name}. Interrupted, it goes on with --resume.")
    with console.progress() if shown else nullcontext(SILENT) as progress:
        folder = run(plan, progress, resume=resume)
    if shown:
        console.print(str(folder))
        console.hint(f"Next: splitzoo profile accuracy {folder} --data {data}")
