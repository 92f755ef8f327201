"""Compare runtimes with each other: does one's edge half read what another's device half sends?

Every device half's streams go through every edge half, and what the edge receives is compared with
what the device's coder says that it sent. With a hyperprior in floats, the edge computes the scale
indexes of y again; where an index differs from the device's, the image cannot be read.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.matrix.page import write_images
from splitrun.bundle import open_bundle
from splitrun.coding import Codec
from splitrun.comparison import Comparison, compare_integers
from splitrun.errors import DesyncError, SplitzooError
from splitrun.halves import Device, Edge
from splitrun.signals import check_stopped
from splitzoo import export
from splitzoo.export.precision.report import read_images
from splitzoo.progress import SILENT, Progress
from splitzoo.zoo import catalog
from splitzoo.zoo.packaged import packaged_folder
from splitzoo.zoo.resolve import DEFAULT_MODEL
from splitzoo.zoo.split_model import SplitModel

COMPARED = (
    DEFAULT_MODEL,
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

_SYNTHETIC = 32
"""Number of synthetic images, where no folder is given."""


@dataclass(frozen=True)
class Runtime:
    """A runtime of both halves.

    Attributes:
        engine: Name of the engine for people.
        precision: Precision of the device half; the edge half is fp32.
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
        images: Number of images compared.
        runtimes: Runtimes that were compared, eager PyTorch first.
        symbols: Differences of each pair of runtimes and each tensor that the device rounds.
        crossings: Images lost between each device half and each edge half in fp32.
        not_compared: Runtimes that could not be compared, with the reason.
    """

    model: str
    bottleneck: str
    trained: bool
    images: int
    runtimes: list[Runtime]
    symbols: list[Difference]
    crossings: list[Crossing]
    not_compared: dict[str, str]


class _Halves(Protocol):
    """Both halves of a runtime, without the networks behind the bitstream."""

    codec: Codec

    def send(self, image: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        """Image (1, 3, H, W) float32 to the wire tensors, each (1, …)."""
        ...

    def receive(self, stream: bytes) -> tuple[NDArray[Any], ...]:
        """Stream to the edge's inputs, each (C, h, w)."""
        ...


class _Eager:
    def __init__(self, model: SplitModel) -> None:
        self._model, self.codec = model, model.codec

    def send(self, image: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        return self._model.wire_tensors(torch.from_numpy(image))

    def receive(self, stream: bytes) -> tuple[NDArray[Any], ...]:
        return self.codec.decompress(stream, self._model.hyper_decode)


class _Exported:
    def __init__(self, folder: Path) -> None:
        bundle = open_bundle(folder)
        self._device, self._edge = Device(bundle), Edge(bundle)
        self.codec = self._device.codec
        self.version = self._device.graph.engine

    def send(self, image: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
        return self._device.wire_tensors(image)

    def receive(self, stream: bytes) -> tuple[NDArray[Any], ...]:
        return tuple(tensor[0] for tensor in self._edge.decompress(stream))


def compare_runtimes(
    model: SplitModel,
    images: Sequence[Path],
    folder: Path,
    *,
    calibration: Path,
    progress: Progress = SILENT,
) -> RuntimeComparison:
    """Run a model's halves in every runtime here, and count what differs.

    Args:
        model: Model in evaluation mode.
        images: Images to compare on.
        folder: Folder for the bundles; it exists, and the caller removes it.
        calibration: Folder of images for int8's ranges.
        progress: Progress to report to.

    Raises:
        ImageError: An image cannot be read.
    """
    halves: dict[str, _Halves] = {TORCH: _Eager(model)}
    runtimes = [Runtime(TORCH, "fp32", f"torch {torch.__version__.partition('+')[0]}")]
    not_compared: dict[str, str] = {}
    for (target, precision), engine in _EXPORTS.items():
        check_stopped()
        name = Runtime(engine, precision, "").name
        progress.step(f"{model.spec.name}: {name}")
        try:
            bundle = folder / f"{model.spec.name}-{target}-{precision}"
            export.split(
                model,
                bundle,
                target=target,
                precision=precision,
                calibration=calibration if precision == "int8" else None,
                keep_tables=True,
                accept=precision != "fp32",
            )
            halves[name] = made = _Exported(bundle)
        except SplitzooError as error:
            not_compared[name] = error.message.replace(model.spec.name, "The model")
        else:
            runtimes.append(Runtime(engine, precision, made.version))
    counted = _Counted(model, runtimes)
    for path in progress.track(images, f"{model.spec.name}: images"):
        check_stopped()
        counted.add(model.spec.preprocessing.load(path), halves)
    return RuntimeComparison(
        model=model.spec.name,
        bottleneck=model.spec.bottleneck.kind,
        trained=model.random_seed is None,
        images=len(images),
        runtimes=runtimes,
        symbols=counted.differences(),
        crossings=[Crossing(*pair, lost) for pair, lost in counted.lost.items()],
        not_compared=not_compared,
    )


def compare_models(
    names: Sequence[str],
    *,
    images: Path | None = None,
    most: int = 96,
    progress: Progress = SILENT,
) -> list[RuntimeComparison]:
    """Compare the runtimes on several models, with the same images.

    Args:
        names: Names or folders of models; those that are not carried get random weights.
        images: Folder of images; None makes synthetic ones.
        most: Most images to compare on.
        progress: Progress to report to.

    Raises:
        UnknownNameError: No model has that name.
        ImageError: The folder does not exist, or an image of it cannot be read.
        CalibrationError: The folder has fewer than 8 images.
    """
    comparisons = []
    for name in names:
        trained = Path(name).is_dir() or packaged_folder(name) is not None
        model = catalog.load(name, pretrained=trained)
        with tempfile.TemporaryDirectory() as temporary:
            used = images or Path(temporary) / "images"
            if images is None:
                used.mkdir()
                write_images(model.spec.preprocessing, used, min(most, _SYNTHETIC))
            read = read_images(model, used)
            chosen = [*read.held_out, *read.fitted][:most]
            comparisons.append(
                compare_runtimes(
                    model, chosen, Path(temporary), calibration=used, progress=progress
                )
            )
    return comparisons


class _Counted:
    """Sums over images, by pair of runtimes and tensor.

    Attributes:
        lost: Number of images lost, by the device's runtime and the edge's.
    """

    def __init__(self, model: SplitModel, runtimes: Sequence[Runtime]) -> None:
        self._names = model.bottleneck.wire_names
        edges = [runtime.name for runtime in runtimes if runtime.precision == "fp32"]
        self.lost = {(runtime.name, edge): 0 for runtime in runtimes for edge in edges}
        self._sums: dict[tuple[str, str, str], tuple[Comparison, int]] = {}

    def add(self, image: NDArray[np.float32], halves: dict[str, _Halves]) -> None:
        """Run an image through all of them."""
        sent = {name: runtime.send(image) for name, runtime in halves.items()}
        for (first, before), (second, after) in combinations(sent.items(), 2):
            for tensor, *values in zip(self._names, before, after, strict=True):
                if values[0].dtype.kind in "iu" and tensor != "indexes":
                    self._count((first, second, tensor), *values)
        streams = {}
        for device, tensors in sent.items():
            wire, codec = [tensor[0] for tensor in tensors], halves[device].codec
            streams[device] = codec.compress(*wire), codec.coder.decoded(*wire)[0]
        for device, edge in self.lost:
            stream, expected = streams[device]
            try:
                received = halves[edge].receive(stream)[0]
            except DesyncError:
                self.lost[device, edge] += 1
            else:
                self.lost[device, edge] += not np.array_equal(received, expected)

    def _count(self, key: tuple[str, str, str], first: NDArray[Any], second: NDArray[Any]) -> None:
        counted = compare_integers(first, second)
        before, images = self._sums.get(key, (Comparison(), 0))
        self._sums[key] = before + counted, images + (counted.differing > 0)

    def differences(self) -> list[Difference]:
        """Return what was counted of each pair of runtimes and tensor."""
        return [
            Difference(*key, counted.symbols, counted.differing, counted.largest, images)
            for key, (counted, images) in self._sums.items()
        ]
