"""The commands ``splitzoo zoo train`` and ``splitzoo zoo recipe``."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from ...console import Console, Json, command_line
from ...progress import SILENT
from ..completion import complete_recipe


class Tracker(StrEnum):
    """The trackers of accelerate."""

    AIM = "aim"
    CLEARML = "clearml"
    COMET_ML = "comet_ml"
    DVCLIVE = "dvclive"
    MLFLOW = "mlflow"
    SWANLAB = "swanlab"
    TENSORBOARD = "tensorboard"
    TRACKIO = "trackio"
    WANDB = "wandb"


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        autocompletion=complete_recipe,
        help="Name of a model or experiment that a recipe trains, of a recipe, or a YAML file.",
    ),
]
Epochs = Annotated[
    list[int] | None,
    typer.Option(
        min=1,
        help="Number of epochs of each stage; repeat for one number per stage.",
        show_default="recipe",
    ),
]
Teacher = Annotated[
    str, typer.Option(metavar="MODEL", help="Teacher to use in place of the recipe's.")
]
Start = Annotated[
    str, typer.Option(metavar="MODEL", help="Model to start from in place of the recipe's.")
]
TrainingSeed = Annotated[
    int,
    typer.Option(min=0, max=1 << 31, help="Seed for weights, order, augmentation and noise."),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=256,
        help="Number of processes that read images.",
        show_default="one per core but one, up to 8",
    ),
]
MixedPrecision = Annotated[
    Literal["no", "fp16", "bf16"],
    typer.Option(help="Mixed precision, on hardware that has it."),
]


def recipe(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            autocompletion=complete_recipe,
            help="Name of a recipe, or of a model or experiment that one trains; or a YAML file.",
            show_default="list all",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the training recipes, or print one as a start for your own."""
    from .recipe_files import FOLDER, YAML_SUFFIXES, find_recipe, read_recipe, recipes

    console = Console(json)
    if name is None:
        known = recipes()
        rows = [
            (
                stem,
                len(one.models),
                ", ".join(str(s.epochs) for s in one.stages),
                " ".join(one.sources) + " (paper)" * bool(one.paper_stages),
                one.about,
            )
            for stem, one in known.items()
        ]
        console.data(
            {stem: one.names() for stem, one in known.items()},
            lambda: console.table(
                "", ("recipe", "models>", "epochs", "source", "what it does"), rows
            ),
        )
        console.hint(
            "(paper): the text differs, and holds with --source paper. "
            "Print one: splitzoo zoo recipe RECIPE. Train a model by its name."
        )
        return
    if name.endswith(YAML_SUFFIXES):
        path = Path(name)
    else:
        path = FOLDER / f"{name if name in recipes() else find_recipe(name)[0]}.yaml"
    found, text = read_recipe(path), path.read_text(encoding="utf-8")
    console.data(found, lambda: console.print(text.rstrip("\n")))


def train(
    recipe: RecipeArgument,
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of the data set: train/ and val/ with a folder per class, COCO 2017 or "
            "PASCAL VOC 2012.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="RUN",
            help="Folder for log, checkpoint and trained model; one that holds a run is refused, "
            "or with --resume continued.",
        ),
    ],
    model: Annotated[str, typer.Option(help="Model to train, if the recipe has several.")] = "",
    epochs: Epochs = None,
    source: Annotated[
        Literal["paper", "repository"] | None,
        typer.Option(
            help="Source of the values: the SC2 paper's text, or its repository sc2-benchmark.",
            show_default="recipe",
        ),
    ] = None,
    teacher: Teacher = "",
    start: Start = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    seed: TrainingSeed = 0,
    workers: Workers = None,
    mixed_precision: MixedPrecision = "no",
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Leave out images that cannot be read; all are checked before training begins.",
        ),
    ] = False,
    accept_changed_data: Annotated[
        bool,
        typer.Option(
            "--accept-changed-data",
            help="With --resume, continue though images were added, removed or changed.",
        ),
    ] = False,
    tracker: Annotated[
        list[Tracker] | None,
        typer.Option(
            help="Tracker to log to as well; repeat for several.",
            show_default="none",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a model from a recipe. With --resume, an interrupted run continues where it stopped.

    With several processes: accelerate launch -m splitzoo zoo train … with the same arguments.
    """
    from ..threads import let_threads_sleep

    let_threads_sleep()
    from ..config import read_config
    from .plan import Plan, default_workers
    from .recipe_files import find_recipe
    from .run import train as run

    console = Console(json)
    name, found, spec = find_recipe(recipe, model)
    found = found.of_source(source) if source else found
    plan = Plan(
        name=name,
        recipe=found.with_epochs(epochs or ()),
        spec=spec,
        data=data,
        run=output,
        teacher=teacher,
        start=start,
        seed=seed,
        workers=default_workers() if workers is None else workers,
        mixed_precision=mixed_precision,
        skip_unreadable=skip_unreadable,
        accept_changed_data=accept_changed_data,
        trackers=tuple(tracker or ()),
        command=command_line(),
    )
    if os.environ.get("RANK", "0") != "0":  # of several processes, the first one speaks
        run(plan, SILENT, resume=resume)
        return
    with console.progress() as progress:
        folder = run(plan, progress, resume=resume)
    result = {"folder": folder, "training": read_config(folder).training}
    console.data(result, lambda: console.print(str(folder)))
    console.hint(f"Next: splitzoo profile accuracy {folder} --data {data}")
