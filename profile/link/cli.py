"""``splitzoo profile link``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitrun.sending.links import LINK_NAMES

from ...console import Beta, Console, Force, Json, Trust, command_line

if TYPE_CHECKING:
    from .run import LinkReport


def link(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle with both halves.")],
    images: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder of images; folders that are named after labels are truth."
        ),
    ],
    link: Annotated[
        str,
        typer.Option(help=f"Link to be as slow as: {LINK_NAMES}."),
    ],
    rtt: Annotated[
        float,
        typer.Option(min=0, max=60_000, metavar="MS", help="Round trip of an empty message."),
    ] = 0.0,
    every: Annotated[
        float,
        typer.Option(
            min=0,
            max=3_600_000,
            metavar="MS",
            help="Time between two images; 0 begins one when the last is answered.",
        ),
    ] = 0.0,
    beta: Beta = None,
    whole: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="Bundle of a whole network behind an image codec, for JPEG, WebP and AVIF. "
            "[default: the model's teacher where its weights are at hand, or both halves]",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, max=1024, help="Number of threads; 0 lets the engine choose.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Folder for link.json, and the plot as SVG and PNG.",
        ),
    ] = None,
    trust: Trust = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure the time from an image to its answer over a link, step by step.

    The halves run in two processes, joined by a socket that is as slow as the link. Beside them:
    JPEG, WebP and AVIF before the whole network, in the least bytes with which it does as well,
    and the whole network on the device.
    """
    from splitrun.files import check_free, new_folder
    from splitrun.image_files import list_images
    from splitrun.sending.links import read_link

    console = Console(json)
    slow = read_link(link)
    found = list_images(images)
    if output:
        check_free(output, force=force)
    with console.progress() as progress:
        progress.step("loading")
        from .run import measure_link

        report = measure_link(
            bundle,
            found,
            slow,
            rtt_ms=rtt,
            every_ms=every,
            beta=beta,
            whole=whole,
            threads=threads,
            trust=trust,
            command=command_line(),
            progress=progress,
        )
        if output:
            from .plot import draw_link

            with new_folder(output, force=force) as temporary:
                report.save(temporary / "link.json")
                draw_link(report, temporary)
    console.data(report, lambda: _show_link(console, report))
    if output:
        console.hint(f"Written to {output}: link.json; link.svg, link-dark.svg, both as PNG")


def _show_link(console: Console, report: "LinkReport") -> None:
    steps = list(report.ways[0].stages)
    at = "" if report.beta is None else f" at β {report.beta:g}"
    console.table(
        f"{report.images} images{at} over {report.link.name}, "
        f"{report.link.bits_per_second / 1e3:,.6g} kbit/s, "
        f"round trip {report.rtt_ms:g} ms; median ms of each step",
        (
            *("way", "quality>", f"{report.score_of}>", "bytes>", "on the air>"),
            *(f"{step}>" for step in steps[:-1]),
            *("total>", "p90>", "p99>"),
        ),
        [
            (
                way.name,
                "" if way.quality is None else str(way.quality),
                f"{way.score:.1%}",
                f"{way.bytes_mean:,.0f}",
                f"{way.air_bytes_mean:,.0f}",
                *(f"{way.stages[step].p50_ms:,.1f}" for step in steps),
                *(f"{ms:,.1f}" for ms in (way.stages["total"].p90_ms, way.stages["total"].p99_ms)),
            )
            for way in report.ways
        ],
    )
    console.print(f"Image codecs send to: {report.whole}")
    if report.link.source:
        console.print(f"{report.link.name}: {report.link.source}")
