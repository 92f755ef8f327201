"""``splitzoo export split``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from splitrun.sizes import format_size

from ...console import Console, Force, Json, RandomWeights, Seed, seed_of
from ...zoo.completion import complete_model
from .targets import complete_target

if TYPE_CHECKING:
    from splitrun.manifest import GraphInfo, Manifest
    from splitrun.precision_reports import EdgePrecisionReport, PrecisionReport

    from ...zoo.calibration.record import CalibrationRecord


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


def _complete_precision(incomplete: str) -> list[str]:
    from ..targets import TARGETS

    known = dict.fromkeys(precision for target in TARGETS for precision in target.precisions)
    return [precision for precision in known if precision.startswith(incomplete)]


def _complete_edge_precision(incomplete: str) -> list[str]:
    from ..targets import TARGETS

    edges = (edge for target in TARGETS for edge in target.edges)
    known = dict.fromkeys(precision for edge in edges for precision in edge.edge_precisions)
    return [precision for precision in known if precision.startswith(incomplete)]


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
            autocompletion=complete_target,
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
    edge_precision: Annotated[
        str,
        typer.Option(
            metavar="PRECISION",
            help="Precision of the edge graph: fp32, fp16, bf16 or int8; or of its weights alone: "
            "fp16-weights or int8-weights.",
            autocompletion=_complete_edge_precision,
        ),
    ] = "fp32",
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
            "--accept", help="Permission for a precision to change more than the limits allow."
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

    from ...zoo.resolve import ModelSource
    from ..options import KEPT, ExportOptions

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    source = ModelSource.of(model)
    kept = (part.value for part in keep_fp32 or () if part is not KeepOption.NOTHING)
    options = ExportOptions(
        target=target,
        precision=precision,
        edge=edge,
        edge_precision=edge_precision,
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
        from ... import export
        from ..manifest import calibration_of

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
            ("precision", manifest.precisions),
            ("entropy coding", _coding(calibration_of(manifest))),
            *(_report_rows(manifest.precision_report) if manifest.precision_report else ()),
            *(
                row
                for name, tail in manifest.edge.tails.items()
                if tail.precision_report
                for row in _edge_report_rows(
                    tail.precision_report, f" {name}" if len(manifest.edge.tails) > 1 else ""
                )
            ),
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


def _edge_report_rows(report: "EdgePrecisionReport", tail: str) -> list[tuple[str, str]]:
    """Say what a precision of the edge below fp32 changes, of this tail where there are several."""
    images = f"{report.held_out} {'images' if report.real_images else 'made images'}"
    changes = f"outputs differ by {report.output_error:.2%}; {images}"
    if report.answers:
        changes = f"{report.answers_changed:,} of {report.answers:,} answers change; {changes}"
    rows = [(f"edge{tail} against fp32", changes)]
    if report.labelled:
        correct = f"{report.correct} of {report.labelled} images, in fp32 {report.correct_fp32}"
        rows.append((f"edge{tail} names correctly", correct))
    rows += [("accepted", limit) for limit in report.accepted]
    return rows + [("warning", warning) for warning in report.warnings]


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
