"""``splitzoo zoo convert``."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...console import Console, Force, Json

if TYPE_CHECKING:
    from .convert import Conversion, Outcome

_REASON_WIDTH = 240


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(metavar="CKPT", help="A .pt file of sc2-benchmark, or a folder with --all."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")],
    name: Annotated[
        str | None,
        typer.Option(help="Name of the model.", show_default="what the file's name says"),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Convert every checkpoint in the folder CKPT and below.")
    ] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Turn checkpoints of sc2-benchmark into folders that zoo.load reads."""
    from .convert import convert, convert_all, find_checkpoints

    console = Console(json)
    if not all_:
        with console.progress() as progress:
            conversion = convert(checkpoint, output, name=name, force=force, progress=progress)
        console.data(conversion, lambda: _show(console, conversion))
        console.hint(f"Next: splitzoo export split {output}")
        return
    if name is not None:
        raise typer.BadParameter("--name goes with one checkpoint, not with --all.")
    paths = find_checkpoints(checkpoint)
    with console.progress() as progress:
        outcomes = list(convert_all(progress.track(paths, "converting"), output, force=force))
    console.data(outcomes, lambda: _summary(console, outcomes))
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _show(console: Console, conversion: "Conversion") -> None:
    rows = [
        ("model", conversion.name),
        ("from", conversion.checkpoint),
        ("SHA-256", conversion.sha256),
        ("tensors", f"{conversion.tensors:,}"),
        *(("left out", f"{len(left.names)} {left.reason}") for left in conversion.left_out),
    ]
    if conversion.beside:
        rows.append(("left out", f"{', '.join(conversion.beside)}: state of the training"))
    console.table(conversion.folder, ("", ""), rows)


def _summary(console: Console, outcomes: "list[Outcome]") -> None:
    rows = (
        (Path(outcome.checkpoint).name, outcome.status, _result(outcome)) for outcome in outcomes
    )
    console.table("", ("checkpoint", "", "to, or why not"), rows)
    counts = [
        f"{sum(outcome.status == status for outcome in outcomes)} {status}"
        for status in ("converted", "skipped", "failed")
    ]
    console.hint(", ".join(counts) + ".")


def _result(outcome: "Outcome") -> str:
    if outcome.conversion is None:
        return textwrap.shorten(outcome.reason, _REASON_WIDTH, placeholder=" … (all of it: --json)")
    return outcome.conversion.folder
