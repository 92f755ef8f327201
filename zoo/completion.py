"""What a shell completes: names of models and recipes. Imports no torch.

``splitzoo --install-completion`` teaches bash, zsh, fish and PowerShell to ask for it.
"""

from typing import Annotated

import typer


def complete_model(incomplete: str) -> list[str]:
    """Return the registered models whose names begin so; of other names the shell takes files."""
    from .models import registered

    return [name for name in registered().names() if name.startswith(incomplete)]


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes, and the models that they train, whose names begin so."""
    from .train.recipe_files import recipes

    known = recipes()
    names = dict.fromkeys([*known, *(name for one in known.values() for name in one.names())])
    return [name for name in names if name.startswith(incomplete)]


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A name, a saved model's folder, or a repository on the Hub.",
        autocompletion=complete_model,
    ),
]
