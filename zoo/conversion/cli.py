"""``splitzoo zoo convert``."""

import textwrap
from pathlib import Path

import typer

from ...console import Console
from .convert import Conversion, Outcome, convert, convert_all, find_checkpoints

_REASON_WIDTH = 240


def run(
    console: Console, checkpoint: Path, output: Path, *, name: str | None, everything: bool
) -> None:
    """Convert a checkpoint, or everything below a folder into folders in ``output``, and say so.

    Raises:
        SplitzooError: See :func:`.convert.convert`.
        typer.Exit: One of many failed; code 1.
    """
    if everything:
        if name is not None:
            raise typer.BadParameter("--name goes with one checkpoint, not with --all.")
        _run_all(console, checkpoint, output)
        return
    with console.progress() as progress:
        conversion = convert(checkpoint, output, name=name, progress=progress)
    console.data(conversion, lambda: _show(console, conversion))
    console.hint(f"Next: splitzoo export split {output}")


def _show(console: Console, conversion: Conversion) -> None:
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


def _run_all(console: Console, folder: Path, output: Path) -> None:
    paths = find_checkpoints(folder)
    with console.progress() as progress:
        outcomes = list(convert_all(progress.track(paths, "converting"), output))
    console.data(outcomes, lambda: _summary(console, outcomes))
    if any(outcome.status == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _summary(console: Console, outcomes: list[Outcome]) -> None:
    rows = (
        (Path(outcome.checkpoint).name, outcome.status, _result(outcome)) for outcome in outcomes
    )
    console.table("", ("checkpoint", "", "to, or why not"), rows)
    counts = [
        f"{sum(outcome.status == status for outcome in outcomes)} {status}"
        for status in ("converted", "skipped", "failed")
    ]
    console.hint(", ".join(counts) + ".")


def _result(outcome: Outcome) -> str:
    if outcome.conversion is None:
        return textwrap.shorten(outcome.reason, _REASON_WIDTH, placeholder=" … (all of it: --json)")
    return outcome.conversion.folder
