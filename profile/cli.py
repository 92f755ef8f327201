"""``splitzoo profile``: measure the device half, accuracy, bytes and tradeoffs."""

import contextlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitrun.registry import Registry
from splitrun.signals import keeping
from splitrun.text import visible

from ..console import (
    Beta,
    Console,
    Force,
    Json,
    RandomWeights,
    Seed,
    Trust,
    command_line,
    seed_of,
)
from ..zoo.completion import complete_model
from .choosing.cli import choose
from .link.cli import link

if TYPE_CHECKING:
    from ..zoo.resolve import ModelSource
    from .report import EncoderProfile

app = typer.Typer(
    no_args_is_help=True,
    help="Measure what a model costs the device, how many bytes it sends, and how accurate it is.",
)

DEVICES: Registry[str] = Registry("device")
DEVICES.register("cpu", "cpu")

SubjectArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL or BUNDLE]",
        help="A name, the folder of a saved model or of a bundle, or a repository on the Hub.",
        autocompletion=complete_model,
        show_default="the default model",
    ),
]
FolderOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")
]


@app.command()
def encoder(
    model: SubjectArgument = None,
    device: Annotated[str, typer.Option(help="Machine to measure on: cpu.")] = "cpu",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of images to measure bytes on.")
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, max=1024, help="Number of threads; 0 lets the engine choose.")
    ] = 0,
    warmup: Annotated[
        int, typer.Option(min=0, max=100_000, help="Runs before the timed ones.")
    ] = 10,
    iterations: Annotated[int, typer.Option(min=1, max=1_000_000, help="Timed runs.")] = 100,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write the report into, as JSON.")
    ] = None,
    beta: Beta = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    trust: Trust = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure the encoder: size, operations, latency, memory, and bytes per image."""
    from splitrun.files import is_standard_output
    from splitrun.image_files import list_images

    from .report import check_writable

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    DEVICES.get(device)
    source = _source(model, random_weights=random_weights)
    if output:
        check_writable(output, force=force)
    if images:
        list_images(images)
    with console.progress() as progress:
        progress.step("loading")
        from . import api

        subject = source.bundle or source.load(seed=used_seed)
        progress.step("measuring")
        report = api.encoder(
            subject,
            images=images or (),
            threads=threads,
            warmup=warmup,
            iterations=iterations,
            beta=beta,
            trust=trust,
            command=visible(shlex.join(["splitzoo", *sys.argv[1:]]), keep=""),
            progress=progress,
        )
        if output:
            report.save(output, force=force)
    if output and is_standard_output(output):
        return
    console.data(report, lambda: _show_profile(console, report))
    if output:
        console.hint(f"Written to {output}. Next: splitzoo cards build --profile {output}")


def _source(
    model: str | None, *, random_weights: bool, predictions: Path | None = None
) -> "ModelSource":
    """Return the model that is meant, checked as far as that goes without loading it.

    Raises:
        typer.BadParameter: Options for models are given for a bundle.
        UnknownNameError: No model has that name.
    """
    from ..zoo.resolve import ModelSource

    source = ModelSource.of(model)
    if not source.bundle:
        source.spec()
    elif random_weights or predictions:
        raise typer.BadParameter("a bundle has its own weights, and gives its own predictions.")
    return source


def _show_profile(console: Console, report: "EncoderProfile") -> None:
    latency = report.latency
    console.table("", ("", ""), report.summary())
    threads = f"{latency.threads} threads" if latency.threads else "threads as the runtime chose"
    console.table(
        f"latency, ms ({latency.iterations} runs after {latency.warmup}, {threads})",
        ("step", "p50>", "p90>", "p99>", "mean>"),
        [
            (name, *(f"{ms:.3f}" for ms in (step.p50_ms, step.p90_ms, step.p99_ms, step.mean_ms)))
            for name, step in latency.steps.items()
        ],
    )
    halves = report.compute, report.edge_compute
    counted = [{one.operator: (one.macs, one.flops) for one in half.operators} for half in halves]
    rows = [
        (name, *(f"{count:,}" for half in counted for count in half.get(name, (0, 0))))
        for name in dict.fromkeys(name for half in counted for name in half)
    ]
    rows.append(("all", *(half.said(what) for half in halves for what in ("macs", "flops"))))
    console.table(
        "operations per image (1 MAC: 2 FLOPs)",
        ("operator", "device MACs>", "device FLOPs>", "edge MACs>", "edge FLOPs>"),
        rows,
    )


@app.command()
def accuracy(
    model: SubjectArgument = None,
    data: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Data set: a folder per class, COCO 2017 or PASCAL VOC 2012."
        ),
    ] = ...,  # pyright: ignore[reportArgumentType]
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of predictions and streams made elsewhere, to score instead.",
        ),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_model,
            help="Classifier to compare with, image by image, such as the teacher.",
            show_default="none",
        ),
    ] = "",
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="File to write: the report (.json), or a line per image (.csv); repeatable.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            max=256,
            help="Threads that read images, where one process measures.",
        ),
    ] = 1,
    threads: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            help="Number of threads of the runtime. Another number changes the order of additions "
            "and so, now and then, a symbol: bytes are reproducible for the same number only.",
        ),
    ] = 1,
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=256,
            help="Number of processes that share the images, with the same results. Each holds the "
            "model and has --threads threads.",
        ),
    ] = 1,
    beta: Beta = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    trust: Trust = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Measure accuracy and bytes per image, through the real bitstream.

    An evaluation that was interrupted goes on when it is started again with the same -o.
    """
    from .accuracy_report import check_output, save_table

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    outputs = output or []
    for path in outputs:
        check_output(path, force=force)
    source = _source(model, random_weights=random_weights, predictions=predictions)
    with console.progress() as progress:
        progress.step("loading")
        from ..zoo.resolve import ModelSource
        from .evaluate import evaluate
        from .subjects import open_subject, read_labelled

        subject = open_subject(
            source,
            seed=used_seed,
            predictions=predictions,
            beta=beta,
            threads=threads,
            trust=trust,
        )
        dataset = read_labelled(subject, data)
        other = None
        if against:
            other = open_subject(ModelSource.of(against), threads=threads, trust=trust)
        keep = outputs[0].with_name(f".{outputs[0].name}.partial") if outputs else None
        progress.step("coding and scoring images")
        said = f"Results so far are kept in {keep}: the same command goes on with them."
        with keeping(said) if keep else contextlib.nullcontext():
            report, images = evaluate(
                subject,
                dataset,
                data,
                workers=workers,
                threads=threads,
                processes=processes,
                keep=keep,
                against=other,
                command=command_line(),
                progress=progress,
            )
    for path in outputs:
        if path.suffix == ".json":
            report.save(path, force=force)
        else:
            save_table(images, path, force=force)
    if keep:
        keep.unlink(missing_ok=True)
    console.data(report, lambda: console.table("", ("", ""), report.summary()))
    if any(path.suffix == ".json" for path in outputs):
        console.hint("Next: splitzoo profile tradeoff RESULT.json … -o DIR")


@app.command()
def tradeoff(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...", help="Reports of profile accuracy, or folders of them."
        ),
    ],
    output: FolderOption,
    against: Annotated[
        str,
        typer.Option(metavar="SERIES", help="Series to give the BD-rate of the others against."),
    ] = "",
    cost: Annotated[
        str, typer.Option(help="Cost of the encoder: bits (Eq. 1), macs, flops or latency.")
    ] = "bits",
    profiles: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Report of profile encoder, or output of python -m splitrun bench --json, made on "
            "the device that latency is to be of; or a folder of them; repeatable.",
        ),
    ] = None,
    title: Annotated[
        str, typer.Option(help="Note below the figure.", show_default="the data set")
    ] = "",
    force: Force = False,
    json: Json = False,
) -> None:
    """Draw accuracy over bytes (R-D), over bytes × encoder cost (ExR-D), and all three measures.

    The points are written as CSV beside the figure.
    """
    from splitrun.files import check_free

    console = Console(json)
    check_free(output, force=force)
    with console.progress() as progress:
        progress.step("reading")
        from . import api
        from .tradeoff_plot import save_tradeoff

        found = api.tradeoff(results, cost=cost, profiles=profiles or ())
        compared = found.bd_rates(against) if against else []
        progress.step("drawing")
        save_tradeoff(found, output, title=title, force=force)

    digits = 3 if cost == "latency" else 0

    def tables() -> None:
        console.table(
            f"{found.images} images of {found.data}/",
            (
                *("series", "rate set by", f"{found.metric}>", "bytes>", f"{found.cost.words}>"),
                *("R-D front", "ExR-D front"),
            ),
            [
                (
                    point.series,
                    point.setting,
                    f"{point.score:.2%}",
                    f"{point.data_bytes:,.0f}",
                    "—" if point.cost is None else f"{point.cost:,.{digits}f}",
                    "•" * point.on_rd_front,
                    "•" * point.on_exrd_front,
                )
                for point in found.points
            ],
        )
        if compared:
            console.table(
                f"bytes at equal {found.metric}, against {against}",
                ("series", "BD-rate>"),
                [
                    (
                        rate.series,
                        "no common range" if rate.percent is None else f"{rate.percent:+.1f}%",
                    )
                    for rate in compared
                ],
            )

    measured = {"cost": found.cost.field, "points": list(found.points), "bd_rates": compared}
    console.data(measured, tables)
    console.hint(f"Drawn in {output}: tradeoff.svg, tradeoff-dark.svg, both as PNG; tradeoff.csv")


@app.command()
def bits(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A name, a saved model's folder, or a repository on the Hub."
        ),
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images.")],
    output: FolderOption,
    against: Annotated[
        str,
        typer.Option(metavar="MODEL", help="Model to compare with, such as resnet50-jpeg-q50."),
    ] = "",
    beta: Beta = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Map where in an image the bits go; with --against, also the difference from another model.

    Either may be a split model or an image codec before a network, JPEG or learned.
    """
    from splitrun.files import check_free, new_folder

    from ..zoo.resolve import ModelSource

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    check_free(output, force=force)
    with console.progress() as progress:
        progress.step("loading")
        ours = ModelSource.of(model).load(seed=used_seed).at(beta)
        theirs = ModelSource.of(against).load(seed=used_seed) if against else None
        from splitrun.image_reading import read_rgb

        from . import api
        from .bit_maps import common_part, draw_bit_maps

        rows = []
        with new_folder(output, force=force) as folder:
            for number, image in enumerate(images):
                progress.step(f"mapping {image.name}")
                mine = api.bits(ours, image)
                other = api.bits(theirs, image) if theirs else None
                if theirs and other:
                    inputs = ours.spec.preprocessing, theirs.spec.preprocessing
                    mine, other = common_part(mine, other, inputs)
                path = folder / f"{number:03d}-{image.stem}.png"
                draw_bit_maps(ours.spec.preprocessing.pixels(read_rgb(image)), mine, other, path)
                rows.append(
                    {
                        "image": str(image),
                        "map": str(output / path.name),
                        "total_bits": mine.total_bits,
                        "payload_bytes": mine.payload_bytes,
                        "against_payload_bytes": other.payload_bytes if other else None,
                    }
                )

    def table() -> None:
        cells = [
            (row["map"], f"{row['payload_bytes']:,}", f"{row['against_payload_bytes'] or '—'}")
            for row in rows
        ]
        console.table("", ("map", "bytes>", "bytes against>"), cells)

    console.data(rows, table)


app.command()(choose)
app.command()(link)
