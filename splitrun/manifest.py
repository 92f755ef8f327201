"""``manifest.json`` of a bundle: its schema, read strictly on the board, written by the exporter.

What only splitzoo reads (the model's spec, the calibration's record) is kept as plain JSON.
"""

import dataclasses
import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .bundle_layout import HALVES, MANIFEST_NAME, Half
from .errors import BundleError
from .limits import EDGE_TOLERANCES, LIMITS, Limits
from .precision_reports import EdgePrecisionReport, PrecisionReport
from .preprocessing import Preprocessing
from .strict_json import read_strictly

SCHEMA_VERSION = 6
DTYPES = ("float32", "int32", "uint8")

TAIL_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""What a tail may be called: also the name of its folder."""
_MAX_BYTES = 1 << 22
_MAX_DIMENSION = 1 << 22
_MAX_THREADS = 1 << 10
_AGAIN = "Copy or export the bundle again."


@dataclass(frozen=True)
class TensorInfo:
    """Input or output of a graph.

    Attributes:
        name: Name in the graph.
        dtype: One of :data:`DTYPES`.
        shape: Sizes; -1, at the first place, is an open batch dimension.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"the type {self.dtype} is not one of {', '.join(DTYPES)}")
        if not self.shape:
            raise ValueError(f"{self.name} is a tensor without dimensions")
        _check_sizes(self.shape[1:] if self.shape[0] == -1 else self.shape)


@dataclass(frozen=True)
class GraphInfo:
    """One graph of a bundle.

    Attributes:
        file: Path of its file in the bundle.
        engine: Engine that runs it.
        inputs: Inputs in order.
        outputs: Outputs in order.
        weights: Path of a second file that the engine reads with the first, if there is one.
        threads: Threads of the engine where nobody says otherwise; 0 lets it choose.
        hint: Precision to compute in, for engines that choose one.
    """

    file: str
    engine: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    weights: str | None = None
    threads: int = 0
    hint: str = ""

    @property
    def files(self) -> list[str]:
        """Paths of its files."""
        return [self.file] if self.weights is None else [self.file, self.weights]

    def __post_init__(self) -> None:
        for tensors in (self.inputs, self.outputs):
            if not tensors:
                raise ValueError("a graph lacks inputs or outputs")
            if len({tensor.name for tensor in tensors}) < len(tensors):
                raise ValueError("a graph has a tensor twice")
        if not 0 <= self.threads <= _MAX_THREADS:
            raise ValueError(f"a graph cannot have {self.threads} threads")


@dataclass(frozen=True)
class Coding:
    """What the entropy coder is made of.

    Attributes:
        kind: Kind of the coder.
        settings: Settings of the coder.
        tables: Path of the file of tables.
        stream_id: 8 hexadecimal digits: the 4 bytes in each stream.
        shape: Height and width, of the tensor that is decoded first, that are not sent.
        calibration: How the tables were fitted to images, if they were, as splitzoo's
            ``CalibrationRecord``.
    """

    kind: str
    settings: dict[str, str | int]
    tables: str
    stream_id: str
    shape: tuple[int, int]
    calibration: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if len(self.stream_id) != 8 or not set(self.stream_id) <= set("0123456789abcdef"):
            raise ValueError(f"stream_id is {self.stream_id!r}, not 8 hexadecimal digits")
        _check_sizes(self.shape)


@dataclass(frozen=True)
class EnginePair:
    """Two engines, by name and version; the second read what the first wrote."""

    device: str
    edge: str


@dataclass(frozen=True)
class Parity:
    """How the exported graphs compare with PyTorch on the same inputs.

    Attributes:
        limits: How far the graphs may be from PyTorch.
        images: Seeded test images compared.
        symbols: Symbols compared, over all images.
        symbols_differing: Symbols that differ.
        symbols_tied: Symbols at a tie: they may differ by 1.
        largest_difference: Largest difference of a symbol.
        output_max_relative_error: Largest |difference| over largest |output|.
        streams_decoded: Every stream gave back what went in; behind an image codec, what the codec
            gave back to PyTorch.
        pairs: Engines whose streams were read across.
    """

    limits: Limits
    images: int = 0
    symbols: int = 0
    symbols_differing: int = 0
    symbols_tied: int = 0
    largest_difference: int = 0
    output_max_relative_error: float = 0.0
    streams_decoded: bool = False
    pairs: tuple[EnginePair, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """Where the bundle comes from.

    Attributes:
        source: Name or folder that ``zoo.load`` was given.
        weights: ``"random"`` or ``"trained"``.
        seed: Seed of random weights.
        model_sha256: Digest of all tensors of the model, tables included.
        device_sha256: Digest of those that streams are made with; the stream id begins it.
        versions: Versions of the packages that made it.
        command: Command that made it.
    """

    source: str
    weights: Literal["random", "trained"]
    seed: int | None
    model_sha256: str
    device_sha256: str
    versions: dict[str, str]
    command: str

    @property
    def model_id(self) -> str:
        """8 hexadecimal digits that tell models apart, in reports."""
        return self.model_sha256[:8]


@dataclass(frozen=True)
class DeviceInfo:
    """The device half.

    Attributes:
        graph: Image float32 to the wire tensors.
        selftest: Path of the self-test's record.
        requirements: Packages that it needs, as pip takes them.
    """

    graph: GraphInfo
    selftest: str
    requirements: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """Paths of the files that this half alone has."""
        return [*self.graph.files, self.selftest]


@dataclass(frozen=True)
class TailInfo:
    """What the edge makes of a stream: one task's network and what its outputs say.

    Attributes:
        graph: The edge's inputs to the outputs.
        boxes: A detector's second stage.
        postprocessing: Settings of what is done with the outputs, where the task has any.
        labels: Path of the class labels.
        selftest: Path of the self-test's record.
        spec: Spec of the model that it is of, where that is another than the bundle's.
        provenance: Where that model comes from.
        precision_report: What the edge's precision changes, below fp32.
    """

    graph: GraphInfo
    boxes: GraphInfo | None
    postprocessing: dict[str, Any]
    labels: str
    selftest: str
    spec: dict[str, Any] | None = None
    provenance: Provenance | None = None
    precision_report: EdgePrecisionReport | None = None

    @property
    def graphs(self) -> dict[str, GraphInfo]:
        """The graphs by name."""
        return {"edge": self.graph} | ({"boxes": self.boxes} if self.boxes else {})


@dataclass(frozen=True)
class EdgeInfo:
    """The edge half: one or several tails, which read the same streams.

    Attributes:
        hyper: Symbols of z to scale indexes, where the coder needs them.
        tails: The tails by name, such as ``"classification"``.
        requirements: Packages that it needs, as pip takes them.
        precision: Precision of the tails' edge graphs, such as ``"int8"``; others are in fp32.
    """

    hyper: GraphInfo | None
    tails: dict[str, TailInfo]
    requirements: tuple[str, ...]
    precision: str

    def __post_init__(self) -> None:
        if self.precision not in EDGE_TOLERANCES:
            known = ", ".join(EDGE_TOLERANCES)
            raise ValueError(f"the edge's precision is {self.precision!r}, not one of {known}")
        if not self.tails:
            raise ValueError("the edge has no tail")
        for name in self.tails:
            if not TAIL_NAME.fullmatch(name):
                raise ValueError(f"a tail cannot be named {name!r}")

    @property
    def graphs(self) -> dict[str, GraphInfo]:
        """The graphs by name, that of its tail first where there are several."""
        found = {"hyper": self.hyper} if self.hyper else {}
        for tail, info in self.tails.items():
            prefix = f"{tail} " if len(self.tails) > 1 else ""
            found |= {f"{prefix}{name}": graph for name, graph in info.graphs.items()}
        return found

    @property
    def files(self) -> list[str]:
        """Paths of the files that this half alone has."""
        graphs = [file for graph in self.graphs.values() for file in graph.files]
        return graphs + [
            file for tail in self.tails.values() for file in (tail.labels, tail.selftest)
        ]


@dataclass(frozen=True)
class Manifest:
    """All of ``manifest.json``; it checks that its parts fit one another.

    It describes both halves, whichever of them is here.

    Attributes:
        schema_version: Always :data:`SCHEMA_VERSION`.
        halves: The halves that are here.
        spec: The model, as splitzoo's ``ModelSpec``.
        target: Target that the halves are for, such as ``"cpu"``.
        precision: Precision of the device graph, such as ``"fp32"``.
        coding: The entropy coder.
        device: The device half.
        edge: The edge half.
        parity: What was checked at export, and the limits.
        precision_report: What a precision below fp32 changes.
        provenance: Where the bundle comes from.
        files: SHA-256 of every file that is here but this one, by path.
    """

    schema_version: int
    halves: tuple[Half, ...]
    spec: dict[str, Any]
    target: str
    precision: str
    coding: Coding
    device: DeviceInfo
    edge: EdgeInfo
    parity: Parity
    precision_report: PrecisionReport | None
    provenance: Provenance
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.precision not in LIMITS:
            raise ValueError(f"precision is {self.precision!r}, not one of {', '.join(LIMITS)}")
        if not self.halves or len(set(self.halves)) < len(self.halves):
            raise ValueError("halves names none, or one twice")
        if absent := {file for half in self.absent for file in self.files_of(half)} & set(
            self.files
        ):
            raise ValueError(f"files lists {min(absent)}, of a half that is not here")
        _check_spec(self.spec, "spec")
        shapes = [tensor.shape[1:] for tensor in self.device.graph.inputs]
        if shapes != [(3, *self.preprocessing.crop)]:
            raise ValueError("the device graph's input is not the preprocessed image")
        for name, tail in self.edge.tails.items():
            if tail.spec is not None:
                _check_spec(tail.spec, f"edge.tails.{name}.spec")
            _check_wire(self, tail)
            _check_task(self.task_of(tail), tail)

    @property
    def precisions(self) -> str:
        """Precisions of both halves in words: ``"int8"``, or ``"fp32, edge int8"``."""
        edge = self.edge.precision
        return self.precision + (f", edge {edge}" if edge != "fp32" else "")

    @property
    def absent(self) -> tuple[Half, ...]:
        """The halves that are not here."""
        return tuple(half for half in HALVES if half not in self.halves)

    @property
    def graphs(self) -> dict[str, GraphInfo]:
        """The graphs of both halves by name: ``device``, ``hyper``, ``edge``, ``boxes``."""
        return {"device": self.device.graph, **self.edge.graphs}

    @property
    def requirements(self) -> tuple[str, ...]:
        """Packages that the halves here need, as pip takes them."""
        needed = (getattr(self, half).requirements for half in self.halves)
        return tuple(dict.fromkeys(one for half in needed for one in half))

    @property
    def requirements_text(self) -> str:
        """Content of ``requirements.txt``."""
        return "\n".join(self.requirements) + "\n"

    def files_of(self, half: Half) -> list[str]:
        """Return the paths of the files that one half alone has."""
        return (self.device if half == "device" else self.edge).files

    def task_of(self, tail: TailInfo) -> str:
        """Return a tail's task, such as ``"image-classification"``."""
        return (tail.spec or self.spec)["task"]

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the device graph's input."""
        return read_strictly(Preprocessing, self.spec.get("preprocessing"), "spec.preprocessing")

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into a folder whose other files are as it says."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
        (folder / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json`` of a bundle's folder.

    Raises:
        BundleError: It is missing, of another schema, or damaged; says where.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST_NAME}.",
            next_step="Make one with: splitzoo export split --target cpu -o DIR",
        )
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BundleError(f"{path} is larger than {_MAX_BYTES >> 20} MiB.", next_step=_AGAIN)
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("schema_version") if isinstance(content, dict) else None
        if type(version) is int and version > 0 and version != SCHEMA_VERSION:
            newer = ", or: pip install --upgrade splitzoo"
            raise BundleError(
                f"{path} has schema {version}; this reads schema {SCHEMA_VERSION}.",
                next_step="Use the splitrun inside the bundle"
                + (newer if version > SCHEMA_VERSION else ", or export it again."),
            )
        manifest = read_strictly(Manifest, content)
        if manifest.schema_version != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {manifest.schema_version}")
    except (OSError, RecursionError, ValueError) as error:
        raise BundleError(f"{path} is damaged: {error}.", next_step=_AGAIN) from error
    return manifest


def _check_sizes(sizes: tuple[int, ...]) -> None:
    if not all(1 <= size <= _MAX_DIMENSION for size in sizes):
        raise ValueError("a size is not a whole number from 1 on, or too large")


def _check_spec(spec: dict[str, Any], where: str) -> None:
    for name in ("name", "task"):
        if not isinstance(spec.get(name), str):
            raise ValueError(f"{where}.{name} is missing, or not a word")


def _check_wire(manifest: Manifest, tail: TailInfo) -> None:
    """See that what leaves one graph is what the next one takes."""
    device, edge = manifest.device.graph, tail.graph
    for tensor in (*device.outputs, *edge.inputs):
        if len(tensor.shape) != 4:
            raise ValueError(f"{tensor.name} has {len(tensor.shape)} dimensions, not 4")
    known = {tensor.name: tensor for tensor in device.outputs}
    if manifest.coding.shape not in {tensor.shape[2:] for tensor in device.outputs}:
        raise ValueError(f"no output of the device graph is {manifest.coding.shape}")
    if hyper := manifest.edge.hyper:
        fits = [tensor.name for tensor in hyper.inputs] == ["hyper_symbols"]
        fits &= hyper.outputs[0].name in ("indexes", "params")
        if not fits or known.get("hyper_symbols") != hyper.inputs[0]:
            raise ValueError("the hyper graph does not turn hyper_symbols into indexes")
        known |= {tensor.name: tensor for tensor in hyper.outputs}
    for tensor in edge.inputs:
        # An autoregressive coder makes a latent of floats out of another one.
        if known.get(tensor.name, dataclasses.replace(tensor, dtype="float32")) != tensor:
            raise ValueError(f"the halves do not meet: {tensor.name} is not what the device gives")


def _check_task(task: str, tail: TailInfo) -> None:
    """See that a tail gives what a prediction of its task is made of."""
    boxes, outputs = tail.boxes, tail.graph.outputs
    if task != "object-detection":
        if boxes or len(outputs) != 1:
            raise ValueError(f"the outputs are not those of {task}")
        return
    if boxes is None:
        raise ValueError("a detector without a boxes graph")
    # Levels of features, then objectness (1, anchors) and deltas (1, anchors, 4).
    ranks = [len(tensor.shape) for tensor in outputs]
    if len(outputs) < 3 or ranks != [4] * (len(outputs) - 2) + [2, 3]:
        raise ValueError("the edge graph does not give levels, objectness and deltas")
    names = {tensor.name for tensor in boxes.inputs[-2:]}
    fits = boxes.inputs[:-2] == outputs[:-2] and len(boxes.outputs) == 2
    if not fits or names.intersection(tensor.name for tensor in outputs):
        raise ValueError("the boxes graph does not take the levels that the edge graph gives")
