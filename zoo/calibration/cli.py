"""The command ``splitzoo zoo calibrate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...console import Console, Force, Json, command_line
from ..completion import ModelArgument

if TYPE_CHECKING:
    from .record import CalibrationRecord


def calibrate(
    model: ModelArgument,
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder of images like those that the model will see."),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write the model to.")
    ],
    images: Annotated[
        int | None,
        typer.Option(
            min=8,
            max=1 << 16,
            help="Number of images to use, as far as memory allows.",
            show_default="384",
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Fit a model's entropy tables to images: fewer bytes, the same outputs."""
    from ..threads import let_threads_sleep

    let_threads_sleep()
    from splitrun.files import check_free

    from ..catalog import save
    from ..resolve import ModelSource
    from .calibrate import calibrate as run
    from .images import MOST_IMAGES

    console = Console(json)
    check_free(output, force=force)
    with console.progress() as progress:
        progress.step("loading")
        found = ModelSource.of(model).load()
        progress.step("fitting entropy tables")
        done = run(
            found,
            data,
            most=images or MOST_IMAGES,
            command=command_line(),
            progress=progress,
        )
    save(found, output, force=force)
    if done is None:
        console.data(None, lambda: None)
        console.hint(f"No new tables send less; {output} holds the best of those that it had.")
        return
    console.data(done.record, lambda: show(console, str(output), done.record))
    console.hint(f"Next: splitzoo export split {output}")


def show(console: Console, title: str, record: "CalibrationRecord") -> None:
    """Print what calibration compared."""
    rows = [
        (
            name + (", kept" if name == record.kept else ""),
            f"{mean:,.1f}",
            f"{mean / record.before:.2f}",
        )
        for name, mean in record.payload_bytes.items()
    ]
    console.table(
        f"{title}: payload of {record.held_out} images, fitted to {record.fitted} others",
        ("coding", "bytes per image>", "of the first>"),
        rows,
    )
