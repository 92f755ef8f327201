"""``splitzoo zoo push``: a model, its config and its card to the Hub, in one commit."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .console import Console, Json
from .zoo.completion import complete_model


def push(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME_OR_FOLDER",
            help="A saved model's folder, or a name.",
            autocompletion=complete_model,
        ),
    ],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the Hub.")],
    private: Annotated[
        bool,
        typer.Option(
            "--private",
            help="Make the repository private; one that exists must be private already.",
        ),
    ] = False,
    message: Annotated[
        str | None, typer.Option("-m", "--message", help="Message of the commit.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Token for the Hub.", show_default="the one that `hf auth login` stored"),
    ] = None,
    json: Json = False,
) -> None:
    """Publish a model on the Hub: weights, config and card in one commit."""
    from . import cards
    from .zoo.catalog import save
    from .zoo.config import read_config
    from .zoo.hub_push import CARD_NAME, push_model
    from .zoo.resolve import ModelSource

    console = Console(json)
    with console.progress() as progress, tempfile.TemporaryDirectory() as temporary:
        source = ModelSource.of(model)
        folder = source.folder or source.bundle
        if folder is None:
            progress.step(f"loading {model}")
            folder = save(source.load(), Path(temporary) / "model")
        read_config(folder)
        card = folder / CARD_NAME
        if not card.is_file():
            progress.step("writing the card")
            card = cards.build(Path(temporary) / "card", folder.absolute(), repository=repository)
        progress.step(f"sending to {repository}")
        url = push_model(
            folder, repository, private=private, token=token, message=message, card=card
        )
    console.data({"repository": repository, "url": url}, lambda: console.print(url))
    console.hint(f'Next: zoo.load("{repository}"), or: splitzoo zoo pull {repository}')
