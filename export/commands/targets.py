"""``splitzoo export targets`` and ``prepare``."""

from typing import Annotated

import typer

from ...console import Console, Json


def complete_target(incomplete: str) -> list[str]:
    """Return the targets whose names begin so."""
    from ..targets import TARGETS

    return [name for name in TARGETS.names() if name.startswith(incomplete)]


def targets(json: Json = False) -> None:
    """List where the halves can run, and in which precisions."""
    from ..targets import TARGETS

    console = Console(json)
    found = [
        {
            "name": target.name,
            "description": target.description,
            "precisions": target.precisions,
            "edges": {format.engine: format.edge_precisions for format in target.edges},
            "missing": target.missing(),
        }
        for target in TARGETS
    ]

    def show() -> None:
        rows = [
            (
                target.name,
                target.description,
                ", ".join(target.precisions),
                "; ".join(
                    f"{format.engine}: {', '.join(format.edge_precisions)}"
                    for format in target.edges
                ),
                ", ".join(target.missing()),
            )
            for target in TARGETS
        ]
        console.table("targets", ("name", "halves", "precisions", "edge", "to install"), rows)

    console.data(found, show)


def prepare(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Target whose converter needs an environment of its own.",
            autocompletion=complete_target,
        ),
    ],
    json: Json = False,
) -> None:
    """Make the environment that a target's converter runs in, in the user's cache folder."""
    from splitrun.errors import DependencyError

    from ..targets import TARGETS

    console = Console(json)
    environment = TARGETS.get(target).device.environment
    if environment is None:
        raise DependencyError(
            f"The target {target} needs no environment of its own.",
            next_step=f"splitzoo export split --target {target}",
        )
    with console.progress() as progress:
        progress.step(f"installing {', '.join(environment.requirements)}")
        environment.make()
    found = {"target": target, "folder": str(environment.folder), **environment.versions}
    console.data(found, lambda: console.table("", ("", ""), list(found.items())))
