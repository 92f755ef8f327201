"""``splitzoo export``: split, check and run."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import Console, Json, RandomWeights, Seed, Trust, seed_of
from .precision.keep import KEPT

if TYPE_CHECKING:
    from splitrun.manifest import GraphInfo, Manifest, PrecisionReport

    from ..zoo.calibration.record import CalibrationRecord

app = typer.Typer(no_args_is_help=True, help="Split models into bundles; check and run them.")


class KeepOption(StrEnum):
    """What ``--keep-fp32`` takes."""

    LAST = "last"
    GDN = "gdn"
    NOTHING = "nothing"


BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]


@app.command()
def split(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A name, a saved model's folder, or a repository on the Hub.",
            show_default="the default model",
        ),
    ] = None,
    target: Annotated[
        str, typer.Option(help="Where the halves will run; see: splitzoo export targets.")
    ] = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write.", show_default="MODEL-TARGET"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="fp32|fp16|bf16|int8",
            help="That the device graph computes in.",
            show_default="fp32",
        ),
    ] = None,
    edge: Annotated[
        str | None,
        typer.Option(help="Engine of the edge's graphs.", show_default="the target's first"),
    ] = None,
    aot: Annotated[
        bool, typer.Option("--aot", help="Compile both halves ahead of time (torch).")
    ] = False,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Graphs that take any number of images.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Of images: to fit entropy tables to, and to take int8's ranges from.",
            show_default="the model's tables",
        ),
    ] = None,
    keep_tables: Annotated[
        bool, typer.Option("--keep-tables", help="Do not fit entropy tables to --calibration.")
    ] = False,
    keep_fp32: Annotated[
        list[KeepOption] | None,
        typer.Option(
            help="Leave in fp32 what int8 need not touch: the last convolution, the GDN norms.",
            show_default=" ".join(KEPT) or "nothing",
        ),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take what the precision changes, whatever it is.")
    ] = False,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Cut a model in two graphs, hold both against PyTorch, and write a bundle."""
    from splitrun.files import check_free

    from ..zoo.resolve import ModelSource
    from .options import ExportOptions
    from .targets import TARGETS

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    source = ModelSource.of(model)
    chosen = TARGETS.get(target)
    chosen.halves(edge, aot=aot)
    folder = output or Path(f"{source.spec().name}-{target}")
    check_free(folder)
    kept = KEPT
    if keep_fp32 is not None:
        kept = tuple(one.value for one in keep_fp32 if one is not KeepOption.NOTHING)
    options: dict[str, Any] = {
        "target": target,
        "precision": precision or chosen.precisions[0],
        "edge": edge,
        "aot": aot,
        "dynamic_batch": dynamic_batch,
        "calibration": calibration,
        "keep_tables": keep_tables,
        "keep_fp32": kept,
        "accept": accept,
    }
    # Known before the weights are: those of a detector are hundreds of megabytes.
    ExportOptions(**options).check_possible(source.spec())
    with console.progress() as progress:
        progress.step("loading")
        built = source.load(seed=used_seed)
        from .. import export
        from .manifest import calibration_of

        manifest = export.split(built, folder, **options, progress=progress)

    def show() -> None:
        parity = manifest.parity
        rows = [
            ("model", manifest.spec["name"]),
            ("weights", manifest.provenance.weights),
            *(
                (f"{name} graph", f"{graph.file} ({_megabytes(folder, graph)})")
                for name, graph in manifest.graphs.items()
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
        console.hint("The weights are random: right for graphs and latency, not for answers.")
    if (folder / "engines").is_dir():
        console.hint("Engines for this machine's GPU were built and compared: engines/engine.json")
    elif chosen.note:
        console.hint(chosen.note)
    trust = " --trust" if _runs_code(manifest, folder) else ""
    console.hint(
        f"Next: splitzoo export run{trust} {folder} IMAGE, or on the device: python -m splitrun"
    )


@app.command()
def targets(json: Json = False) -> None:
    """List where the halves can run, and in what precision."""
    from dataclasses import asdict, dataclass

    from .targets import TARGETS

    @dataclass(frozen=True)
    class Row:
        name: str
        description: str
        precisions: tuple[str, ...]
        edges: tuple[str, ...]
        missing: tuple[str, ...]

    found = [
        Row(one.name, one.description, one.precisions, tuple(e.engine for e in one.edges), missing)
        for one in TARGETS
        for missing in [one.missing()]
    ]

    def show() -> None:
        console.table(
            "targets",
            ("name", "halves", "precisions", "edge", "to install"),
            [
                (
                    one.name,
                    one.description,
                    ", ".join(one.precisions),
                    ", ".join(one.edges),
                    ", ".join(one.missing),
                )
                for one in found
            ],
        )

    console = Console(json)
    console.data([asdict(one) for one in found], show)


@app.command()
def verify(bundle: BundleArgument, trust: Trust = False, json: Json = False) -> None:
    """Repeat every check on a bundle: files, manifest, graphs, tables, and the recorded run."""
    console = Console(json)
    with console.progress() as progress:
        progress.step("checking")
        from .. import export

        result = export.verify(bundle, trust=trust)

    def show() -> None:
        test = result.selftest
        console.table(
            str(bundle),
            ("", ""),
            [
                ("model", result.manifest.spec["name"]),
                ("files", f"{result.files} as the manifest says"),
                ("precision", result.manifest.precision),
                ("run by", f"{test.device} → {test.edge}"),
                ("symbols", f"{test.symbols - test.symbols_differing:,} of {test.symbols:,} equal"),
                (
                    "stream",
                    f"{test.stream_bytes:,} bytes, "
                    + ("written and read again exactly" if test.stream_rewritten else "read again"),
                ),
                (
                    "output",
                    f"within {test.output_relative_error:.1e} ({test.output_tolerance:g} allowed)",
                ),
            ],
        )

    console.data(result, show)


@app.command()
def run(
    bundle: BundleArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(min=1, max=1000, help="Classes or objects to print.")] = 5,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Send images through both halves in two processes: image, bytes, answer."""
    console = Console(json)
    with console.progress() as progress:
        progress.step("running both halves")
        from splitrun.bundle import open_bundle

        from .. import export

        results = export.run(bundle, images, top=top, trust=trust)
        opened = open_bundle(bundle)

    def show() -> None:
        for result in results:
            console.table(
                f"{result.image}: {result.stream_bytes:,} bytes sent",
                ("", ">"),
                [(what, amount) for amount, what in result.prediction.rows()],
            )

    console.data(results, show)
    if opened.device.engine == "tensorrt" and not results[0].engine.startswith("tensorrt"):
        console.hint(f"{results[0].engine} ran the device graph: no TensorRT engine is here.")
    if opened.manifest.provenance.weights == "random":
        console.hint("The weights are random: these predictions mean nothing.")


def _report_rows(report: "PrecisionReport") -> list[tuple[str, str]]:
    """Say what a precision below fp32 changes."""
    where = f"{report.held_out} {'images' if report.real_images else 'made images'}"
    changes = (
        f"{report.flips:.2%} of the symbols differ, by up to {report.largest_difference}"
        if report.symbols
        else f"what is sent differs by up to {report.wire_error:.1%} of the largest"
    )
    rows = [
        (
            "against fp32",
            f"{changes}; payload {report.rate_inflation:+.2%}; {where}",
        )
    ]
    if report.correct is not None and report.correct_fp32 is not None:
        rows.append(
            (
                "named right",
                f"{report.correct} of {report.labelled} images, in fp32 {report.correct_fp32}",
            )
        )
    rows += [("accepted", what) for what in report.accepted]
    return rows


def _runs_code(manifest: "Manifest", folder: Path) -> bool:
    from .verification import can_hold_code

    return any(can_hold_code(folder, graph.engine) for graph in manifest.graphs.values())


def _coding(calibration: "CalibrationRecord | None") -> str:
    """Say how symbols are coded, and what calibration saved."""
    if calibration is None:
        return "as the model was trained"
    return (
        f"{calibration.kept}: {calibration.after:,.0f} bytes in place of "
        f"{calibration.before:,.0f}, mean of {calibration.held_out} images"
    )


def _megabytes(folder: Path, graph: "GraphInfo") -> str:
    files = (graph.file, graph.weights)
    return f"{sum((folder / one).stat().st_size for one in files if one) / 1e6:.1f} MB"
