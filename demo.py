"""``splitzoo demo``: load, split, run on an image, compare with JPEG, profile, card."""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Console, RandomWeights, Seed, seed_of

if TYPE_CHECKING:
    from splitrun.manifest import Manifest

    from .export.running import ImageRun
    from .profile.report import EncoderProfile
    from .zoo.split_model import SplitModel

IMAGE = Path(__file__).parent / "zoo" / "images" / "dandelion.jpg"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path(
        "demo-out"
    ),
    image: Annotated[
        Path | None,
        typer.Option(
            help="An image.",
            show_default="a dandelion, by Clemens Engelhardt, CC0",
        ),
    ] = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
) -> None:
    """Go through everything once with the default model: load, split, run, compare, profile."""
    from splitrun.files import check_free, new_folder

    from .zoo.resolve import DEFAULT_MODEL, ModelSource

    console = Console()
    used_seed = seed_of(random_weights, seed)
    check_free(output)
    with console.progress() as progress:
        progress.step(f"loading {DEFAULT_MODEL}")
        model = ModelSource.of().load(seed=used_seed)

        from . import cards, export, profile
        from .export.running import bench_bundle

        with new_folder(output) as folder:
            bundle, report, photos = folder / "bundle", folder / "profile.json", folder / "photos"
            source = image or IMAGE
            photo = photos / source.name
            manifest = export.split(model, bundle, progress=progress)
            progress.step("running the image through both halves")
            (run,) = export.run(bundle, [source])
            photos.mkdir()
            shutil.copyfile(source, photo)
            progress.step("looking for the smallest JPEG with the same answer")
            jpeg = _smallest_jpeg(model, photo, run.top[0].index)
            progress.step("measuring")
            words = ["splitzoo", "profile", "encoder", f"{output}/bundle"]
            words += ["--images", f"{output}/photos", "-o", f"{output}/profile.json"]
            measured = profile.encoder(bundle, images=[photo], command=shlex.join(words))
            measured.save(report)
            edge = bench_bundle(bundle, "edge", iterations=30)
            progress.step("writing the card")
            cards.build(folder / "card", bundle=bundle, profile=report)
    _summary(console, manifest, run, measured, edge.latency["total"].p50_ms, jpeg)
    console.print(f"image  {output}/photos/{photo.name}")
    console.print(f"bundle      {output}/bundle")
    console.print(f"profile     {output}/profile.json")
    console.print(f"card        {output}/card/README.md")
    if used_seed is not None:
        console.hint(
            f"The weights are random (seed {used_seed}): sizes and times are those of the real "
            "architecture, the answer and the bytes are not those of a trained model."
        )
    console.hint(f"Next: splitzoo cards show {output}/card")


@dataclass(frozen=True)
class _Jpeg:
    """The smallest JPEG of the image with which the whole network gives the same answer."""

    network: str
    quality: int
    size_bytes: int


def _smallest_jpeg(model: "SplitModel", photo: Path, answer: int) -> _Jpeg | None:
    """Find it; None where the model has no teacher here, or none of its answers is the same."""
    import torch

    from splitrun.coding.pixels import PixelsCoder

    from .zoo.catalog import load
    from .zoo.packaged import packaged_folder

    record = model.training_record
    teacher = record.teacher.partition(" ")[0] if record else ""
    if not teacher or packaged_folder(teacher) is None:
        return None
    whole = load(teacher)
    image = torch.from_numpy(whole.spec.preprocessing.load(photo))
    (pixels,) = (tensor[0] for tensor in whole.wire_tensors(image))
    sizes = []
    for quality in range(101):
        coder = PixelsCoder("jpeg", quality)
        file = coder.encode(pixels)
        (decoded,) = coder.decode(file, *pixels.shape[1:])
        with torch.no_grad():
            logits = whole.decoder(torch.from_numpy(decoded)[None].float() / 255)
        if int(logits.argmax()) == answer:
            sizes.append(_Jpeg(teacher, quality, len(file)))
    return min(sizes, key=lambda one: one.size_bytes, default=None)


def _summary(
    console: Console,
    manifest: "Manifest",
    run: "ImageRun",
    profile: "EncoderProfile",
    edge_ms: float,
    jpeg: _Jpeg | None,
) -> None:
    parity, best = manifest.parity, run.top[0]
    rows = [
        ("model", manifest.spec["name"]),
        ("weights", manifest.provenance.weights),
        ("answer", f"{best.label} ({best.probability:.1%})"),
        ("stream bytes", f"{run.stream_bytes:,}"),
    ]
    if jpeg:
        rows.append(
            (
                "JPEG bytes",
                f"{jpeg.size_bytes:,}: the smallest JPEG (quality {jpeg.quality}) with which the "
                f"whole network says {best.label} too; {jpeg.size_bytes / run.stream_bytes:.1f}×",
            )
        )
    rows += [
        ("device ms", f"{profile.latency.steps['total'].p50_ms:.1f} (image tensor to stream)"),
        ("edge ms", f"{edge_ms:.1f} (stream to logits)"),
        ("encoder bits", f"{profile.size.encoder_bits:,} ({profile.size.parameters:,} parameters)"),
        ("MACs", f"{profile.compute.macs:,} on the device"),
        (
            "parity",
            f"{parity.symbols_differing} of {parity.symbols:,} symbols differ from PyTorch, "
            f"outputs within {parity.output_max_relative_error:.1e}",
        ),
    ]
    console.table("one image, from pixels to bytes to an answer", ("", ""), rows)
