"""Open a bundle: its manifest, its files by checked path, and the parts that they hold."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .bundle_layout import ENGINES_FOLDER, HALVES, LIBRARIES, MANIFEST_NAME, Half
from .coding import Codec, load_coder
from .errors import BundleError, SplitzooError, TablesError
from .files import new_folder, sha256_file
from .limits import Limits
from .manifest import DeviceInfo, EdgeInfo, GraphInfo, Manifest, TailInfo, read_manifest
from .preprocessing import Preprocessing
from .text import is_plain

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
        """The graphs that are here, by name, as in :attr:`.Manifest.graphs`."""
        found = self.manifest.graphs
        if "edge" not in self.manifest.halves:
            return {"device": found["device"]}
        if "device" not in self.manifest.halves:
            del found["device"]
        return found

    @property
    def device(self) -> DeviceInfo:
        """The device half.

        Raises:
            BundleError: It is not here.
        """
        self.check_here("device")
        return self.manifest.device

    @property
    def edge(self) -> EdgeInfo:
        """The edge half.

        Raises:
            BundleError: It is not here.
        """
        self.check_here("edge")
        return self.manifest.edge

    def tail(self, name: str | None = None) -> TailInfo:
        """Return a tail of the edge.

        Args:
            name: Name of the tail; None takes the only one.

        Raises:
            BundleError: There is no such tail, or there are several; or the edge is not here.
        """
        tails = self.edge.tails
        if name is None and len(tails) == 1:
            return next(iter(tails.values()))
        if name not in tails:
            wrong = "has several tails" if name is None else f"has no tail {name!r}"
            raise BundleError(
                f"{self.folder} {wrong}.", next_step=f"Choose one of: {', '.join(tails)}."
            )
        return tails[name]

    def size_bytes(self, half: Half) -> int:
        """Return the size of what a half loads to run: its graphs and labels, and the tables."""
        manifest = self.manifest
        records = {
            manifest.device.selftest,
            *(tail.selftest for tail in manifest.edge.tails.values()),
        }
        files = {*manifest.files_of(half), manifest.coding.tables} - records
        return sum(self.path(name).stat().st_size for name in files)

    def check_here(self, half: Half) -> None:
        """Raise ``BundleError`` if a half is not here; it says where it can be had."""
        if half not in self.manifest.halves:
            raise BundleError(
                f"{self.folder} holds the {self.manifest.halves[0]} half alone, and this needs the "
                f"{half} half of model {self.manifest.coding.stream_id}.",
                next_step="Name the bundle that holds it, or make one: splitrun part WHOLE --half "
                f"{half} -o DIR, or splitzoo export split MODEL --half {half}",
            )

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
        device, edge = self.manifest.device.graph, self.manifest.edge
        hyper = edge.hyper
        gives = coder.num_outputs + (len(hyper.outputs) - 1 if hyper else 0)
        for tail in edge.tails.values():
            found = len(device.outputs), len(tail.graph.inputs), hyper is not None
            if found != (coder.num_inputs, gives, coder.needs_hyper):
                needs = "needs a" if coder.needs_hyper else "has no"
                raise BundleError(
                    f"The coder {coding.kind} takes {coder.num_inputs} tensors, gives {gives} and "
                    f"{needs} hyper graph; the bundle's device gives {found[0]}, its edge takes "
                    f"{found[1]}, and it has {'one' if hyper else 'none'}.",
                    next_step="Export the bundle again.",
                )
        channels = [tensor.shape[1] for tensor in device.outputs]
        if coder.channels not in channels:
            differ = f"The tables have {coder.channels} channels, the latent {channels[0]}."
            raise BundleError(differ, next_step="Export the bundle again.")
        return Codec(coder, bytes.fromhex(coding.stream_id), coding.shape)

    def labels(self, tail: TailInfo) -> list[str]:
        """Load the class labels of a tail, one for each output."""
        try:
            text = self.checked_path(tail.labels).read_text(encoding="utf-8")
            labels = json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise BundleError(f"Cannot read the bundle's labels: {error}.") from error
        if not isinstance(labels, list) or not all(
            isinstance(label, str) and is_plain(label) and len(label) <= 200 for label in labels
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
    of_halves = {half: manifest.files_of(half) for half in HALVES}
    for name in (*manifest.files, manifest.coding.tables, *of_halves["device"], *of_halves["edge"]):
        _check_inside(folder, name)
    used = [manifest.coding.tables, *(name for half in manifest.halves for name in of_halves[half])]
    for name in used:
        if name not in manifest.files:
            raise _damaged(folder, f"{name} is used but not listed under files")
        if not bundle.path(name).is_file():
            raise BundleError(f"The bundle lacks {name}.", next_step="Copy or export it again.")
    return bundle


@contextlib.contextmanager
def new_bundle(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder as :func:`.files.new_folder` does.

    Of a bundle that it replaces by force, no file stays, what was built there included.
    """
    earlier: set[str] = set()
    with contextlib.suppress(SplitzooError):
        earlier.update(open_bundle(folder).manifest.files)
        built = (*folder.glob(f"{ENGINES_FOLDER}/*"), *folder.glob(LIBRARIES))
        earlier.update(path.relative_to(folder).as_posix() for path in built)
    with new_folder(folder, force=force) as temporary:
        yield temporary
        left = [name for name in sorted(earlier) if not (temporary / name).exists()]
    for name in left:
        (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            (folder / name).parent.rmdir()  # refused where something is in it


def _is_made_here(path: Path, folder: Path, builds: bool) -> bool:
    """Say whether Python, a compiler or, where it ``builds``, TensorRT left this file there."""
    relative = path.relative_to(folder)
    parts = relative.parts
    bytecode = parts[0] == "splitrun" and parts[-2] == "__pycache__" and path.suffix == ".pyc"
    library = len(parts) == LIBRARIES.count("/") + 1 and relative.match(LIBRARIES)
    return bytecode or library or (builds and parts[0] == ENGINES_FOLDER and len(parts) > 1)


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
