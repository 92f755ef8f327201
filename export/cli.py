"""``splitzoo export``: split, check and run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitrun.sizes import format_size

from ..console import Beta, Console, Force, Json, RandomWeights, Seed, Trust, seed_of
from ..zoo.completion import complete_model

if TYPE_CHECKING:
    from splitrun.bundle import Bundle
    from splitrun.manifest import GraphInfo, Manifest, PrecisionReport

    from ..zoo.calibration.record import CalibrationRecord
    from .running import ImageRun

app = typer.Typer(no_args_is_help=True, help="Split models into bundles; check and run them.")


class HalfOption(StrEnum):
    """Values of ``--half``."""

    DEVICE = "device"
    EDGE = "edge"
    BOTH = "both"


class KeepOption(StrEnum):
    """Values of ``--keep-fp32``."""

    LAST = "last"
    GDN = "gdn"
    NOTHING = "nothing"


class TritonBackend(StrEnum):
    """Values of ``--backend``."""

    ENSEMBLE = "ensemble"
    PYTHON = "python"


BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle.")]


def _complete_target(incomplete: str) -> list[str]:
    from .targets import TARGETS

    return [name for name in TARGETS.names() if name.startswith(incomplete)]


def _complete_precision(incomplete: str) -> list[str]:
    from .targets import TARGETS

    known = dict.fromkeys(precision for target in TARGETS for precision in target.precisions)
    return [precision for precision in known if precision.startswith(incomplete)]


@app.command()
def split(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Name of a model, folder of a saved one, or repository on the Hub.",
            autocompletion=complete_model,
            show_default="the default model",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help="Target: where the halves will run. See: splitzoo export targets.",
            autocompletion=_complete_target,
        ),
    ] = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write.", show_default="MODEL-TARGET"),
    ] = None,
    half: Annotated[
        HalfOption, typer.Option(help="Half to write; both are exported and checked.")
    ] = HalfOption.BOTH,
    precision: Annotated[
        str,
        typer.Option(
            metavar="fp32|fp16|bf16|int8",
            help="Precision of the device graph.",
            autocompletion=_complete_precision,
        ),
    ] = "fp32",
    edge: Annotated[
        str | None,
        typer.Option(help="Engine of the edge half.", show_default="the target's first"),
    ] = None,
    aot: Annotated[
        bool,
        typer.Option("--aot", help="Ahead-of-time compilation of both halves (target torch)."),
    ] = False,
    dynamic_batch: Annotated[
        bool,
        typer.Option("--dynamic-batch", help="Graphs that take any number of images at once."),
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of images to fit the entropy tables to, and to take int8's ranges from.",
            show_default="no calibration",
        ),
    ] = None,
    keep_tables: Annotated[
        bool,
        typer.Option("--keep-tables", help="Entropy tables as they are, not fitted to the images."),
    ] = False,
    keep_fp32: Annotated[
        list[KeepOption] | None,
        typer.Option(
            metavar="last|gdn|nothing",
            help="Part that int8 leaves in fp32: the last convolution, or the GDN norms. "
            "Can be given twice.",
            show_default="last",
        ),
    ] = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept", help="Permission for the precision to change more than the limits allow."
        ),
    ] = False,
    float_hyperprior: Annotated[
        bool,
        typer.Option(
            "--float-hyperprior",
            help="Hyperprior in floats, as it was trained: one engine for both halves.",
        ),
    ] = False,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="[TAIL=]MODEL",
            help="Model with the same encoder, to read the same streams as another tail. "
            "Can be repeated.",
            show_default="no other tail",
        ),
    ] = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Cut a model into two graphs, compare both with PyTorch, and write a bundle."""
    from splitrun.bundle import open_bundle
    from splitrun.errors import BundleError
    from splitrun.files import check_free

    from ..zoo.resolve import ModelSource
    from .options import KEPT, ExportOptions

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    source = ModelSource.of(model)
    kept = (part.value for part in keep_fp32 or () if part is not KeepOption.NOTHING)
    options = ExportOptions(
        target=target,
        precision=precision,
        edge=edge,
        aot=aot,
        dynamic_batch=dynamic_batch,
        calibration=calibration,
        keep_tables=keep_tables,
        keep_fp32=KEPT if keep_fp32 is None else tuple(kept),  # pyright: ignore[reportArgumentType]
        accept=accept,
        float_hyperprior=float_hyperprior,
    )
    spec = options.exported(source.spec())
    folder = output or Path(f"{spec.name}-{target}")
    options.halves(spec)
    check_free(folder, force=force)
    options.check_possible(spec)
    tails = [_named_tail(text) for text in with_ or ()]
    if tails and half is not HalfOption.BOTH:
        raise BundleError(
            "--half writes one half, and --with adds to the edge half.",
            next_step=f"Leave --half out, and part the bundle: splitrun part {folder} --half "
            f"{half.value} -o DIR",
        )
    with console.progress() as progress:
        progress.step("loading")
        built = source.load(seed=used_seed)
        from .. import export
        from .manifest import calibration_of

        common = {**vars(options), "force": force, "progress": progress}
        if tails:
            others = [(name, ModelSource.of(one).load(seed=used_seed)) for name, one in tails]
            manifest = export.split_tails(built, others, folder, **common)
        else:
            manifest = export.split(built, folder, half=half.value, **common)
        opened = open_bundle(folder)

    def show() -> None:
        parity = manifest.parity
        rows = [
            ("model", manifest.spec["name"]),
            ("weights", manifest.provenance.weights),
            ("id", f"{manifest.coding.stream_id}, of both halves and of their streams"),
            *((f"{one} half", format_size(opened.size_bytes(one))) for one in manifest.halves),
            *(
                (f"{name} graph", f"{graph.file} ({_size(folder, graph)})")
                for name, graph in opened.graphs.items()
            ),
            ("precision", manifest.precision),
            ("entropy coding", _coding(calibration_of(manifest))),
            *(_report_rows(manifest.precision_report) if manifest.precision_report else ()),
            (
                "symbols differing",
                f"{parity.symbols_differing:,} of {parity.symbols:,}, on "
                f"{parity.images} made images",
            ),
            (
                "output error",
                f"{parity.output_max_relative_error:.1e} of the largest output "
                f"({parity.limits.output_tolerance:g} allowed)",
            ),
            ("checked with", f"{parity.pairs[-1].device} → {parity.pairs[-1].edge}"),
        ]
        console.table(str(folder), ("", ""), rows)

    console.data(manifest, show)
    if manifest.provenance.weights == "random":
        console.hint("The weights are random: good for graphs and latency, not for predictions.")
    if (folder / "engines").is_dir():
        console.hint("Engines for this machine's GPU were built and compared: engines/engine.json")
    elif options.chosen_target.note:
        console.hint(options.chosen_target.note)
    if half is not HalfOption.BOTH:
        command = "encode IMAGE" if half is HalfOption.DEVICE else "decode STREAM"
        console.hint(f"Next, in {folder}: python -m splitrun {command}")
        return
    trust = " --trust" if _can_hold_code(manifest, folder) else ""
    console.hint(
        f"Next: splitzoo export run{trust} {folder} IMAGE, or for the board alone: "
        f"splitrun part {folder} --half device -o DIR"
    )


def _named_tail(text: str) -> tuple[str, str]:
    """Return the name of a tail, or nothing, and its model, from ``[TAIL=]MODEL``."""
    name, _, model = text.rpartition("=")
    return name, model


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


@app.command()
def targets(json: Json = False) -> None:
    """List where the halves can run, and in which precisions."""
    from .targets import TARGETS

    console = Console(json)
    found = [
        {
            "name": target.name,
            "description": target.description,
            "precisions": target.precisions,
            "edges": tuple(format.engine for format in target.edges),
            "missing": target.missing(),
        }
        for target in TARGETS
    ]

    def show() -> None:
        console.table(
            "targets",
            ("name", "halves", "precisions", "edge", "to install"),
            [
                [value if isinstance(value, str) else ", ".join(value) for value in row.values()]
                for row in found
            ],
        )

    console.data(found, show)


@app.command()
def prepare(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Target whose converter needs an environment of its own.",
            autocompletion=_complete_target,
        ),
    ],
    json: Json = False,
) -> None:
    """Make the environment that a target's converter runs in, in the user's cache folder."""
    from splitrun.errors import DependencyError

    from .targets import TARGETS

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


@app.command()
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
        from .. import export
        from .running import RunLimits

        limits = RunLimits(time_limit, memory_limit)
        result = export.verify(bundle, trust=trust, limits=limits)

    def show() -> None:
        rows = [
            ("model", result.manifest.spec["name"]),
            ("files", f"{result.files} as the manifest says"),
            ("precision", result.manifest.precision),
            *result.selftest.rows(),
            *((f"{half} half", "not here, not checked") for half in result.manifest.absent),
        ]
        console.table(str(bundle), ("", ""), rows)

    console.data(result, show)


@app.command()
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

    from .running import ImageFault, ImageRun, RunLimits, run_some

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


@app.command()
def triton(
    bundles: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]BUNDLE...", help="Bundles that hold the edge half."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model repository to write.")],
    backend: Annotated[
        TritonBackend,
        typer.Option(
            help="Ensemble with the graph in a backend of its own, or all in the Python backend."
        ),
    ] = TritonBackend.ENSEMBLE,
    instances: Annotated[int, typer.Option(min=1, max=1024, help="Instances of the graph.")] = 1,
    decoders: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Instances of an ensemble's steps in Python."),
    ] = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="GPUs for an ensemble's graph.")] = False,
    threads: Annotated[
        int,
        typer.Option(
            min=0,
            max=1024,
            help="Threads of each engine; 0: it chooses, or one where there are several instances.",
        ),
    ] = 0,
    max_batch: Annotated[
        int, typer.Option(min=1, max=1024, help="Streams, at most, that run at once.")
    ] = 8,
    max_delay: Annotated[
        float,
        typer.Option(
            min=0, max=60_000, metavar="MS", help="Longest wait of a stream for others, ms."
        ),
    ] = 0,
    max_queue: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="Requests, at most, that wait for a model.")
    ] = 256,
    trust: Trust = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a model repository of Triton Inference Server."""
    from splitrun.arguments import named_bundle

    from .triton import TritonOptions, export_triton

    console = Console(json)
    options = TritonOptions(
        backend=backend.value,
        instances=instances,
        decoders=decoders,
        gpu=gpu,
        max_batch=max_batch,
        max_delay_ms=max_delay,
        max_queue=max_queue,
        threads=threads,
        trust=trust,
    )
    models = export_triton(map(named_bundle, bundles), output, options, force=force)

    def show() -> None:
        rows = [
            (model.name, model.backend, model.batch or 1, "clients" if model.asked else "a step")
            for model in models
        ]
        console.table(str(output), ("model", "backend", "batch", "for"), rows)

    console.data(models, show)
    requirements = next(output.glob("*/1/bundle/requirements.txt"))
    console.hint(
        f"Next, where Triton's Python has: pip install -r {requirements}\n"
        f"tritonserver --model-repository {output}"
    )


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


def _report_rows(report: "PrecisionReport") -> list[tuple[str, str]]:
    """Say what a precision below fp32 changes."""
    changes = (
        f"{report.flips:.2%} of the symbols differ, by up to {report.largest_difference}"
        if report.symbols
        else f"what is sent differs by up to {report.wire_error:.1%} of the largest"
    )
    images = f"{report.held_out} {'images' if report.real_images else 'made images'}"
    rows = [("against fp32", f"{changes}; payload {report.rate_inflation:+.2%}; {images}")]
    if report.labelled:
        correct = f"{report.correct} of {report.labelled} images, in fp32 {report.correct_fp32}"
        rows.append(("named correctly", correct))
    rows += [("accepted", limit) for limit in report.accepted]
    return rows + [("warning", warning) for warning in report.warnings]


def _can_hold_code(manifest: "Manifest", folder: Path) -> bool:
    from splitrun.halves import can_hold_code

    return any(can_hold_code(folder, graph.engine) for graph in manifest.graphs.values())


def _coding(calibration: "CalibrationRecord | None") -> str:
    """Say how symbols are coded, and what calibration saved."""
    if calibration is None:
        return "as the model was trained"
    return (
        f"{calibration.kept}: {calibration.after:,.0f} bytes in place of "
        f"{calibration.before:,.0f}, mean of {calibration.held_out} images"
    )


def _size(folder: Path, graph: "GraphInfo") -> str:
    return format_size(sum((folder / file).stat().st_size for file in graph.files))
