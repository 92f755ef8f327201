"""``splitzoo zoo``: look models up, fetch, publish and import them."""

import math
from pathlib import Path
from typing import Annotated

import typer

from ..console import Console, Json, ModelArgument
from .calibration.cli import calibrate
from .conversion.cli import convert
from .kinds import Method, Task
from .train.cli import recipe, train

app = typer.Typer(no_args_is_help=True, help="Look up, fetch, publish and import models.")

Token = Annotated[
    str | None,
    typer.Option(help="Token for the Hub.", show_default="the one that `hf auth login` stored"),
]


def _finite(beta: float | None) -> float | None:
    if beta is not None and not math.isfinite(beta):
        raise typer.BadParameter("β is a finite number.")
    return beta


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern with *.")] = "*",
    task: Annotated[Task | None, typer.Option(help="Task of the models.")] = None,
    method: Annotated[Method | None, typer.Option(help="Method of the models.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Part of a backbone's name.")] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight β of the rate in training.", callback=_finite)
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="List models whose weights are on this machine.")
    ] = False,
    json: Json = False,
) -> None:
    """List the registered models."""
    from .catalog import list_models
    from .models import find_spec
    from .resolve import DEFAULT_MODEL

    console = Console(json)
    names = list_models(
        pattern, task=task, method=method, backbone=backbone, beta=beta, pretrained=pretrained
    )
    specs = [find_spec(name) for name in names]

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
    """Show what a model is: its parts, where it is cut, what is sent, how it is trained."""
    from .parts import describe
    from .resolve import ModelSource
    from .train.recipe import stages_of

    console = Console(json)
    with console.progress() as progress:
        progress.step("building")
        described = describe(ModelSource.of(model).spec())

    def table() -> None:
        spec = described.spec
        bottleneck = spec.bottleneck
        cut = f" after {spec.cut}" if spec.cut else ""
        edge = f"{bottleneck.edge}, " if bottleneck.edge else ""
        rows = spec.summary() | {
            "on the device": f"{bottleneck.device}; {described.device_parameters:,} parameters",
            "on the edge": f"{edge}{spec.backbone}{cut}; {described.edge_parameters:,} parameters",
        }
        rows |= {
            f"training stage {number}": (
                f"{stage.epochs} epochs, batch {stage.batch_size}, {stage.learning}, rate "
                f"{stage.optimizer.learning_rate:g}: {stage.objective}"
            )
            for number, stage in enumerate(stages_of(spec.name), 1)
        }
        rows["in sc2-benchmark"] = spec.reference or "—"
        console.table(spec.name, ("", ""), list(rows.items()))

    console.data(described, table)


@app.command()
def pull(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name, org/name or org/name@revision.")
    ],
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for the Hub's files.", show_default="huggingface-hub's"),
    ] = None,
    token: Token = None,
    json: Json = False,
) -> None:
    """Download a model's weights, so that it loads without a network."""
    from .resolve import ModelSource

    console = Console(json)
    source = ModelSource.of(model, cache_dir=cache_dir, token=token)
    if not source.is_assembled:
        folder = source.fetch()
        console.data({"model": model, "folder": folder}, lambda: console.print(str(folder)))
        console.hint(f"Next: splitzoo export split {model}")
        return
    with console.progress() as progress:
        progress.step("fetching the published parts")
        source.load()
    console.data({"model": model, "folder": None}, lambda: None)
    console.hint(f"{model} is made of published parts; they are in their libraries' caches.")
    if cache_dir is not None:
        console.hint("The files of torchvision and CompressAI, if any, are where torch.hub's are.")
    if token is not None:
        console.hint("Published parts need no token; --token was not used.")


app.command()(convert)
app.command()(calibrate)
app.command()(recipe)
app.command()(train)
