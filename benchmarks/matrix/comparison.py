"""Compare runtimes with each other: does one's edge half read what another's device half sends?

Every device half's streams go through every edge half, and what the edge receives is compared with
what the device's coder says that it sent. With a hyperprior in floats, the edge computes the scale
indexes of y again; where an index differs from the device's, the image cannot be read.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from benchmarks.matrix.crossings import (
    Half,
    Read,
    Reading,
    Sending,
    Sent,
    load_sent,
    make_streams,
    read_streams,
)
from benchmarks.matrix.page import write_images
from benchmarks.matrix.processes import run_apart
from splitrun.bundle import open_bundle
from splitrun.comparison import compare_integers
from splitrun.errors import SplitzooError
from splitrun.files import new_file
from splitrun.image_files import list_images
from splitrun.signals import check_stopped
from splitzoo import export
from splitzoo.export.formats.base import Format, Integers, Source
from splitzoo.export.formats.onnx_file import OnnxFormat
from splitzoo.export.formats.openvino_ir import OpenVinoFormat
from splitzoo.export.graphs import EdgeGraph
from splitzoo.export.precision.int8 import to_int8
from splitzoo.progress import SILENT, Progress
from splitzoo.zoo import catalog
from splitzoo.zoo.packaged import packaged_folder
from splitzoo.zoo.split_model import SplitModel

COMPARED = (
    "flowers-splittable_regnetx_002-fp-beta3",
    "flowers-splittable_regnetx_002-mshp-beta3",
    "splittable_resnet50-mshp-beta0.16",
    "resnet50-scale_hyperprior-q1",
    "resnet50-mean_scale_hyperprior-q1",
    "resnet50-joint_autoregressive_hierarchical_prior-q1",
)
"""A factorized prior, and hyperpriors of all kinds."""

TORCH = "torch, eager"

_EXPORTS = {
    ("cpu", "fp32"): "ONNX Runtime",
    ("openvino", "fp32"): "OpenVINO",
    ("torchscript", "fp32"): "TorchScript",
    ("torch", "fp32"): "torch.export",
    ("cpu", "int8"): "ONNX Runtime",
    ("openvino", "int8"): "OpenVINO",
    ("openvino", "bf16"): "OpenVINO",
}
"""Runtimes besides eager PyTorch, by target and precision of the bundle that they run."""

_FORMATS: dict[str, type[Format]] = {"cpu": OnnxFormat, "openvino": OpenVinoFormat}
_RANGES = 64
"""Images that ranges of int8 edge graphs are taken from."""

_SYNTHETIC = 32
"""Number of synthetic images, where no folder is given."""


@dataclass(frozen=True)
class Runtime:
    """A runtime of both halves.

    Attributes:
        engine: Name of the engine for people.
        precision: Precision of both halves.
        version: Name and version of the engine.
    """

    engine: str
    precision: str
    version: str

    @property
    def name(self) -> str:
        """Name of the runtime in the tables."""
        return self.engine if self.precision == "fp32" else f"{self.engine} {self.precision}"


@dataclass(frozen=True)
class Difference:
    """Integers of one tensor that differ between two runtimes.

    Attributes:
        first: Name of a runtime.
        second: Name of another.
        tensor: Name of the tensor.
        count: Number of integers, over all images.
        differing: Number of these that differ.
        largest: Largest difference.
        images: Number of images in which at least one differs.
    """

    first: str
    second: str
    tensor: str
    count: int
    differing: int
    largest: int
    images: int


@dataclass(frozen=True)
class Crossing:
    """Streams of one runtime's device half, read by another's edge half.

    Attributes:
        device: Name of the device's runtime.
        edge: Name of the edge's, which may be the same.
        lost: Number of images that could not be read, or were read as others.
    """

    device: str
    edge: str
    lost: int


@dataclass(frozen=True)
class RuntimeComparison:
    """Runtimes compared with each other on one model.

    Attributes:
        model: Name of the model.
        bottleneck: Kind of its bottleneck.
        trained: Whether its weights are trained, not random.
        side: Height and width of the images, pixels.
        images: Number of images: of latents that go from each device half to each edge half.
        runtimes: Runtimes that were compared, eager PyTorch first.
        symbols: Differences of each pair of runtimes and each tensor that the device rounds.
        crossings: Images lost between each device half and each edge half.
        read: Streams that each edge half read, at least; those of several devices that are the
            same byte by byte count once.
        run: Latents that each edge half's graph ran on, at least.
        not_compared: Halves that could not be compared, with the reason.
    """

    model: str
    bottleneck: str
    trained: bool
    side: tuple[int, int]
    images: int
    runtimes: list[Runtime]
    symbols: list[Difference]
    crossings: list[Crossing]
    read: int
    run: int
    not_compared: dict[str, str]


def compare_runtimes(
    model: SplitModel,
    images: Sequence[Path],
    folder: Path,
    *,
    calibration: Path,
    jobs: int = 1,
    progress: Progress = SILENT,
) -> RuntimeComparison:
    """Run a model's halves in every runtime here, and count what differs.

    Args:
        model: Model in evaluation mode.
        images: Images to compare on.
        folder: Folder for what is made; it exists, and the caller removes it.
        calibration: Folder of images for int8's ranges.
        jobs: Processes at a time.
        progress: Progress to report to.

    Raises:
        ImageError: An image cannot be read.
    """
    trained, name = model.random_seed is None, model.spec.name
    catalog.save(model, folder / "model")
    model = catalog.load(str(folder / "model")).eval()
    progress.step(f"{name}: reading images")
    pixels = np.concatenate([model.spec.preprocessing.load(path) for path in images])
    np.save(folder / "images.npy", pixels)
    eager = Half(TORCH, folder / "model", eager=True)
    devices, edges, not_compared = [eager], [eager], dict[str, str]()
    runtimes = [Runtime(TORCH, "fp32", f"torch {torch.__version__.partition('+')[0]}")]
    for (target, precision), engine in _EXPORTS.items():
        check_stopped()
        runtime = Runtime(engine, precision, "")
        progress.step(f"{name}: {runtime.name}")
        bundle = folder / f"{target}-{precision}"
        try:
            export.split(
                model,
                bundle,
                target=target,
                precision=precision,
                calibration=calibration if precision == "int8" else None,
                keep_tables=True,
                accept=precision != "fp32",
                dynamic_batch=True,
            )
        except SplitzooError as error:
            not_compared[runtime.name] = error.message.replace(name, "The model")
            continue
        half = Half(runtime.name, bundle)
        runtimes.append(runtime)
        devices.append(half)
        edges.append(half)
        if precision != "fp32":
            edges[-1] = _lower_edge(half, target, precision, model, pixels[:_RANGES])
    files = {half.runtime: folder / f"{number}.sent" for number, half in enumerate(devices)}
    sendings = [Sending(half, folder / "images.npy", files[half.runtime]) for half in devices]
    made = run_apart(make_streams, sendings, jobs=jobs, crashed=_no_streams)
    for number, reason in progress.track(made, f"{name}: device halves", total=len(devices)):
        if reason:
            not_compared[f"{devices[number].runtime} on the device"] = reason
            del files[devices[number].runtime]
    sent = {runtime: load_sent(file) for runtime, file in files.items()}
    reads: dict[int, Read] = {}
    readings = [Reading(half, files) for half in edges]
    done = run_apart(read_streams, readings, jobs=jobs, crashed=_not_read)
    for number, read in progress.track(done, f"{name}: edge halves", total=len(edges)):
        if read.reason:
            not_compared[f"{read.runtime} on the edge"] = read.reason
        else:
            reads[number] = read
    versions = {read.runtime: read.version for read in reads.values()}
    return RuntimeComparison(
        model=name,
        bottleneck=model.spec.bottleneck.kind,
        trained=trained,
        side=model.spec.preprocessing.crop,
        images=len(images),
        runtimes=[replace(one, version=versions.get(one.name, one.version)) for one in runtimes],
        symbols=_differences(sent),
        crossings=[
            Crossing(device, reads[number].runtime, reads[number].lost[device])
            for device in sent
            for number in sorted(reads)
        ],
        read=min((read.read for read in reads.values()), default=0),
        run=min((read.run for read in reads.values()), default=0),
        not_compared=not_compared,
    )


def _no_streams(_: Sending, code: int) -> str:
    return f"Its process ended with exit code {code}."


def _not_read(work: Reading, code: int) -> Read:
    return Read(work.half.runtime, reason=f"Its process ended with exit code {code}.")


def _lower_edge(
    half: Half, target: str, precision: str, model: SplitModel, pixels: NDArray[np.float32]
) -> Half:
    """Return an edge half below fp32, which ``export split`` does not write.

    The engine computes bf16 by itself. An int8 graph is made as those of devices are, with ranges
    from what the edge receives.
    """
    bundle = open_bundle(half.bundle)
    info = bundle.tail(None).graph
    graph = bundle.path(info.file)
    if precision == "int8":
        received = [_received(model, pixel[None]) for pixel in pixels]
        names = [one.name for one in info.inputs]
        graph = half.bundle.parent / f"edge-{target}{graph.suffix}"
        source = Source(
            module=EdgeGraph(model).eval(),
            examples=[torch.from_numpy(tensor) for tensor in received[0]],
            input_names=names,
            output_names=[one.name for one in info.outputs],
            dynamic_batch=True,
            lower=partial(_to_int8, [dict(zip(names, one, strict=True)) for one in received]),
        )
        _FORMATS[target]().write(source, graph)
    hint = precision if precision == "bf16" else ""
    return replace(half, engine=info.engine, graph=graph, hint=hint)


def _received(model: SplitModel, image: NDArray[np.float32]) -> list[NDArray[Any]]:
    """Return what the edge graph gets of an image, each (1, …)."""
    (stream,) = model.compress(image)
    return [tensor[None] for tensor in model.codec.decompress(stream, model.hyper_decode)]


def _to_int8(
    inputs: Sequence[Mapping[str, NDArray[Any]]], source: Path, target: Path, integers: Integers
) -> None:
    to_int8(source, target, inputs, integers=integers)


def _differences(sent: Mapping[str, Sent]) -> list[Difference]:
    """Compare what each pair of devices rounds."""
    found = []
    for (first, before), (second, after) in combinations(sent.items(), 2):
        for tensor, values in before.integers.items():
            others = after.integers[tensor]
            one = compare_integers(values, others)
            images = np.any(values != others, axis=(1, 2, 3)).sum()
            counted = one.symbols, one.differing, one.largest, int(images)
            found.append(Difference(first, second, tensor, *counted))
    return found


def spread(count: int, most: int) -> list[int]:
    """Return at most so many of the numbers below ``count``, evenly spread."""
    taken = min(count, most)
    return [place * count // taken for place in range(taken)]


def smaller(model: SplitModel, side: int) -> SplitModel:
    """Give a model smaller images: what is compared is the same, and takes less time."""
    if side:
        crop, spec = (side, side), model.spec
        changed: dict[str, Any] = {
            "preprocessing": replace(spec.preprocessing, resize=side, crop=crop)
        }
        if getattr(spec.bottleneck, "crop", None):  # the edge's, out of what the codec gives
            changed["bottleneck"] = spec.bottleneck.model_copy(update={"crop": crop})
        model.spec = spec.model_copy(update=changed)
    return model


def compare_models(
    names: Sequence[str],
    *,
    images: Path | None = None,
    most: int = 96,
    side: int = 0,
    jobs: int = 1,
    progress: Progress = SILENT,
) -> Iterator[RuntimeComparison]:
    """Compare the runtimes on several models, with the same images; each comes when it is done.

    Args:
        names: Names or folders of models; those that are not carried get random weights.
        images: Folder of images; None makes synthetic ones.
        most: Most images to compare on.
        side: Height and width of the images, pixels; 0 takes the model's.
        jobs: Processes at a time.
        progress: Progress to report to.

    Raises:
        UnknownNameError: No model has that name.
        ImageError: The folder does not exist, or an image of it cannot be read.
    """
    for name in names:
        trained = Path(name).is_dir() or packaged_folder(name) is not None
        model = smaller(catalog.load(name, pretrained=trained), side)
        with tempfile.TemporaryDirectory() as temporary:
            used = images or Path(temporary) / "images"
            if images is None:
                used.mkdir()
                write_images(model.spec.preprocessing, used, min(most, _SYNTHETIC))
            found = list_images(used)
            chosen = [found[place] for place in spread(len(found), most)]
            yield compare_runtimes(
                model, chosen, Path(temporary), calibration=used, jobs=jobs, progress=progress
            )


def put_into(path: Path, comparisons: Sequence[RuntimeComparison]) -> list[RuntimeComparison]:
    """Put comparisons into a file of them, in the place of those of the same models.

    Args:
        path: JSON file; it need not exist.
        comparisons: Comparisons that were made.

    Returns:
        All, in the order of ``COMPARED``.
    """
    file = TypeAdapter(list[RuntimeComparison])
    before = file.validate_json(path.read_bytes()) if path.exists() else []
    whole = {one.model: one for one in [*before, *comparisons]}
    places = {name: number for number, name in enumerate(COMPARED)}
    ordered = sorted(whole.values(), key=lambda one: places.get(one.model, len(places)))
    with new_file(path, force=True) as temporary:
        temporary.write_bytes(file.dump_json(ordered, indent=1) + b"\n")
    return ordered
