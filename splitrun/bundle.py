"""Read a bundle: its manifest, checked, and the parts that it names."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from .coding import Codec, load_coder
from .errors import BundleError, TablesError
from .files import sha256_file
from .limits import Limits
from .preprocessing import Preprocessing

SCHEMA_VERSION = 3
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 22
DTYPES = ("float32", "int32", "uint8")
ENGINES_FOLDER = "engines"
"""Holds what was built on the machine that the bundle lies on; no manifest can name it."""

_MAX_DIMENSION = 1 << 22
_MAX_THREADS = 1 << 10


@dataclass(frozen=True)
class TensorInfo:
    """Name, type and shape of a graph's input or output; -1 is an open batch dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphInfo:
    """One graph of a bundle.

    Attributes:
        path: Of its file.
        engine: That runs it.
        inputs: In order.
        outputs: In order.
        weights: Of a second file that the engine reads with the first, if there is one.
        threads: For the engine where nobody says otherwise; 0 lets it choose.
        hint: At the precision to compute in, for engines that choose one.
    """

    path: Path
    engine: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    weights: Path | None = None
    threads: int = 0
    hint: str = ""


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and what its manifest says.

    Attributes:
        folder: Of the bundle.
        name: Of the model.
        task: Of the model, such as ``"image-classification"``.
        target: Such as ``"cpu"``.
        precision: Of the device graph, such as ``"fp32"``.
        weights: ``"random"`` or ``"trained"``.
        preprocessing: From image file to the device graph's input.
        graphs: ``device``: image float32 to the wire tensors. ``edge``: what the coder gives back
            to the output. ``hyper``, where the coder needs it: symbols of z to scale indexes.
            ``boxes``, for detectors: their second stage.
        coder: Kind of the coder.
        coder_settings: Of the coder.
        model_id: 4 bytes, in each stream.
        coded_shape: Height and width, of the tensor that is decoded first, that are not sent.
        limits: How far the graphs may be from the record.
        postprocessing: Of the edge graph's outputs, where the task has any.
        files: SHA-256 of every file but the manifest, by path within the folder.
        part_paths: The files of tables, labels and self-test.
    """

    folder: Path
    name: str
    task: str
    target: str
    precision: str
    weights: str
    preprocessing: Preprocessing
    graphs: dict[str, GraphInfo]
    coder: str
    coder_settings: dict[str, str | int]
    model_id: bytes
    coded_shape: tuple[int, int]
    limits: Limits
    postprocessing: dict[str, Any]
    files: dict[str, str]
    part_paths: dict[str, Path]

    @property
    def device(self) -> GraphInfo:
        """The device graph."""
        return self.graphs["device"]

    @property
    def edge(self) -> GraphInfo:
        """The edge graph."""
        return self.graphs["edge"]

    def codec(self) -> Codec:
        """Load the coder and its tables.

        Raises:
            BundleError: They are damaged, or of another kind or other channels than the graphs.
        """
        self.check_file(self.part_paths["tables"])
        try:
            coder = load_coder(self.coder, self.coder_settings, self.part_paths["tables"])
        except TablesError as error:
            raise BundleError(error.message, next_step="Export the bundle again.") from error
        hyper = self.graphs.get("hyper")
        found = len(self.device.outputs), len(self.edge.inputs), hyper is not None
        gives = coder.gives + (len(hyper.outputs) - 1 if hyper else 0)
        if found != (coder.takes, gives, coder.needs_hyper):
            needs = "needs a" if coder.needs_hyper else "has no"
            raise BundleError(
                f"The coder {self.coder} takes {coder.takes} tensors, gives {gives} and {needs} "
                f"hyper graph; the bundle's device gives {found[0]}, its edge takes {found[1]}, "
                f"and it has {'one' if hyper else 'none'}.",
                next_step="Export the bundle again.",
            )
        sent = [tensor.shape[1] for tensor in self.device.outputs if len(tensor.shape) == 4]
        if coder.channels not in sent:
            raise BundleError(
                f"The tables have {coder.channels} channels, the latent {sent[0]}.",
                next_step="Export the bundle again.",
            )
        return Codec(coder, self.model_id, self.coded_shape)

    def labels(self) -> list[str]:
        """Load the class labels, one for each output."""
        self.check_file(self.part_paths["labels"])
        try:
            labels = json.loads(self.part_paths["labels"].read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"Cannot read the bundle's labels: {error}.") from error
        if not isinstance(labels, list) or not all(
            isinstance(label, str) and label.isprintable() for label in labels
        ):
            raise BundleError("The bundle's labels are not a list of words.")
        return labels

    def check_file(self, path: Path) -> None:
        """Compare a file with the manifest's SHA-256.

        Raises:
            BundleError: It is missing or was changed.
        """
        name = path.relative_to(self.folder).as_posix()
        expected = self.files[name]
        if not path.is_file():
            raise BundleError(f"The bundle lacks {name}.", next_step="Copy or export it again.")
        found = sha256_file(path)
        if found != expected:
            raise BundleError(
                f"{name} was changed: its SHA-256 is {found[:12]}…, the manifest says "
                f"{expected[:12]}….",
                next_step="Copy or export the bundle again.",
            )

    def check_files(self) -> None:
        """Compare every file with the manifest's SHA-256.

        Raises:
            BundleError: A file is missing, changed, or not in the manifest.
        """
        for name in self.files:
            self.check_file(_inside(self.folder, name))
        builds = any(graph.engine == "tensorrt" for graph in self.graphs.values())
        extra = sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_symlink() or not (path.is_dir() or _is_made_here(path, self.folder, builds))
        )
        unknown = [name for name in extra if name not in self.files and name != MANIFEST_NAME]
        if unknown:
            raise BundleError(
                f"The bundle holds files that its manifest does not name: {', '.join(unknown)}.",
                next_step="Remove them, or export the bundle again.",
            )


def open_bundle(folder: Path) -> Bundle:
    """Read and check a bundle's manifest; :meth:`Bundle.check_files` checks what files contain.

    Raises:
        BundleError: The manifest is missing, damaged, of a newer schema, or names a path outside
            the folder or a file that is not there.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise BundleError(
            f"{folder} is not a bundle: it has no {MANIFEST_NAME}.",
            next_step="Make one with: splitzoo export split --target cpu -o DIR",
        )
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB.")
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
        if not isinstance(version, int) or version < 1:
            raise ValueError(f"schema_version is {version!r}")
        if version < SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema {version}; this reads schema {SCHEMA_VERSION}.",
                next_step="Use the splitrun inside the bundle, or export it again.",
            )
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema {version}; this reads up to {SCHEMA_VERSION}.",
                next_step="Use the splitrun inside the bundle, or: pip install --upgrade splitzoo",
            )
        return _parse(folder, manifest)
    except (
        AttributeError,
        KeyError,
        OSError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        detail = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{path} is damaged: {detail}.", next_step="Copy or export the bundle again."
        ) from error


def _parse(folder: Path, manifest: dict[str, Any]) -> Bundle:
    spec, coding = manifest["spec"], manifest["coding"]
    files = {name: _text(digest) for name, digest in manifest["files"].items()}

    def listed(name: str) -> Path:
        path = _inside(folder, name)
        if name not in files:
            raise ValueError(f"{name} is used but not listed under files")
        if not path.is_file():
            raise BundleError(f"The bundle lacks {name}.", next_step="Copy or export it again.")
        return path

    for name in files:
        _inside(folder, name)
    preprocessing: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in spec["preprocessing"].items()
    }
    model_id = bytes.fromhex(_text(coding["model_id"]))
    if len(model_id) != 4:
        raise ValueError(f"model_id has {len(model_id)} bytes, not 4")
    bundle = Bundle(
        folder=folder,
        name=_text(spec["name"]),
        task=_text(spec["task"]),
        target=_text(manifest["target"]),
        precision=_text(manifest["precision"]),
        weights=_text(manifest["provenance"]["weights"]),
        preprocessing=Preprocessing(**preprocessing),  # checks itself
        graphs={_text(name): _graph(listed, graph) for name, graph in manifest["graphs"].items()},
        coder=_text(coding["kind"]),
        coder_settings=_settings(coding["settings"]),
        model_id=model_id,
        coded_shape=_shape(coding["shape"], rank=2),  # pyright: ignore[reportArgumentType]
        limits=Limits(**manifest["parity"]["limits"]),  # checks itself
        postprocessing=dict(manifest["postprocessing"]),
        files=files,
        part_paths={
            "tables": listed(coding["tables"]),
            "labels": listed(manifest["labels"]),
            "selftest": listed(manifest["selftest"]),
        },
    )
    if [one.shape[1:] for one in bundle.device.inputs] != [(3, *bundle.preprocessing.crop)]:
        raise ValueError("the device graph's input is not the preprocessed image")
    _check_gap(bundle)
    _check_task(bundle)
    return bundle


def _check_gap(bundle: Bundle) -> None:
    """See that what leaves one graph is what the next one takes."""
    for tensor in (*bundle.device.outputs, *bundle.edge.inputs):
        if len(tensor.shape) != 4:
            raise ValueError(f"{tensor.name} has {len(tensor.shape)} dimensions, not 4")
    given = {tensor.name: tensor for tensor in bundle.device.outputs}
    if bundle.coded_shape not in {tensor.shape[2:] for tensor in given.values()}:
        raise ValueError(f"no tensor that the device gives is {bundle.coded_shape}")
    hyper = bundle.graphs.get("hyper")
    if hyper:
        meet = [tensor.name for tensor in hyper.inputs] == ["hyper_symbols"]
        meet &= hyper.outputs[0].name in ("indexes", "params")
        if not meet or given.get("hyper_symbols") != hyper.inputs[0]:
            raise ValueError("the hyper graph does not turn hyper_symbols into indexes")
        given |= {tensor.name: tensor for tensor in hyper.outputs}
    for tensor in bundle.edge.inputs:
        # An autoregressive coder makes one latent of another.
        if tensor.name in given and given[tensor.name] != tensor:
            raise ValueError(f"the halves do not meet: {tensor.name} is not what the device gives")


def _check_task(bundle: Bundle) -> None:
    """See that the edge gives what an answer of this task is made of."""
    outputs, boxes = bundle.edge.outputs, bundle.graphs.get("boxes")
    if bundle.task != "object-detection":
        if boxes or len(outputs) != 1:
            raise ValueError(f"the outputs are not those of {bundle.task}")
        return
    if boxes is None:
        raise ValueError("a detector without a boxes graph")
    # Levels of features, then objectness (1, anchors) and deltas (1, anchors, 4).
    ranks = [len(tensor.shape) for tensor in outputs]
    if len(outputs) < 3 or ranks != [4] * (len(outputs) - 2) + [2, 3]:
        raise ValueError("the edge graph does not give levels, objectness and deltas")
    others = [tensor.name for tensor in boxes.inputs[-2:]]
    meet = boxes.inputs[:-2] == outputs[:-2] and len(boxes.outputs) == 2
    if not meet or {tensor.name for tensor in outputs}.intersection(others):
        raise ValueError("the boxes graph does not take the levels that the edge graph gives")


def _graph(listed: Callable[[Any], Path], graph: dict[str, Any]) -> GraphInfo:
    inputs, outputs = (tuple(map(_tensor, graph[side])) for side in ("inputs", "outputs"))
    if not inputs or not outputs:
        raise ValueError("a graph lacks inputs or outputs")
    for tensors in (inputs, outputs):
        names = {tensor.name for tensor in tensors}
        if len(names) < len(tensors) or not all(tensor.shape for tensor in tensors):
            raise ValueError("a graph has a tensor twice, or one without dimensions")
    threads, weights = graph["threads"], graph["weights"]
    if type(threads) is not int or not 0 <= threads <= _MAX_THREADS:
        raise ValueError(f"a graph cannot have {threads!r} threads")
    return GraphInfo(
        path=listed(graph["file"]),
        engine=_text(graph["engine"]),
        inputs=inputs,
        outputs=outputs,
        weights=None if weights is None else listed(weights),
        threads=threads,
        hint=_text(graph["hint"]),
    )


def _settings(value: Any) -> dict[str, str | int]:
    settings = {
        _text(name): _text(one) if isinstance(one, str) else one for name, one in value.items()
    }
    if not all(type(one) is int or isinstance(one, str) for one in settings.values()):
        raise ValueError("a setting of the coder is neither word nor whole number")
    return settings


def _tensor(info: dict[str, Any]) -> TensorInfo:
    dtype = _text(info["dtype"])
    if dtype not in DTYPES:
        raise ValueError(f"the type {dtype} is not one of {', '.join(DTYPES)}")
    return TensorInfo(_text(info["name"]), dtype, _shape(info["shape"]))


def _shape(value: Any, *, rank: int | None = None) -> tuple[int, ...]:
    shape = tuple(value)
    for position, size in enumerate(shape):
        open_batch = size == -1 and position == 0 and rank is None
        if type(size) is not int or not (open_batch or 1 <= size <= _MAX_DIMENSION):
            raise ValueError(f"{value} is no shape")
    if rank is not None and len(shape) != rank:
        raise ValueError(f"{value} has not {rank} dimensions")
    return shape


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    if not value.isprintable():
        raise ValueError(f"{value!r} holds control characters")
    return value


def _is_made_here(path: Path, folder: Path, builds: bool) -> bool:
    """Say whether Python or TensorRT, running the bundle's own runtime, left this file there.

    Args:
        builds: TensorRT may have: it builds engines for this bundle.
    """
    parts = path.relative_to(folder).parts
    bytecode = parts[0] == "splitrun" and parts[-2] == "__pycache__" and path.suffix == ".pyc"
    return bytecode or (builds and parts[0] == ENGINES_FOLDER and len(parts) > 1)


def _inside(folder: Path, name: Any) -> Path:
    """Return the path of a bundle's file, refusing any that leaves the folder."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a path")
    relative = PurePosixPath(name)
    escapes = (
        not name
        or "\\" in name
        or ":" in name
        or not name.isprintable()
        or relative.is_absolute()
        or ".." in relative.parts
    )
    root = folder.resolve()
    if escapes or not (path := (root / relative).resolve()).is_relative_to(root) or path == root:
        raise BundleError(
            f"The manifest names a path outside the bundle: {name!r}.",
            next_step="Do not use this bundle.",
        )
    if relative.as_posix() != name:
        # A file's digest is looked up by its path: one file, one spelling.
        raise ValueError(f"the path {name!r} is not plainly written")
    return folder / relative
