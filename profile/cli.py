"""``splitzoo profile``: measure what the device pays."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import Console, Json, RandomWeights, Seed, seed_of
from ..registry import Registry

if TYPE_CHECKING:
    from .report import EncoderProfile

app = typer.Typer(no_args_is_help=True, help="Measure what the device pays.")

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
        Path | None, typer.Option(metavar="DIR", help="Measure bytes on the photographs in DIR.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, max=1024, help="0: the runtime chooses.")] = 0,
    warmup: Annotated[int, typer.Option(min=0, max=100_000)] = 10,
    iterations: Annotated[int, typer.Option(min=1, max=1_000_000)] = 100,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the report here too, as JSON.")
    ] = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Measure the encoder: size, operations, latency, memory, bytes per image."""
    from ..export.runtime.bundle import MANIFEST_NAME
    from ..zoo.catalog import DEFAULT_MODEL, get_spec, load
    from ..zoo.preprocessing import list_images
    from ..zoo.source import as_folder
    from .report import refuse_foreign

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    DEVICES.get(device)
    model = model or DEFAULT_MODEL
    folder = as_folder(model)
    is_bundle = folder is not None and (folder / MANIFEST_NAME).is_file()
    if is_bundle and random_weights:
        raise typer.BadParameter("a bundle has its own weights.", param_hint="--random-weights")
    if not is_bundle:
        get_spec(model)
    if output:
        refuse_foreign(output)
    options = {
        "images": list_images(images) if images else (),
        "threads": threads,
        "warmup": warmup,
        "iterations": iterations,
        "command": shlex.join(["splitzoo", *sys.argv[1:]]),
        "track": lambda paths: console.track(paths, "photographs"),
    }
    with console.steps() as step:
        step("loading")
        from .encoder import profile_bundle, profile_model

        if is_bundle and folder is not None:
            step("measuring the bundle")
            report = profile_bundle(folder, **options)
        else:
            loaded = load(model, pretrained=used_seed is None, seed=used_seed or 0)
            step("measuring the model")
            report = profile_model(loaded, **options)
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
        ("", f"{size.sc2bench_encoder_bits:,} bits as sc2bench counts"),
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
            rows.append(("", f"{rate.estimated_bits.mean / 8:,.0f} by the learned likelihoods"))
        if rate.sc2bench_bytes:
            rows.append(("", f"{rate.sc2bench_bytes.mean:,.0f} as sc2bench counts"))
        rows += [("skipped", f"{one.image}: {one.reason}") for one in rate.skipped]
    rows += [("not measured", what) for what in report.not_measured]
    rows.append(("machine", f"{report.environment['cpu']}, {report.environment['cores']} cores"))
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
