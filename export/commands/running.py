"""``splitzoo export verify`` and ``run``, which run what a bundle holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...console import Beta, Console, Json, Trust

if TYPE_CHECKING:
    from splitrun.bundle import Bundle

    from ..running import ImageRun


BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")]
TimeLimit = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="SECONDS",
        help="Longest time for each half and image; --trust lifts it.",
    ),
]
MemoryLimit = Annotated[
    int,
    typer.Option(
        min=1, max=1_000_000, metavar="GIB", help="Most memory for each half; --trust lifts it."
    ),
]


def verify(
    bundle: BundleArgument,
    trust: Trust = False,
    time_limit: TimeLimit = 300,
    memory_limit: MemoryLimit = 8,
    json: Json = False,
) -> None:
    """Check a bundle again, or one half: files, manifest, graphs, tables, and what was recorded."""
    console = Console(json)
    with console.progress() as progress:
        progress.step("checking")
        from ... import export
        from ..running import RunLimits

        limits = RunLimits(time_limit, memory_limit)
        result = export.verify(bundle, trust=trust, limits=limits)

    def show() -> None:
        rows = [
            ("model", result.manifest.spec["name"]),
            ("files", f"{result.files} as the manifest says"),
            ("precision", result.manifest.precisions),
            *result.selftest.rows(),
            *((f"{half} half", "not here, not checked") for half in result.manifest.absent),
        ]
        console.table(str(bundle), ("", ""), rows)

    console.data(result, show)


def run(
    bundle: BundleArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[
        int, typer.Option(min=1, max=1000, help="Number of classes or objects to print.")
    ] = 5,
    beta: Beta = None,
    trust: Trust = False,
    time_limit: TimeLimit = 300,
    memory_limit: MemoryLimit = 8,
    json: Json = False,
) -> None:
    """Send images through both halves, each in its own process, and print the predictions."""
    from splitrun.bundle import open_bundle
    from splitrun.errors import check_files_used

    from ..running import ImageFault, ImageRun, RunLimits, run_some

    console = Console(json)
    limits = RunLimits(time_limit, memory_limit)
    waiting = run_some(bundle, images, top=top, beta=beta, trust=trust, limits=limits)
    found: list[ImageRun | ImageFault] = []
    while True:
        with console.progress() as progress:
            progress.step("running both halves")
            some = next(waiting, None)
        if some is None:
            break
        found += some
        for one in some:
            if isinstance(one, ImageRun) and not json:
                _show_run(console, one)
    faults = [one.error for one in found if isinstance(one, ImageFault)]
    results = [one for one in found if isinstance(one, ImageRun)]
    if json and (results or len(images) > 1):
        documents = [
            {"image": one.image, **one.error.document()} if isinstance(one, ImageFault) else one
            for one in found
        ]
        console.data(documents, lambda: None)
    if results:
        _hint_at_run(console, open_bundle(bundle), results[0])
    check_files_used("images", len(images), faults)


def _show_run(console: Console, result: "ImageRun") -> None:
    console.table(
        f"{result.image}: {result.stream_bytes:,} bytes sent",
        ("", ">"),
        [(what, amount) for amount, what in result.prediction.rows()],
    )


def _hint_at_run(console: Console, bundle: "Bundle", result: "ImageRun") -> None:
    wanted = bundle.device.graph.engine
    if wanted == "tensorrt" and result.engine.partition(" ")[0] != wanted:
        console.hint(f"{result.engine} ran the device graph: no TensorRT engine is here.")
    if bundle.manifest.provenance.weights == "random":
        console.hint("The weights are random: these predictions mean nothing.")
