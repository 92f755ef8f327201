"""``splitzoo zoo``: look models up, fetch, publish and import them."""

import math
from pathlib import Path
from typing import Annotated

import typer

from ..console import Console, Json, ModelArgument
from .calibration.cli import calibrate
from .kinds import Method, Task
from .train.cli import recipe, train

app = typer.Typer(no_args_is_help=True, help="Look up, fetch, publish and import models.")

Token = Annotated[
    str | None,
    typer.Option(help="Of the Hub.", show_default="the one that `hf auth login` stored"),
]


def _finite(beta: float | None) -> float | None:
    if beta is not None and not math.isfinite(beta):
        raise typer.BadParameter("β is a finite number.")
    return beta


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern with *.")] = "*",
    task: Annotated[Task | None, typer.Option(help="Keep the models of this task.")] = None,
    method: Annotated[Method | None, typer.Option(help="Keep the models of this method.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Part of a backbone's name.")] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the rate in training.", callback=_finite)
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Only models whose weights lie on this machine.")
    ] = False,
    json: Json = False,
) -> None:
    """List the registered models."""
    from .catalog import DEFAULT_MODEL, get_spec, list_models

    console = Console(json)
    specs = [
        get_spec(name)
        for name in list_models(
            pattern,
            task=task,
            method=method,
            backbone=backbone,
            beta=beta,
            pretrained=pretrained,
        )
    ]

    def show() -> None:
        rows = ((spec.name, spec.task, spec.method, spec.strength) for spec in specs)
        console.table("", ("name", "task", "method", "rate set by"), rows)

    console.data(specs, show)
    if DEFAULT_MODEL in (spec.name for spec in specs):
        console.hint(f"The default is {DEFAULT_MODEL}.")
    if not specs:
        console.hint("No model matches. All of them: splitzoo zoo list")


@app.command()
def show(model: ModelArgument, json: Json = False) -> None:
    """Print what a model is: its parts, where it is cut, what crosses the link, training."""
    from .catalog import get_spec
    from .description import describe
    from .train.recipe import stages_of

    console = Console(json)
    with console.progress() as progress:
        progress.step("building")
        described = describe(get_spec(model))

    def table() -> None:
        spec = described.spec
        bottleneck = spec.bottleneck
        cut = f"after {spec.cut}" if spec.cut else "in front of it"
        rows = [
            ("task", spec.task),
            ("method", f"{spec.method}, {bottleneck.kind} bottleneck, {spec.strength}"),
            ("backbone", f"{spec.backbone}, cut {cut}"),
            ("input", f"{_by(spec.input_shape)} float32"),
            ("preprocessing", spec.preprocessing.summary()),
            ("on the device", f"{bottleneck.device}; {described.device_parameters:,} parameters"),
            *(
                ("on the wire" if number == 0 else "", f"{one.name} {_by(one.shape)} {one.dtype}")
                for number, one in enumerate(described.wire)
            ),
            (
                "on the edge",
                f"{bottleneck.edge + ', ' if bottleneck.edge else ''}{spec.backbone}"
                f"{' ' + cut if spec.cut else ''}; {described.edge_parameters:,} parameters",
            ),
            ("data set", f"{spec.dataset}, {spec.num_classes} classes"),
            *(
                (
                    f"training stage {number}",
                    f"{stage.epochs} epochs, batch {stage.batch_size}, {stage.learning}, rate "
                    f"{stage.optimizer.learning_rate:g}: {stage.objective}",
                )
                for number, stage in enumerate(stages_of(spec.name), 1)
            ),
            ("in sc2-benchmark", spec.reference or "—"),
        ]
        console.table(spec.name, ("", ""), rows)

    console.data(described, table)


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name, org/name or org/name@revision.")
    ],
    cache_dir: Annotated[
        Path | None, typer.Option(help="Of the Hub's files.", show_default="huggingface-hub's own")
    ] = None,
    token: Token = None,
) -> None:
    """Fetch a model's weights from the Hub, so that it loads without a network."""
    from .catalog import fetch, get_spec, is_assembled, load
    from .source import Source

    console = Console()
    name = Source.of(model).name
    if name is not None and is_assembled(get_spec(name)):
        with console.progress() as progress:
            progress.step("fetching the published parts")
            load(name, cache_dir=cache_dir)
        console.hint(f"{name} is made of published parts; they are in their libraries' caches.")
        if cache_dir is not None:
            console.hint("The files of torchvision and CompressAI, if any, are torch.hub's.")
        if token is not None:
            console.hint("Published parts need no token; --token was not used.")
        return
    folder = fetch(model, cache_dir=cache_dir, token=token)
    console.print(str(folder))
    console.hint(f"Next: splitzoo export split {model}")


@app.command()
def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="A .pt file of sc2-benchmark, or a folder.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    name: Annotated[
        str | None,
        typer.Option(help="Of the model.", show_default="what the file's name says"),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Convert every checkpoint below the folder CKPT.")
    ] = False,
    json: Json = False,
) -> None:
    """Turn checkpoints of sc2-benchmark into folders that zoo.load reads."""
    from .conversion.cli import run

    run(Console(json), checkpoint, output, name=name, everything=all_)


app.command()(calibrate)
app.command()(recipe)
app.command()(train)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
