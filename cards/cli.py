"""``splitzoo cards``: write and read model cards."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Console, Force, Json
from ..zoo.completion import complete_model

app = typer.Typer(no_args_is_help=True, help="Write and read model cards.")


@app.command()
def build(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A name, or a saved model's folder.",
            autocompletion=complete_model,
            show_default="the model of the bundle or report, else the default model",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Bundle whose parity and hashes to show.")
    ] = None,
    profile: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Report of profile encoder.")
    ] = None,
    accuracy: Annotated[
        Path | None, typer.Option(metavar="JSON", help="Report of profile accuracy.")
    ] = None,
    tradeoff: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of profile tradeoff, for its figure.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write.", show_default="MODEL-card"),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a model card with a diagram of the split. It shows only what was measured."""
    console = Console(json)
    with console.progress() as progress:
        progress.step("writing the card")
        from . import card

        path = card.build(
            output,
            model,
            bundle=bundle,
            profile=profile,
            accuracy=accuracy,
            tradeoff=tradeoff,
            force=force,
        )
    console.data({"card": path}, lambda: console.print(str(path)))
    if profile is None:
        console.hint("Size and latency are missing: splitzoo profile encoder -o report.json")
    if accuracy is None:
        console.hint("Accuracy is missing: splitzoo profile accuracy --data DIR -o acc.json")
    if bundle is None:
        console.hint("Parity and hashes are missing. Make a bundle: splitzoo export split")
    console.hint(f"Read it: splitzoo cards show {path.parent}")


@app.command()
def show(
    card: Annotated[
        str,
        typer.Argument(
            metavar="CARD",
            help="A card, its folder, or a model's name.",
            autocompletion=complete_model,
        ),
    ],
    json: Json = False,
) -> None:
    """Print a card in the terminal."""
    from ..zoo.hub_push import CARD_NAME
    from .card import gather, read, render

    console = Console(json)
    path = Path(card)
    if path.is_dir():
        path /= CARD_NAME
    shown = read(path) if path.is_file() else render(gather(card))
    data = shown.data.to_dict()

    def terminal() -> None:
        rows = [(key, _line(value)) for key, value in data.items() if key != "model-index"]
        measured = getattr(shown.data, "eval_results", None) or ()
        rows += [(one.metric_name, f"{one.metric_value}, {one.dataset_name}") for one in measured]
        console.table("", ("", ""), rows)
        console.markdown(shown.text)

    console.data({"metadata": data, "text": shown.text}, terminal)


def _line(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
