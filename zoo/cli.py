"""``splitzoo zoo``: look models up, fetch, publish and import them."""

import math
from pathlib import Path
from typing import Annotated

import typer

from ..console import Console, Json
from .calibration.cli import calibrate
from .completion import ModelArgument, complete_model
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
    pattern: Annotated[
        str,
        typer.Argument(help="Part of a name, or a pattern with *.", autocompletion=complete_model),
    ] = "*",
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
    from .catalog import has_weights, list_models
    from .measures import listed
    from .models import find_spec
    from .resolve import DEFAULT_MODEL

    console = Console(json)
    names = list_models(
        pattern, task=task, method=method, backbone=backbone, beta=beta, pretrained=pretrained
    )
    models = [listed(find_spec(name), weights_at_hand=has_weights(name)) for name in names]

    def show() -> None:
        columns = ("name", "task", "method", "rate set by", "accuracy>", "bytes>")
        rows = (
            (
                *(model.spec.name, model.spec.task, model.spec.method, model.spec.strength),
                *(model.accuracy, model.stream_bytes, model.bits),
                "here" if model.weights_at_hand else "",
            )
            for model in models
        )
        console.table("", (*columns, "encoder bits>", "weights"), rows)

    console.data(models, show)
    if DEFAULT_MODEL in names:
        console.hint(f"The default is {DEFAULT_MODEL}.")
    if any(model.measured for model in models):
        console.hint("Accuracy and bytes per image were measured: splitzoo zoo show NAME")
    if not models:
        console.hint("No model matches. All of them: splitzoo zoo list")


@app.command()
def show(model: ModelArgument, json: Json = False) -> None:
    """Show what a model is: its parts, where it is cut, what is sent, how it is trained."""
    from .metrics import NAMES
    from .parts import describe
    from .resolve import ModelSource
    from .train.recipe_files import stages_of

    console = Console(json)
    with console.progress() as progress:
        progress.step("building")
        source = ModelSource.of(model)
        described = describe(source.spec(), weights_at_hand=source.is_at_hand)

    def table() -> None:
        spec = described.spec
        bottleneck = spec.bottleneck
        cut = f" after {spec.cut}" if spec.cut else ""
        edge = f"{bottleneck.edge}, " if bottleneck.edge else ""
        rows = spec.summary() | {
            "on the device": f"{bottleneck.device}; {described.device_parameters:,} parameters",
            "on the edge": f"{edge}{spec.backbone}{cut}; {described.edge_parameters:,} parameters",
            "encoder size": f"{described.encoder_bits:,} bits (Eq. 1 of the SC2 paper)",
            "weights": "on this machine" if described.weights_at_hand else "not on this machine",
        }
        if measured := described.measured:
            rows["measured"] = (
                ", ".join(f"{NAMES[name]} {score:.2%}" for name, score in measured.scores.items())
                + f", {measured.stream_bytes:,.0f} bytes per image; {measured.images} images of "
                f"{measured.data}/"
            )
            rows |= {
                f"at {rate.set_by}": f"{rate.score:.2%}, {rate.stream_bytes:,.0f} bytes per image"
                for rate in measured.rates
            }
            rows["by"] = measured.command
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
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name, org/name or org/name@revision.",
            autocompletion=complete_model,
        ),
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
