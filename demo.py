"""``splitzoo demo``: load, split, run on photographs, compare with JPEG, profile, write a card."""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Console, Force, Json, RandomWeights, Seed, seed_of

if TYPE_CHECKING:
    from .zoo.split_model import SplitModel

IMAGES = Path(__file__).parent / "zoo" / "images"
PHOTOGRAPHS = tuple(IMAGES / name for name in ("cat.jpg", "espresso.jpg", "tripod.jpg"))


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write.")] = Path(
        "demo-out"
    ),
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="Image to send; repeatable.",
            show_default="three photographs that come with the package, CC0",
        ),
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
            progress.step("running the images through both halves")
            sources = image or PHOTOGRAPHS
            runs = export.run(bundle, sources)
            images.mkdir()
            copies = [Path(shutil.copyfile(one, images / one.name)) for one in sources]
            progress.step("looking for the smallest JPEGs with the same predictions")
            jpegs = smallest_jpegs(model, copies, [run.top[0].index for run in runs])
            progress.step("measuring")
            words = ["splitzoo", "profile", "encoder", f"{output}/bundle"]
            words += ["--images", f"{output}/images", "-o", f"{output}/profile.json"]
            measured = profile.encoder(bundle, images=copies, command=shlex.join(words))
            measured.save(report)
            edge = bench_bundle(bundle, "edge", iterations=30)
            progress.step("writing the card")
            cards.build(folder / "card", bundle=bundle, profile=report)

    parity, size = manifest.parity, measured.size
    device_ms = measured.latency.steps["total"].p50_ms
    rows = [
        ("model", manifest.spec["name"]),
        ("weights", manifest.provenance.weights),
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
    sent = [
        (
            Path(run.image).name,
            run.top[0].label.partition(",")[0],
            f"{run.top[0].probability:.1%}",
            f"{run.stream_bytes:,}",
            f"{jpeg[0]:,} ({jpeg[0] / run.stream_bytes:.1f}×, quality {jpeg[1]})" if jpeg else "",
        )
        for run, jpeg in zip(runs, jpegs, strict=True)
    ]
    written = {
        "images": output / "images",
        "bundle": output / "bundle",
        "profile": output / "profile.json",
        "card": output / "card" / "README.md",
    }

    def show() -> None:
        console.table(
            "from pixels to bytes to predictions",
            ("image", "prediction", "probability>", "stream bytes>", "smallest JPEG*>"),
            sent,
        )
        console.table("", ("", ""), rows)
        if any(jpegs):
            console.print("* with which the whole network says the same, in bytes")
        for name, path in written.items():
            console.print(f"{name:<7}  {path}")

    result = {
        "runs": runs,
        "jpegs": [
            dict(zip(("bytes", "quality"), one, strict=True)) if one else None for one in jpegs
        ],
        "device_ms": device_ms,
        "edge_ms": edge.latency["total"].p50_ms,
        "parity": parity,
        "written": written,
    }
    console.data(result, show)
    if used_seed is not None:
        console.hint(
            f"The weights are random (seed {used_seed}): sizes and times are those of the real "
            "architecture; the predictions and the bytes are not those of a trained model."
        )
    console.hint(f"Next: splitzoo cards show {output}/card")


def smallest_jpegs(
    model: "SplitModel", images: Sequence[Path], predictions: Sequence[int]
) -> list[tuple[int, int] | None]:
    """Find the smallest JPEG of each image with which the whole network, the teacher, agrees.

    Returns:
        Bytes and quality; None where the teacher is not at hand, or never gives this prediction.
    """
    import torch

    from splitrun.coding.pixels import PixelsCoder

    from .zoo.catalog import has_weights, load
    from .zoo.models import is_name

    record = model.training_record
    teacher = record.teacher.partition(" ")[0] if record else ""
    if not is_name(teacher) or not has_weights(teacher):
        return [None] * len(images)
    network = load(teacher)

    def smallest(image: Path, prediction: int) -> tuple[int, int] | None:
        (pixels,) = network.wire_tensors(network.spec.preprocessing.load(image))
        height, width = pixels.shape[2:]
        sizes = []
        for quality in range(101):
            coder = PixelsCoder("jpeg", quality)
            file = coder.encode(pixels[0])
            (decoded,) = coder.decode(file, height, width)
            with torch.no_grad():
                logits = network.decoder(torch.from_numpy(decoded)[None].float() / 255)
            if int(logits.argmax()) == prediction:
                sizes.append((len(file), quality))
        return min(sizes, default=None)

    return [smallest(*one) for one in zip(images, predictions, strict=True)]
