"""``splitzoo export``: split, check and run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import Console, Json, RandomWeights, Seed, seed_of

if TYPE_CHECKING:
    from ..zoo.calibration.record import CalibrationRecord

app = typer.Typer(no_args_is_help=True, help="Split models into bundles; check and run them.")

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
    target: Annotated[str, typer.Option(help="Where the halves will run: cpu.")] = "cpu",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write.", show_default="MODEL-TARGET"),
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Graphs that take any number of images.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Of photographs to fit the entropy tables to.",
            show_default="the model's tables",
        ),
    ] = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    json: Json = False,
) -> None:
    """Cut a model in two graphs, hold both against PyTorch, and write a bundle."""
    from ..files import refuse_taken
    from ..zoo.catalog import DEFAULT_MODEL, get_spec, load
    from .targets import TARGETS

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    model = model or DEFAULT_MODEL
    TARGETS.get(target)
    folder = output or Path(f"{get_spec(model).name}-{target}")
    refuse_taken(folder)
    if dynamic_batch:
        from .split import refuse_one_image

        # Known before the weights are: a detector's are hundreds of megabytes.
        refuse_one_image(get_spec(model))
    with console.steps() as step:
        step("loading")
        built = load(model, pretrained=used_seed is None, seed=used_seed or 0)
        from .split import export_split

        manifest = export_split(
            built,
            folder,
            target=target,
            dynamic_batch=dynamic_batch,
            calibration=calibration,
            progress=step,
        )

    def show() -> None:
        parity = manifest.parity
        rows = [
            ("model", manifest.spec.name),
            ("weights", manifest.provenance.weights),
            *(
                (f"{name} graph", f"{graph.file} ({_megabytes(folder / graph.file)})")
                for name, graph in manifest.graphs.items()
            ),
            ("entropy coding", _coding(manifest.coding.calibration)),
            ("symbols differing", f"{parity.symbols_differing} of {parity.symbols:,}"),
            (
                "output error",
                f"{parity.output_max_relative_error:.1e} of the largest output "
                f"({parity.output_tolerance:g} allowed)",
            ),
        ]
        console.table(str(folder), ("", ""), rows)

    console.data(manifest, show)
    if manifest.provenance.weights == "random":
        console.hint("The weights are random: right for graphs and latency, not for answers.")
    console.hint(f"Next: splitzoo export run {folder} IMAGE, or on the device: python -m splitrun")


@app.command()
def verify(bundle: BundleArgument, json: Json = False) -> None:
    """Repeat every check on a bundle: files, manifest, graphs, tables, and the recorded run."""
    console = Console(json)
    with console.steps() as step:
        step("checking")
        from .verify import verify_bundle

        result = verify_bundle(bundle)

    def show() -> None:
        test = result.selftest
        console.table(
            str(bundle),
            ("", ""),
            [
                ("model", result.manifest.spec.name),
                ("files", f"{result.files} as the manifest says"),
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
    json: Json = False,
) -> None:
    """Send images through both halves in two processes: image, bytes, answer."""
    console = Console(json)
    with console.steps() as step:
        step("running both halves")
        from .run import run_bundle
        from .runtime.bundle import open_bundle

        results = run_bundle(bundle, images, top=top)
        weights = open_bundle(bundle).weights

    def show() -> None:
        for result in results:
            console.table(
                f"{result.image}: {result.stream_bytes:,} bytes sent",
                ("", ">"),
                [(what, amount) for amount, what in result.answer.lines()],
            )

    console.data(results, show)
    if weights == "random":
        console.hint("The weights are random: these answers mean nothing.")


def _coding(calibration: "CalibrationRecord | None") -> str:
    """Say how symbols are coded, and what calibration saved."""
    if calibration is None:
        return "as the model was trained"
    return (
        f"{calibration.kept}: {calibration.after:,.0f} bytes in place of "
        f"{calibration.before:,.0f}, mean of {calibration.held_out} photographs"
    )


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
