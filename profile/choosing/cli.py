"""``splitzoo profile choose``."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitrun.sending.links import LINK_NAMES

from ...console import Console, Force, Json

if TYPE_CHECKING:
    from .choose import Choice, Group, Plan
    from .crossings import Crossing

_UNITS = {"ms": 1.0, "s": 1e3, "min": 6e4, "": 1.0}
_BOARDS = "raspberrypi-3b+, raspberrypi-4, raspberrypi-5, raspberrypi-zero2w"


def _milliseconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|min|)", text.strip())
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no time such as 200ms, 1.5s or 2min.")
    return float(found[1]) * _UNITS[found[2]]


def choose(
    max_bytes: Annotated[
        float | None,
        typer.Option("--max-bytes", min=1, metavar="BYTES", help="Most bytes per image."),
    ] = None,
    link: Annotated[
        str | None, typer.Option(help=f"Link to send over: {LINK_NAMES}.", show_default="none")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Longest time from image to answer: 200ms, 1.5s."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE",
            help=f"Device: {_BOARDS}; or a report of profile encoder, or output of bench --json, "
            "that was made on it.",
            show_default="the machine that the models were timed on",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option("--min-accuracy", min=0, max=100, metavar="PERCENT", help="Least accuracy."),
    ] = None,
    reports: Annotated[
        list[Path] | None,
        typer.Option(
            "--report",
            metavar="PATH",
            help="Report of accuracy or latency to rank too, or a folder of them; repeatable.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for choice.json, and the plot."),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Rank models by accuracy among those that fit a link, a deadline and so many bytes.

    Time is that of the device, of the link, and of the edge. Beside the best: where sending JPEG,
    WebP or AVIF to the whole network, or running it on the device, takes equally long.
    """
    from pydantic import TypeAdapter

    from splitrun.files import check_free, new_folder
    from splitrun.sending.links import read_link
    from splitrun.text import json_text

    from ..rows import make_rows, read_reports
    from .choose import Choice
    from .choose import choose as find

    console = Console(json)
    limit_ms = _milliseconds(deadline)
    over = read_link(link) if link else None
    if output:
        check_free(output, force=force)
    with console.progress() as progress:
        progress.step("reading")
        local = make_rows(*read_reports(reports or ()), progress=progress) if reports else []
        found = find(
            link=over,
            device=device,
            max_bytes=max_bytes,
            deadline_ms=limit_ms,
            min_accuracy=None if min_accuracy is None else min_accuracy / 100,
            local=local,
        )
        if output:
            progress.step("drawing")
            from .plot import draw_choice

            with new_folder(output, force=force) as temporary:
                text = json_text(TypeAdapter(Choice).dump_python(found, mode="json"))
                (temporary / "choice.json").write_text(text + "\n", encoding="utf-8")
                draw_choice(found, temporary)
    console.data(found, lambda: _show(console, found))
    if output:
        console.hint(f"Written to {output}: choice.json; choice.svg, choice-dark.svg, both as PNG")


def _show(console: Console, choice: "Choice") -> None:
    from ...zoo.metrics import NAMES

    link = choice.link
    for group in choice.groups:
        metric = NAMES[group.plans[0].metric]
        columns = ("model", f"{metric}>", "bytes>", "frames>", "device>", "air>", "edge>")
        console.table(
            f"{group.images:,} images of {group.data}/"
            + (f", over {link.name}, {link.bits_per_second / 1e3:,.6g} kbit/s" if link else "")
            + "; times in ms",
            (*columns, "total>", "mJ>", "an hour>", "fits"),
            [_cells(plan) for plan in group.plans],
        )
        _recommend(console, group, metric)
    console.print(
        f"Device: {choice.device.name}. Times are medians as measured; ≈: scaled to it, or"
    )
    console.print(
        "  estimated from MACs; what an image codec takes is in it only where it was timed."
    )
    if choice.device.source:
        slower = f"{choice.device.factor:.3g} times the time of {choice.edge}"
        console.print(f"  {slower}: {choice.device.source}.")
    console.print(f"Edge: {choice.edge}.")
    if link and link.source:
        console.print(f"{link.name}: {link.source}")
    if link and link.transmit_source:
        console.print(f"mJ, the radio's alone: {link.transmit_source}.")


def _cells(plan: "Plan") -> tuple[str, ...]:
    def ms(value: float | None, measured: bool = True) -> str:
        return "" if value is None else f"{'' if measured else '≈'}{value:,.1f}"

    return (
        plan.model if plan.way != "all on the device" else f"{plan.model} on the device",
        f"{plan.score:.2%}",
        f"{plan.stream_bytes:,.0f}",
        "" if plan.frames is None else f"{plan.frames:,}",
        ms(plan.device_ms, plan.device_measured),
        ms(plan.air_ms),
        ms(plan.edge_ms, plan.edge_measured),
        ms(plan.total_ms, plan.device_measured and plan.edge_measured),
        "" if plan.millijoules is None else f"{plan.millijoules:,.3g}",
        "" if plan.images_per_hour is None else f"{plan.images_per_hour:,.0f}",
        f"no: {', '.join(plan.misses)}" if plan.misses else "yes",
    )


def _recommend(console: Console, group: "Group", metric: str) -> None:
    best = group.best
    if best is None:
        console.print("None fits. Ask for less, or give another link or device.")
    else:
        console.print(
            f"Recommended: {best.model}{' on the device' * (best.way == 'all on the device')}, "
            f"{best.score:.2%} {metric}, {best.stream_bytes:,.0f} bytes, {best.total_ms:,.1f} ms."
        )
    split = next((plan for plan in group.plans if plan.way == "split"), None)
    if split and best and best.way != "split" and not split.misses:
        console.print(
            f"Best split model: {split.model}, {split.score:.2%} {metric}, "
            f"{split.stream_bytes:,.0f} bytes, {split.total_ms:,.1f} ms."
        )
    for cross in group.crossings:
        console.print(f"  {_crossing(cross)}")


def _crossing(cross: "Crossing") -> str:
    faster = "faster" if cross.faster_below == "split" else "slower"
    other = f"{cross.other} ({cross.other_score:.2%}, {cross.other_bytes:,.0f} bytes)"
    if cross.other_way == "all on the device":
        other = f"all on the device ({cross.other_score:.2%})"
    if cross.bits_per_second is None or cross.total_ms is None:
        return f"{cross.model} is {faster} than {other} on links of every rate."
    rate = f"{cross.bits_per_second / 1e3:,.0f} kbit/s"
    took = f"where both take {cross.total_ms:,.1f} ms"
    return f"{cross.model} is {faster} than {other} below {rate}, {took}."
