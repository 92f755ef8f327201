"""Open a bundle: its manifest, its files by checked path, and the parts that they hold."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .coding import Codec, load_coder
from .errors import BundleError, TablesError
from .files import sha256_file
from .limits import Limits
from .manifest import MANIFEST_NAME, GraphInfo, Manifest, read_manifest
from .preprocessing import Preprocessing

ENGINES_FOLDER = "engines"
"""Holds what was built on the machine that the bundle lies on; no manifest can name it."""

_AGAIN = "Copy or export the bundle again."


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder and its manifest, checked; from :func:`open_bundle`.

    Attributes:
        folder: Folder of the bundle.
        manifest: All that ``manifest.json`` says.
        trusted: Whether graphs are run whatever operators they hold.
    """

    folder: Path
    manifest: Manifest
    trusted: bool = False

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.manifest.spec["name"]

    @property
    def task(self) -> str:
        """Task of the model, such as ``"image-classification"``."""
        return self.manifest.spec["task"]

    @property
    def precision(self) -> str:
        """Precision of the device graph, such as ``"fp32"``."""
        return self.manifest.precision

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes the device graph's input."""
        return self.manifest.preprocessing

    @property
    def limits(self) -> Limits:
        """How far the graphs may be from the record."""
        return self.manifest.parity.limits

    @property
    def graphs(self) -> dict[str, GraphInfo]:
        """The graphs by name: ``device``, ``edge``, and those that not every model has."""
        return self.manifest.graphs

    @property
    def device(self) -> GraphInfo:
        """The device graph."""
        return self.graphs["device"]

    @property
    def edge(self) -> GraphInfo:
        """The edge graph."""
        return self.graphs["edge"]

    def path(self, name: str) -> Path:
        """Return where a file that the manifest names lies."""
        return self.folder / name

    def codec(self) -> Codec:
        """Load the coder and its tables.

        Raises:
            BundleError: They are damaged, or of another kind or other channels than the graphs.
        """
        coding = self.manifest.coding
        try:
            coder = load_coder(coding.kind, coding.settings, self.checked_path(coding.tables))
        except TablesError as error:
            raise BundleError(error.message, next_step="Export the bundle again.") from error
        hyper = self.graphs.get("hyper")
        found = len(self.device.outputs), len(self.edge.inputs), hyper is not None
        gives = coder.num_outputs + (len(hyper.outputs) - 1 if hyper else 0)
        if found != (coder.num_inputs, gives, coder.needs_hyper):
            needs = "needs a" if coder.needs_hyper else "has no"
            raise BundleError(
                f"The coder {coding.kind} takes {coder.num_inputs} tensors, gives {gives} and "
                f"{needs} hyper graph; the bundle's device gives {found[0]}, its edge takes "
                f"{found[1]}, and it has {'one' if hyper else 'none'}.",
                next_step="Export the bundle again.",
            )
        channels = [tensor.shape[1] for tensor in self.device.outputs]
        if coder.channels not in channels:
            differ = f"The tables have {coder.channels} channels, the latent {channels[0]}."
            raise BundleError(differ, next_step="Export the bundle again.")
        return Codec(coder, bytes.fromhex(coding.model_id), coding.shape)

    def labels(self) -> list[str]:
        """Load the class labels, one for each output."""
        try:
            text = self.checked_path(self.manifest.labels).read_text(encoding="utf-8")
            labels = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"Cannot read the bundle's labels: {error}.") from error
        if not isinstance(labels, list) or not all(
            isinstance(label, str) and label.isprintable() for label in labels
        ):
            raise BundleError("The bundle's labels are not a list of words.")
        return labels

    def checked_path(self, name: str) -> Path:
        """Return where a file lies; raise ``BundleError`` if it is missing or was changed."""
        path, expected = self.path(name), self.manifest.files[name]
        if not path.is_file():
            raise BundleError(f"The bundle lacks {name}.", next_step="Copy or export it again.")
        found = sha256_file(path)
        if found != expected:
            digests = f"its SHA-256 is {found[:12]}…, the manifest says {expected[:12]}…"
            raise BundleError(f"{name} was changed: {digests}.", next_step=_AGAIN)
        return path

    def check_files(self) -> None:
        """Raise ``BundleError`` if a file is missing, changed, or not in the manifest."""
        for name in self.manifest.files:
            self.checked_path(name)
        builds = any(graph.engine == "tensorrt" for graph in self.graphs.values())
        extra = sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_symlink() or not (path.is_dir() or _is_made_here(path, self.folder, builds))
        )
        unknown = [name for name in extra if name not in {*self.manifest.files, MANIFEST_NAME}]
        if unknown:
            raise BundleError(
                f"The bundle holds files that its manifest does not name: {', '.join(unknown)}.",
                next_step="Remove them, or export the bundle again.",
            )


def open_bundle(folder: str | Path, *, trust: bool = False) -> Bundle:
    """Read and check a bundle's manifest; :meth:`Bundle.check_files` checks what files contain.

    Args:
        folder: Folder of the bundle.
        trust: Run graphs whatever operators they hold; without it, those that splitzoo writes.

    Raises:
        BundleError: The manifest is missing, damaged, of another schema, or names a path outside
            the folder or a file that is not there.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    bundle = Bundle(folder, manifest, trust)
    used = [manifest.coding.tables, manifest.labels, manifest.selftest]
    for graph in bundle.graphs.values():
        used += [graph.file] if graph.weights is None else [graph.file, graph.weights]
    for name in (*manifest.files, *used):
        _check_inside(folder, name)
    for name in used:
        if name not in manifest.files:
            raise _damaged(folder, f"{name} is used but not listed under files")
        if not bundle.path(name).is_file():
            raise BundleError(f"The bundle lacks {name}.", next_step="Copy or export it again.")
    return bundle


def _is_made_here(path: Path, folder: Path, builds: bool) -> bool:
    """Say whether Python or, where it ``builds``, TensorRT left this file there at a run."""
    parts = path.relative_to(folder).parts
    bytecode = parts[0] == "splitrun" and parts[-2] == "__pycache__" and path.suffix == ".pyc"
    return bytecode or (builds and parts[0] == ENGINES_FOLDER and len(parts) > 1)


def _check_inside(folder: Path, name: str) -> None:
    """Refuse a path that leaves the folder, or that is not plainly written."""
    relative, root = PurePosixPath(name), folder.resolve()
    plain = name and name.isprintable() and not {"\\", ":"} & set(name)
    escapes = not plain or relative.is_absolute() or ".." in relative.parts
    if escapes or not (path := (root / relative).resolve()).is_relative_to(root) or path == root:
        raise BundleError(
            f"The manifest names a path outside the bundle: {name!r}.",
            next_step="Do not use this bundle.",
        )
    if relative.as_posix() != name:
        # A file's digest is looked up by its path: one file, one spelling.
        raise _damaged(folder, f"the path {name!r} is not plainly written")


def _damaged(folder: Path, detail: str) -> BundleError:
    return BundleError(f"{folder / MANIFEST_NAME} is damaged: {detail}.", next_step=_AGAIN)
