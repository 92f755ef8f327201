"""Read a bundle: its manifest, checked, and the parts that it names."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import BundleError, TablesError
from ...files import sha256_file
from ...zoo.coding import Codec, FactorizedTables
from ...zoo.preprocessing import Preprocessing

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 22
_MAX_DIMENSION = 1 << 16


@dataclass(frozen=True)
class TensorInfo:
    """Name, type and shape of a graph's input or output; -1 is an open batch dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class HalfInfo:
    """One graph of a bundle."""

    path: Path
    input: TensorInfo
    output: TensorInfo


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and what its manifest says.

    Attributes:
        folder: Of the bundle.
        name: Of the model.
        task: Of the model, such as ``"image-classification"``.
        target: Such as ``"cpu"``.
        engine: That runs the graphs.
        weights: ``"random"`` or ``"trained"``.
        preprocessing: From image file to the device graph's input.
        device: Image float32 to symbols int32.
        edge: Symbols int32 to output.
        model_id: 4 bytes, in each stream.
        latent_shape: Channels, height, width.
        output_tolerance: Relative, of the edge graph's output.
        files: SHA-256 of every file but the manifest, by path within the folder.
        part_paths: The files of tables, labels and self-test.
    """

    folder: Path
    name: str
    task: str
    target: str
    engine: str
    weights: str
    preprocessing: Preprocessing
    device: HalfInfo
    edge: HalfInfo
    model_id: bytes
    latent_shape: tuple[int, int, int]
    output_tolerance: float
    files: dict[str, str]
    part_paths: dict[str, Path]

    def codec(self) -> Codec:
        """Load the entropy tables.

        Raises:
            BundleError: They are damaged or have other channels than the graphs.
        """
        self.check_file(self.part_paths["tables"])
        try:
            tables = FactorizedTables.load(self.part_paths["tables"])
        except TablesError as error:
            raise BundleError(error.message, next_step="Export the bundle again.") from error
        if tables.channels != self.latent_shape[0]:
            raise BundleError(
                f"The tables have {tables.channels} channels, the latent {self.latent_shape[0]}."
            )
        return Codec(tables, self.model_id, self.latent_shape[1:])

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
        extra = sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_symlink() or not (path.is_dir() or _is_bytecode(path, self.folder))
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
    if coding["kind"] != "factorized":
        raise ValueError(f"the coder {coding['kind']!r} is unknown")
    model_id = bytes.fromhex(_text(coding["model_id"]))
    if len(model_id) != 4:
        raise ValueError(f"model_id has {len(model_id)} bytes, not 4")
    bundle = Bundle(
        folder=folder,
        name=_text(spec["name"]),
        task=_text(spec["task"]),
        target=_text(manifest["target"]),
        engine=_text(manifest["engine"]),
        weights=_text(manifest["provenance"]["weights"]),
        preprocessing=Preprocessing(**preprocessing),  # checks itself
        device=_half(listed, manifest["device"]),
        edge=_half(listed, manifest["edge"]),
        model_id=model_id,
        latent_shape=_shape(coding["latent_shape"], rank=3),  # pyright: ignore[reportArgumentType]
        output_tolerance=float(manifest["parity"]["output_tolerance"]),
        files=files,
        part_paths={
            "tables": listed(coding["tables"]),
            "labels": listed(manifest["labels"]),
            "selftest": listed(manifest["selftest"]),
        },
    )
    if bundle.device.input.shape[1:] != (3, *bundle.preprocessing.crop):
        raise ValueError("the device graph's input is not the preprocessed image")
    if not bundle.device.output.shape[1:] == bundle.edge.input.shape[1:] == bundle.latent_shape:
        raise ValueError("the halves do not meet at the latent's shape")
    return bundle


def _half(listed, half: dict[str, Any]) -> HalfInfo:
    return HalfInfo(listed(half["file"]), _tensor(half["input"]), _tensor(half["output"]))


def _tensor(info: dict[str, Any]) -> TensorInfo:
    dtype = _text(info["dtype"])
    if dtype not in ("float32", "int32"):
        raise ValueError(f"the type {dtype} is not float32 or int32")
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


def _is_bytecode(path: Path, folder: Path) -> bool:
    """Say whether Python, running the bundle's own runtime, left this file there."""
    parts = path.relative_to(folder).parts
    return parts[0] == "splitrun" and parts[-2] == "__pycache__" and path.suffix == ".pyc"


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
