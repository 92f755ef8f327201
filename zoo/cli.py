"""``splitzoo zoo``: look models up."""

from typing import Annotated

import typer

from ..console import Console, Json

app = typer.Typer(no_args_is_help=True, help="Look up models.")


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern with *.")] = "*",
    task: Annotated[str | None, typer.Option(help="Such as image-classification.")] = None,
    method: Annotated[str | None, typer.Option(help="Such as entropic-student.")] = None,
    json: Json = False,
) -> None:
    """List the registered models."""
    from .catalog import DEFAULT_MODEL, get_spec, list_models

    console = Console(json)
    specs = [get_spec(name) for name in list_models(pattern, task=task, method=method)]

    def show() -> None:
        rows = (
            (
                spec.name,
                spec.task,
                spec.method,
                f"{spec.beta:g}",
            )
            for spec in specs
        )
        console.table("", ("name", "task", "method", "β>"), rows)

    console.data(specs, show)
    if DEFAULT_MODEL in (spec.name for spec in specs):
        console.hint(f"The default is {DEFAULT_MODEL}.")
    if not specs:
        console.hint("No model matches. All of them: splitzoo zoo list")


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A registered name, or a saved model's folder.")],
    json: Json = False,
) -> None:
    """Print what a model is: sizes, cut, input, training."""
    from .catalog import get_spec

    console = Console(json)
    spec = get_spec(model)

    def table() -> None:
        channels, height, width = spec.latent_shape
        bottleneck, preprocessing = spec.bottleneck, spec.preprocessing
        rows = [
            ("task", spec.task),
            ("method", f"{spec.method}, {bottleneck.kind} bottleneck, β {spec.beta:g}"),
            ("backbone", f"{spec.backbone}, its first layers replaced"),
            ("input", "×".join(map(str, spec.input_shape)) + " float32"),
            (
                "preprocessing",
                f"shorter side to {preprocessing.resize}, {preprocessing.interpolation}, "
                f"centre crop {preprocessing.crop[0]}×{preprocessing.crop[1]}",
            ),
            ("encoder (device)", f"channels {_arrows((3, *bottleneck.encoder_channels))}"),
            (
                "on the wire",
                f"{channels}×{height}×{width} = {channels * height * width:,} symbols, "
                "entropy-coded",
            ),
            (
                "decoder (edge)",
                f"channels {_arrows((channels, *bottleneck.decoder_channels))}, then the backbone",
            ),
            ("data set", f"{spec.dataset}, {spec.num_classes} classes"),
            *(
                (
                    f"training stage {number}",
                    f"{stage.epochs} epochs, batch {stage.batch_size}, {stage.optimizer}, rate "
                    f"{stage.learning_rate:g}, cut after {', '.join(map(str, stage.milestones))}: "
                    f"{stage.loss}",
                )
                for number, stage in enumerate(spec.training, 1)
            ),
            ("in sc2-benchmark", spec.reference or "—"),
        ]
        console.table(spec.name, ("", ""), rows)

    console.data(spec, table)


def _arrows(sizes: tuple[int, ...]) -> str:
    return " → ".join(map(str, sizes))
