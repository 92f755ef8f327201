"""``splitzoo demo``: load, split, run on an image, compare with JPEG, profile, write a card."""

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Console, Force, Json, RandomWeights, Seed, seed_of

if TYPE_CHECKING:
    from .zoo.split_model import SplitModel

IMAGE = Path(__file__).parent / "zoo" / "images" / "dandelion.jpg"


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path(
        "demo-out"
    ),
    image: Annotated[
        Path | None,
        typer.Option(help="Image to send.", show_default="a dandelion, by Clemens Engelhardt, CC0"),
    ] = None,
    random_weights: RandomWeights = False,
    seed: Seed = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Try everything once on the default model: load, split, run, compare, profile, card."""
    from splitrun.files import check_free, new_folder

    from .zoo.resolve import DEFAULT_MODEL, ModelSource

    console = Console(json)
    used_seed = seed_of(random_weights, seed)
    check_free(output, force=force)
    with console.progress() as progress:
        progress.step(f"loading {DEFAULT_MODEL}")
        model = ModelSource.of().load(seed=used_seed)

        from . import cards, export, profile
        from .export.running import bench_bundle

        with new_folder(output, force=force) as folder:
            bundle, report, images = folder / "bundle", folder / "profile.json", folder / "images"
            manifest = export.split(model, bundle, progress=progress)
            progress.step("running the image through both halves")
            source = image or IMAGE
            (run,) = export.run(bundle, [source])
            images.mkdir()
            copy = Path(shutil.copyfile(source, images / source.name))
            progress.step("looking for the smallest JPEG with the same prediction")
            best = run.top[0]
            jpeg = smallest_jpeg(model, copy, best.index)
            progress.step("measuring")
            words = ["splitzoo", "profile", "encoder", f"{output}/bundle"]
            words += ["--images", f"{output}/images", "-o", f"{output}/profile.json"]
            measured = profile.encoder(bundle, images=[copy], command=shlex.join(words))
            measured.save(report)
            edge = bench_bundle(bundle, "edge", iterations=30)
            progress.step("writing the card")
            cards.build(folder / "card", bundle=bundle, profile=report)

    parity, size = manifest.parity, measured.size
    device_ms = measured.latency.steps["total"].p50_ms
    rows = [
        ("model", manifest.spec["name"]),
        ("weights", manifest.provenance.weights),
        ("prediction", f"{best.label} ({best.probability:.1%})"),
        ("stream bytes", f"{run.stream_bytes:,}"),
        ("device ms", f"{device_ms:.1f} (image tensor to stream)"),
        ("edge ms", f"{edge.latency['total'].p50_ms:.1f} (stream to logits)"),
        ("encoder bits", f"{size.encoder_bits:,} ({size.parameters:,} parameters)"),
        (
            "MACs",
            f"{measured.compute.said()} on the device, {measured.edge_compute.said()} on the edge",
        ),
        (
            "parity",
            f"{parity.symbols_differing} of {parity.symbols:,} symbols differ from PyTorch, "
            f"outputs within {parity.output_max_relative_error:.1e}",
        ),
    ]
    if jpeg:
        size_bytes, quality = jpeg
        same = (
            f"{size_bytes:,}: the smallest JPEG (quality {quality}) with which the whole network "
            f"says {best.label} too; {size_bytes / run.stream_bytes:.1f}×"
        )
        rows.insert(4, ("JPEG bytes", same))
    written = {
        "image": output / "images" / copy.name,
        "bundle": output / "bundle",
        "profile": output / "profile.json",
        "card": output / "card" / "README.md",
    }

    def show() -> None:
        console.table("one image, from pixels to bytes to a prediction", ("", ""), rows)
        for name, path in written.items():
            console.print(f"{name:<7}  {path}")

    result = {
        "run": run,
        "jpeg": dict(zip(("bytes", "quality"), jpeg, strict=True)) if jpeg else None,
        "device_ms": device_ms,
        "edge_ms": edge.latency["total"].p50_ms,
        "parity": parity,
        "written": written,
    }
    console.data(result, show)
    if used_seed is not None:
        console.hint(
            f"The weights are random (seed {used_seed}): sizes and times are those of the real "
            "architecture; the prediction and the bytes are not those of a trained model."
        )
    console.hint(f"Next: splitzoo cards show {output}/card")


def smallest_jpeg(model: "SplitModel", image: Path, prediction: int) -> tuple[int, int] | None:
    """Find the smallest JPEG of an image with which the whole network, the teacher, agrees.

    Returns:
        Bytes and quality; None where the teacher is not carried, or never gives this prediction.
    """
    import torch

    from splitrun.coding.pixels import PixelsCoder

    from .zoo.catalog import load
    from .zoo.packaged import packaged_folder

    record = model.training_record
    teacher = record.teacher.partition(" ")[0] if record else ""
    if not teacher or packaged_folder(teacher) is None:
        return None
    network = load(teacher)
    tensor = torch.from_numpy(network.spec.preprocessing.load(image))
    (pixels,) = (wire[0] for wire in network.wire_tensors(tensor))
    sizes = []
    for quality in range(101):
        coder = PixelsCoder("jpeg", quality)
        file = coder.encode(pixels)
        (decoded,) = coder.decode(file, *pixels.shape[1:])
        with torch.no_grad():
            logits = network.decoder(torch.from_numpy(decoded)[None].float() / 255)
        if int(logits.argmax()) == prediction:
            sizes.append((len(file), quality))
    return min(sizes, default=None)
