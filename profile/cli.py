"""``splitzoo profile``: measure what the device pays."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitrun.registry import Registry

from ..console import Console, Json, RandomWeights, Seed, Trust, command_line, seed_of

if TYPE_CHECKING:
    from .accuracy_report import AccuracyReport
    from .report import Distribution, EncoderProfile

app = typer.Typer(
    no_args_is_help=True, help="Measure what the device pays, what is sent, and how good it is."
)

DEVICES: Registry[str] = Registry("device")
DEVICES.register("cpu", "cpu")


@app.callback()
def _group() -> None:
    pass


@app.command()
def encoder(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL or BUNDLE]",
            help="A registered name, a saved model's folder, or a bundle's.",
            show_default="the default model",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to measure: cpu.")] = "cpu",
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Measure bytes on the images in DIR.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, max=1024, help="0: the runtime chooses.")] = 0,
    warmup: Annotated[int, typer.Option(min=0, max=100_000)] = 10,
    iterations: Annotated[int, typer.Option(min=1, max=1_000_000)] = 100,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the report here too, as JSON.")
    ] = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Measure the encoder: size, operations, latency, memory, bytes per image."""
    from splitrun.preprocessing import list_images

    from ..zoo.resolve import ModelSource
    from .report import check_kind

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    DEVICES.get(device)
    source = ModelSource.of(model)
    if source.bundle and random_weights:
        raise typer.BadParameter("a bundle has its own weights.", param_hint="--random-weights")
    if not source.bundle:
        source.spec()
    if output:
        check_kind(output)
    options = {
        "images": list_images(images) if images else (),
        "threads": threads,
        "warmup": warmup,
        "iterations": iterations,
        "command": shlex.join(["splitzoo", *sys.argv[1:]]),
    }
    with console.progress() as progress:
        progress.step("loading")
        from .encoder import profile_bundle, profile_model

        if source.bundle:
            progress.step("measuring the bundle")
            report = profile_bundle(source.bundle, **options, trust=trust, progress=progress)
        else:
            loaded = source.load(seed=used_seed)
            progress.step("measuring the model")
            report = profile_model(loaded, **options, progress=progress)
        if output:
            report.save(output)
    console.data(report, lambda: show_report(console, report))
    if output:
        console.hint(f"Written to {output}. Next: splitzoo cards build --profile {output}")


def show_report(console: Console, report: "EncoderProfile") -> None:
    """Print an encoder profile as tables."""
    size, compute, latency = report.size, report.compute, report.latency
    rows = [
        ("runtime", f"{report.runtime}, {report.device}"),
        ("weights", report.weights if report.seed is None else f"random, seed {report.seed}"),
        ("parameters", f"{size.parameters:,}"),
        ("encoder size", f"{size.encoder_bits:,} bits (Eq. 1: its parameters)"),
        *(
            [("", f"{size.sc2bench_encoder_bits:,} bits as sc2bench counts")]
            if size.sc2bench_encoder_bits is not None
            else []
        ),
    ]
    if size.graph_bytes is not None and size.tables_bytes is not None:
        total = size.graph_bytes + size.tables_bytes
        rows.append(
            (
                "",
                f"{total:,} bytes deployed (graph {size.graph_bytes:,}, "
                f"tables {size.tables_bytes:,})",
            )
        )
    rows += [
        ("operations", f"{compute.macs:,} MACs, {compute.flops:,} FLOPs per image"),
        ("not counted", ", ".join(f"{k} ×{n}" for k, n in compute.uncounted.items()) or "nothing"),
        ("peak memory", f"{report.peak_memory_bytes / 1e6:.0f} MB, {report.peak_memory_of}"),
    ]
    if report.rate:
        rate = report.rate
        rows += [
            (
                f"bytes, {rate.count} images",
                f"stream {rate.stream_bytes.mean:,.0f} (median {rate.stream_bytes.median:,.0f}, "
                f"p90 {rate.stream_bytes.p90:,.0f}), payload {rate.payload_bytes.mean:,.0f}",
            )
        ]
        if rate.estimated_bits:
            rows.append(
                (
                    "",
                    f"{rate.estimated_bits.mean / 8:,.0f} by its {rate.estimated_by}",
                )
            )
        if rate.sc2bench_bytes:
            rows.append(("", f"{rate.sc2bench_bytes.mean:,.0f} as sc2bench counts"))
        rows += [("skipped", f"{one.image}: {one.reason}") for one in rate.skipped]
    rows += [("not measured", what) for what in report.not_measured]
    env = report.environment
    rows.append(("machine", f"{env['cpu']} ({env['instructions']}), {env['cores']} cores"))
    console.table(report.spec.name, ("", ""), rows)
    threads = f"{latency.threads} threads" if latency.threads else "threads as the runtime chose"
    console.table(
        f"latency, ms ({latency.iterations} runs after {latency.warmup}, {threads})",
        ("step", "p50>", "p90>", "p99>", "mean>"),
        [
            (name, *(f"{v:.3f}" for v in (one.p50_ms, one.p90_ms, one.p99_ms, one.mean_ms)))
            for name, one in latency.steps.items()
        ],
    )
    console.table(
        "operations",
        ("operator", "MACs>", "FLOPs>"),
        [(one.operator, f"{one.macs:,}", f"{one.flops:,}") for one in compute.operators],
    )


@app.command()
def accuracy(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL or BUNDLE]",
            help="A name, a saved model's folder, a bundle's, or a repository on the Hub.",
            show_default="the default model",
        ),
    ] = None,
    data: Annotated[
        Path,
        typer.Option(metavar="DIR", help="A folder per class; or COCO 2017's; or VOC 2012's."),
    ] = ...,  # pyright: ignore[reportArgumentType]
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Score these answers and streams of the model, made elsewhere."
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the report (.json), or a line per image (.csv, .parquet); repeatable.",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=256, help="Threads that read images.")] = 1,
    threads: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            help="Of the runtime. Another number adds in another order, and now and then rounds a "
            "symbol otherwise: bytes are exact for the same number alone.",
        ),
    ] = 1,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Measure accuracy and bytes per image, through the real bitstream.

    Begun again with the same -o, an evaluation that was interrupted goes on.
    """
    from ..zoo.datasets import read_dataset
    from ..zoo.labels import labels_of
    from ..zoo.resolve import ModelSource
    from .accuracy_report import check_table, save_images
    from .report import check_kind

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    source = ModelSource.of(model)
    outputs = output or []
    for path in outputs:
        check_kind(path) if path.suffix == ".json" else check_table(path)
    if source.bundle and (random_weights or predictions):
        raise typer.BadParameter("a bundle has its own weights, and gives its own answers.")
    if not source.bundle:
        source.spec()
    with console.progress() as progress:
        progress.step("loading")
        from .accuracy import evaluate
        from .subjects import BundleSubject, ModelSubject, PredictionsSubject, Subject

        if source.bundle:
            subject: Subject = BundleSubject(source.bundle, threads, trust=trust)
        else:
            loaded = source.load(seed=used_seed)
            if predictions is None:
                subject = ModelSubject(loaded)
            else:
                subject = PredictionsSubject(predictions, loaded)
        spec = subject.spec
        dataset = read_dataset(spec.task, data, "val", labels_of(spec))
        keep = outputs[0].with_name(f".{outputs[0].name}.partial") if outputs else None
        progress.step("coding and scoring images")
        report, images = evaluate(
            subject,
            dataset,
            data,
            workers=workers,
            threads=threads,
            keep=keep,
            command=command_line(),
            progress=progress,
        )
    for path in outputs:
        report.save(path) if path.suffix == ".json" else save_images(images, path)
    if keep:
        keep.unlink(missing_ok=True)
    console.data(report, lambda: show_accuracy(console, report))
    if any(path.suffix == ".json" for path in outputs):
        console.hint("Next: splitzoo profile tradeoff RESULT.json … -o DIR")


def show_accuracy(console: Console, report: "AccuracyReport") -> None:
    """Print an accuracy report as a table."""
    from ..zoo.metrics import NAMES

    def sizes(of: "Distribution") -> str:
        return f"mean {of.mean:,.0f}, median {of.median:,.0f}, p90 {of.p90:,.0f}"

    rows = [
        ("runtime", report.runtime),
        ("weights", report.weights if report.seed is None else f"random, seed {report.seed}"),
        ("data", f"{report.data.images} images of {report.data.folder}/"),
        *((NAMES[name], f"{score:.2%}") for name, score in report.scores.items()),
        ("stream bytes", sizes(report.stream_bytes)),
        ("payload bytes", sizes(report.payload_bytes)),
    ]
    if report.sc2bench_bytes:
        rows.append(("as sc2bench counts", sizes(report.sc2bench_bytes)))
    if report.estimated_bits:
        tables = "calibrated tables" if report.calibrated else "learned density"
        rows.append(("by its " + tables, f"mean {report.estimated_bits.mean / 8:,.0f} bytes"))
    rows += [
        ("bits per pixel", f"mean {report.bits_per_pixel.mean:.4f}, of the model's input"),
        (
            "encoder",
            f"{report.encoder.encoder_bits:,} bits ({report.encoder.parameters:,} parameters)",
        ),
    ]
    rows += [("skipped", f"{one.image}: {one.reason}") for one in report.skipped[:8]]
    if len(report.skipped) > 8:
        rows.append(("", f"and {len(report.skipped) - 8} more"))
    rows += [("not measured", what) for what in report.not_measured]
    console.table(report.spec.name, ("", ""), rows)


@app.command()
def tradeoff(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...", help="Reports of profile accuracy, or folders of them."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")],
    against: Annotated[
        str, typer.Option(metavar="SERIES", help="Give the BD-rate of each series against this.")
    ] = "",
    title: Annotated[str, typer.Option(help="Of the figure.", show_default="the data set")] = "",
    json: Json = False,
) -> None:
    """Draw R-D, ExR-D and the three-way tradeoff of several models, and write the points as CSV."""
    from splitrun.files import check_free, new_folder

    from .accuracy_report import read_accuracy

    console = Console(json)
    check_free(output)
    files = [file for one in results for file in _reports(one)]
    with console.progress() as progress:
        progress.step("reading")
        from .tradeoff import collect, save_points

        found = collect(read_accuracy(file) for file in files)
        compared = found.bd_rates(against) if against else []
        progress.step("drawing")
        from .tradeoff_plot import draw_tradeoff

        with new_folder(output) as folder:
            save_points(found, folder / "tradeoff.csv")
            draw_tradeoff(found, folder, title=title)

    def tables() -> None:
        rows = [
            (
                one.series,
                one.setting,
                f"{one.score:.2%}",
                f"{one.data_bytes:,.0f}",
                f"{one.encoder_bits:,}",
                "•" * one.on_rd_front,
                "•" * one.on_exrd_front,
            )
            for one in found.points
        ]
        columns = ("series", "rate set by", f"{found.metric}>", "bytes>", "encoder bits>")
        console.table(
            f"{found.images} images of {found.data}/",
            (*columns, "R-D front", "ExR-D front"),
            rows,
        )
        if compared:
            console.table(
                f"bytes at equal {found.metric}, against {against}",
                ("series", "BD-rate>"),
                [
                    (
                        one.series,
                        "no common range" if one.percent is None else f"{one.percent:+.1f}%",
                    )
                    for one in compared
                ],
            )

    console.data({"points": list(found.points), "bd_rates": compared}, tables)
    console.hint(f"Drawn in {output}: tradeoff.svg, tradeoff-dark.svg, both as PNG; tradeoff.csv")


@app.command()
def bits(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A name, folder or repository.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")],
    against: Annotated[
        str, typer.Option(metavar="MODEL", help="Compare with this, such as resnet50-jpeg-q50.")
    ] = "",
    random_weights: RandomWeights = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Map where in an image the bits go, and where an input codec's would."""
    from splitrun.files import check_free, new_folder

    from ..zoo.resolve import ModelSource

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    check_free(output)
    with console.progress() as progress:
        progress.step("loading")
        ours = ModelSource.of(model).load(seed=used_seed)
        theirs = ModelSource.of(against).load(seed=used_seed) if against else None
        from splitrun.preprocessing import read_rgb

        from .bit_maps import draw_bit_maps, map_bits

        rows = []
        with new_folder(output) as folder:
            for number, image in enumerate(images):
                progress.step(f"mapping {image.name}")
                preprocessing = ours.spec.preprocessing
                mine = map_bits(ours, preprocessing.load(image))
                other = map_bits(theirs, theirs.spec.preprocessing.load(image)) if theirs else None
                if other is not None and other.bits.shape != mine.bits.shape:
                    raise typer.BadParameter(
                        f"{against} takes images of another size.", param_hint="--against"
                    )
                path = folder / f"{number:03d}-{image.stem}.png"
                draw_bit_maps(preprocessing.pixels(read_rgb(image)), mine, other, path)
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
        columns = ("map", "bytes>", "bytes against>")
        cells = [
            (row["map"], f"{row['payload_bytes']:,}", f"{row['against_payload_bytes'] or '—'}")
            for row in rows
        ]
        console.table("", columns, cells)

    console.data(rows, table)


def _reports(given: Path) -> list[Path]:
    """Return a report, or those in a folder, those of its subfolders too."""
    return sorted(given.rglob("*.json")) if given.is_dir() else [given]
