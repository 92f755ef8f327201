"""``splitzoo demo``: load, split, run on a photograph, profile, card."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Console, RandomWeights, Seed, seed_of

if TYPE_CHECKING:
    from .export.manifest import Manifest
    from .export.run import ImageRun
    from .profile.report import EncoderProfile


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path(
        "demo-out"
    ),
    image: Annotated[
        Path | None,
        typer.Option(
            help="A photograph.",
            show_default="Grace Hopper by James S. Davis, US Navy, public domain; from matplotlib",
        ),
    ] = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
) -> None:
    """Go through everything once with the default model: load, split, run, profile, card."""
    from .files import new_folder, refuse_taken
    from .zoo.catalog import DEFAULT_MODEL, load

    console = Console()
    used_seed = seed_of(random_weights, seed)
    refuse_taken(output)
    with console.steps() as step:
        step(f"loading {DEFAULT_MODEL}")
        model = load(DEFAULT_MODEL, pretrained=used_seed is None, seed=used_seed or 0)

        from .cards.card import build_card
        from .export.run import bench_bundle, run_bundle
        from .export.split import export_split
        from .profile.encoder import profile_bundle

        with new_folder(output) as folder:
            bundle, report, photos = folder / "bundle", folder / "profile.json", folder / "photos"
            source = image or _packaged_photograph()
            photo = photos / source.name
            manifest = export_split(model, bundle, progress=step)
            step("running the photograph through both halves")
            (run,) = run_bundle(bundle, [source])
            photos.mkdir()
            shutil.copyfile(source, photo)
            step("measuring")
            words = ["splitzoo", "profile", "encoder", f"{output}/bundle"]
            words += ["--images", f"{output}/photos", "-o", f"{output}/profile.json"]
            profile = profile_bundle(bundle, images=[photo], command=shlex.join(words))
            profile.save(report)
            edge = bench_bundle(bundle, "edge", iterations=30)
            step("writing the card")
            build_card(folder / "card", bundle=bundle, profile=report)
    _summary(console, manifest, run, profile, edge.latency["total"].p50_ms)
    console.print(f"photograph  {output}/photos/{photo.name}")
    console.print(f"bundle      {output}/bundle")
    console.print(f"profile     {output}/profile.json")
    console.print(f"card        {output}/card/README.md")
    if used_seed is not None:
        console.hint(
            f"The weights are random (seed {used_seed}): sizes and times are those of the real "
            "architecture, the answer and the bytes are not those of a trained model."
        )
    console.hint(f"Next: splitzoo cards show {output}/card")


def _summary(
    console: Console,
    manifest: "Manifest",
    run: "ImageRun",
    profile: "EncoderProfile",
    edge_ms: float,
) -> None:
    parity, best = manifest.parity, run.top[0]
    console.table(
        "one photograph, from pixels to bytes to an answer",
        ("", ""),
        [
            ("model", manifest.spec.name),
            ("weights", manifest.provenance.weights),
            ("stream bytes", f"{run.stream_bytes:,}"),
            ("device ms", f"{profile.latency.steps['total'].p50_ms:.1f} (image tensor to stream)"),
            ("edge ms", f"{edge_ms:.1f} (stream to logits)"),
            (
                "encoder bits",
                f"{profile.size.encoder_bits:,} ({profile.size.parameters:,} parameters)",
            ),
            ("MACs", f"{profile.compute.macs:,} on the device"),
            (
                "parity",
                f"{parity.symbols_differing} of {parity.symbols:,} symbols differ from PyTorch, "
                f"outputs within {parity.output_max_relative_error:.1e}",
            ),
            ("answer", f"{best.label} ({best.probability:.1%})"),
        ],
    )


def _packaged_photograph() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
