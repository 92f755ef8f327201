"""Read a checkpoint that torchdistill wrote for sc2-benchmark; nothing in it is ever run.

It is a pickle: a dictionary whose ``model`` is a state dict, beside what training needs to go on.
Released ones were written by sc2bench 0.0.3, whose torchdistill adds the configuration.
"""

import contextlib
import io
import mmap
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splitrun.errors import CheckpointError
from splitrun.files import sha256_file

from .pickles import ALLOWED, SAFE_GLOBALS, names_in

LIMIT_BYTES = 4 << 30
"""The largest released checkpoint has a tenth of it."""

_PICKLE_LIMIT_BYTES = 64 << 20
_ZIP_MAGIC, _PICKLE_MAGIC = b"PK\x03\x04", b"\x80"
# Before zip: a magic number, a version, facts of the system, the object, the names of its storages.
_OLD_PICKLES = 5
_PARALLEL = "module."
_AGAIN = "Get the file again from where it was released."

# What torch's unpickler, which is Python, may raise at bytes that are no checkpoint.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes:
        path: Of the file.
        sha256: Of the file.
        tensors: The model's, by sc2bench's names. They may lie in the file itself.
        beside: Names of what else is in it, such as the optimizer's state.
        parallel: Whether the names began with the ``module.`` of a model trained in parallel.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    beside: tuple[str, ...]
    parallel: bool


def read_checkpoint(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> Checkpoint:
    """Read a checkpoint, in torch's format of zip files or the one before.

    Args:
        path: Of the file.
        limit_bytes: Beyond which it is not read.

    Raises:
        CheckpointError: There is no such file; it is too large, damaged, or no checkpoint; or its
            pickle asks for more than a checkpoint needs. Nothing of it was run.
    """
    with _reading(path):
        require_file(path)
        size = path.stat().st_size
        if size > limit_bytes:
            raise CheckpointError(
                f"{path} has {size:,} bytes; checkpoints of up to {limit_bytes:,} are read."
            )
        zipped = zipfile.is_zipfile(path)
        _check_names(path, _names_in_zip(path, size) if zipped else _names_in_old(path))
        # Mapped, tensors take no memory until they are copied into a model.
        with warnings.catch_warnings(), torch.serialization.safe_globals(SAFE_GLOBALS):
            warnings.simplefilter("ignore")  # torch's own use of its old storages
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
        tensors, beside = _state_dict(path, loaded)
        _check_tensors(path, tensors, size)
    parallel = bool(tensors) and all(name.startswith(_PARALLEL) for name in tensors)
    if parallel:
        tensors = {name.removeprefix(_PARALLEL): one for name, one in tensors.items()}
    return Checkpoint(path, sha256_file(path), tensors, beside, parallel)


def require_file(path: Path) -> None:
    """Raise ``CheckpointError`` where there is no file."""
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder, not a checkpoint.",
            next_step="Convert all checkpoints below a folder: --all",
        )
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).partition("\n")[0].strip() or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {reason.rstrip('.')}.", next_step=_AGAIN
        ) from error


def _names_in_zip(path: Path, size: int) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        # torch stores them as they are. Compressed ones could be of any size once unpacked.
        if any(one.compress_type != zipfile.ZIP_STORED for one in records):
            raise ValueError("its records are compressed, which torch's never are")
        if sum(one.file_size for one in records) > size:
            raise ValueError("its records claim to be larger than the file")
        # torch maps the records and looks at no checksum.
        if damaged := archive.testzip():
            raise ValueError(f"its record {damaged} is damaged")
        pickles = [one for one in records if one.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("it is a zip file, but not one that torch wrote")
        if pickles[0].file_size > _PICKLE_LIMIT_BYTES:
            raise ValueError(f"its pickle is larger than {_PICKLE_LIMIT_BYTES >> 20} MiB")
        return names_in(io.BytesIO(archive.read(pickles[0])))


def _names_in_old(path: Path) -> set[str]:
    with path.open("rb") as file:
        start = file.read(len(_ZIP_MAGIC))
        if start == _ZIP_MAGIC:
            raise ValueError("it is cut short")
        if not start.startswith(_PICKLE_MAGIC):
            raise ValueError("it is no pickle")
        # A map's read never reserves more than the file has, whatever length a pickle claims.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            return set().union(*(names_in(stream) for _ in range(_OLD_PICKLES)))  # pyright: ignore[reportArgumentType]


def _check_names(path: Path, names: set[str]) -> None:
    more = sorted(names - ALLOWED)
    if more:
        raise CheckpointError(
            f"{path} was not read: its pickle asks for {', '.join(more)}, which no checkpoint of "
            "sc2-benchmark needs, and which may run any code.",
            next_step=f"{_AGAIN} Do not open this one with other tools.",
        )


def _state_dict(path: Path, loaded: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the model's tensors, and the names of all else."""
    # dict.items: a pickle can hide an ordered dictionary's own methods.
    entries = dict(dict.items(loaded)) if isinstance(loaded, dict) else {}
    model = entries.get("model")
    beside = ()
    if isinstance(model, dict):
        beside = tuple(sorted(str(name) for name in entries if name != "model"))
        entries = dict(dict.items(model))
    others = [name for name, one in entries.items() if not _is_tensor(name, one)]
    if not entries or others:
        what = f"its {others[0]!r} is no tensor" if others else "there are no tensors in it"
        raise CheckpointError(
            f"{path} is no checkpoint of a model: {what}.",
            next_step="A checkpoint is a state dict, or a dictionary whose 'model' is one.",
        )
    return entries, beside


def _is_tensor(name: Any, one: Any) -> bool:
    plain = isinstance(one, Tensor) and one.layout is torch.strided and not one.is_meta
    return isinstance(name, str) and plain


def _check_tensors(path: Path, tensors: dict[str, Tensor], size: int) -> None:
    """Refuse tensors that are larger than what the file has of them."""
    for name, one in tensors.items():
        if one.untyped_storage().nbytes() > size:
            raise CheckpointError(f"{path} is damaged: {name} is larger than the file.")
