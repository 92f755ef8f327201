"""``splitzoo cards``: write and read model cards."""

from collections import Counter
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
    family: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Reports of profile accuracy of other models and codecs, for the R-D curve.",
            show_default="the package's results on the same images",
        ),
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
        from .writing import build as write

        path = write(
            output,
            model,
            bundle=bundle,
            profile=profile,
            accuracy=accuracy,
            family=family,
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


@app.command()
def verify(
    card: Annotated[
        list[str],
        typer.Argument(metavar="CARD...", help="Cards, their folders, or repositories on the Hub."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images that accuracy and bytes were measured on."),
    ] = None,
    bundle: Annotated[
        bool,
        typer.Option(
            "--bundle/--no-bundle", help="Export a bundle again, to compare its files and time it."
        ),
    ] = True,
    json: Json = False,
) -> None:
    """Compute again what cards say. Exit code 3 where a number differs; each is listed.

    Bits, operations and digests are always computed; accuracy and bytes with --data. Latency is
    shown beside what it is here.
    """
    console = Console(json)
    found = []
    for one in card:
        with console.progress() as progress:
            from .verification import verify as check

            found.append(check(one, data=data, bundle=bundle, progress=progress))

    def show() -> None:
        for done in found:
            console.table(
                f"{done.model}, {done.card}",
                ("number", "card>", "here>", ""),
                [
                    (check.name, _short(check.card), _short(check.here), check.verdict)
                    for check in done.checks
                    if check.verdict != "not checked"
                ],
            )
            for note, count in Counter(one.note for one in done.checks if one.here is None).items():
                console.print(f"{count} not checked: {note}.")

    console.data(found, show)
    for done in found:
        for check in done.differences:
            console.hint(f"{done.card}: {check.name} is {check.card}, here {check.here}.")
    if differing := sum(len(done.differences) for done in found):
        console.hint(f"{differing} numbers or lines differ.")
        raise typer.Exit(3)
    console.hint("Nothing differs.")


@app.command()
def gallery(
    cards: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of cards, at any depth.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")],
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a static site of cards: a table to sort and filter, plots, a page for each model.

    It works from a file and on any server of files, such as a static Space of the Hub.
    """
    from splitrun.files import check_free

    console = Console(json)
    check_free(output, force=force)
    with console.progress() as progress:
        progress.step("writing the site")
        from .gallery.site import build_gallery

        page = build_gallery(cards, output, force=force)
    console.data({"page": page}, lambda: console.print(str(page)))


@app.command("add-measurement")
def add_measurement(
    card: Annotated[Path, typer.Argument(metavar="CARD", help="A card, or its folder.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Output of python -m splitrun bench --json, or a bundle's engines/engine.json.",
        ),
    ],
    json: Json = False,
) -> None:
    """Add what a machine measured to a card's table of machines."""
    from .writing import add_measurement as add

    console = Console(json)
    path = add(card, file)
    console.data({"card": path}, lambda: console.print(str(path)))


def _short(value: object) -> str:
    text = "" if value is None else f"{value:,.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _line(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
