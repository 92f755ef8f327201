"""Read a checkpoint that torchdistill wrote for sc2-benchmark; nothing in it is ever run.

It is a pickle: a dictionary whose ``model`` is a state dict, beside what training needs to go on.
Released ones were written by sc2bench 0.0.3, whose torchdistill adds the configuration. torch's
weights-only unpickler reads it, with a list of the few names that a checkpoint may ask for.
"""

import contextlib
import pickle
import re
import struct
import unittest.mock
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from torch import Tensor, _weights_only_unpickler

from splitrun.errors import CheckpointError
from splitrun.files import sha256_file

LIMIT_BYTES = 4 << 30
"""Largest file that is read; the largest released checkpoint has a tenth of it."""

_PICKLE_LIMIT_BYTES = 8 << 20
"""Largest pickle in a file; a ResNet-101's with its optimizer has a tenth of it."""

_PARALLEL = "module."
_AGAIN = "Get the file again from where it was released."
_ASKED = re.compile(r"GLOBAL (\S+)")

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

_NUMBERS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}


class _NumberType:
    """Stands for ``numpy.dtype``, which would reserve as much memory as a hostile one says."""

    def __init__(self, code: str, *_: object) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _number(kind: _NumberType, data: bytes) -> float:
    """Stands for numpy's function that makes a scalar: the best value in validation is one."""
    (value,) = struct.unpack(kind.order + _NUMBERS[kind.code], data)
    return value


def _encode(text: str, encoding: str) -> bytes:
    """Stands for ``_codecs.encode``: bytes in this protocol. Others grow what they encode."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError(f"its pickle encodes a {type(text).__name__} as {encoding!r}")
    return text.encode(encoding)


_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_TORCHS_OWN = (
    "builtins.set",
    "collections.OrderedDict",
    "collections.Counter",  # milestones of a learning rate
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *(f"torch.{kind}Storage" for kind in _STORAGES),
)
_STAND_INS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "argparse.Namespace": Namespace,
    "numpy.core.multiarray.scalar": _number,
    "numpy._core.multiarray.scalar": _number,
    "numpy.dtype": _NumberType,
    "pathlib.PosixPath": PurePosixPath,
    "pathlib.WindowsPath": PureWindowsPath,
}
ALLOWED = frozenset((*_TORCHS_OWN, *_STAND_INS))
"""Everything that a checkpoint may ask for."""


@contextlib.contextmanager
def _allow_list() -> Iterator[None]:
    """Give torch's weights-only unpickler our list, which is shorter than its own.

    Its own would make a bytearray of any size, and encode bytes again and again.
    """
    known = _weights_only_unpickler._get_allowed_globals()
    ours = {name: known[name] for name in _TORCHS_OWN} | _STAND_INS
    with unittest.mock.patch.dict(known, ours, clear=True):
        yield


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint.

    Attributes:
        path: Path of the file.
        sha256: SHA-256 of the file.
        tensors: The model's tensors, by sc2bench's names. They may lie in the file itself.
        beside: Names of what else is in it, such as the optimizer's state.
        parallel: Whether the names began with the ``module.`` of a model trained in parallel.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    beside: tuple[str, ...]
    parallel: bool


def read_checkpoint(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> Checkpoint:
    """Read a checkpoint: a zip file, as torch writes since version 1.6.

    Raises:
        CheckpointError: There is no such file; it is too large, damaged, or no checkpoint; or its
            pickle asks for more than a checkpoint needs. Nothing of it was run.
    """
    try:
        require_file(path)
        size = path.stat().st_size
        if size > limit_bytes:
            raise CheckpointError(
                f"{path} has {size:,} bytes; checkpoints of up to {limit_bytes:,} are read."
            )
        _check_zip(path, size)
        # Mapped, tensors take no memory until they are copied into a model.
        with warnings.catch_warnings(), _allow_list():
            warnings.simplefilter("ignore")  # torch's own use of its old storages
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        tensors, beside = _state_dict(path, loaded)
        for name, tensor in tensors.items():
            if tensor.untyped_storage().nbytes() > size:
                raise CheckpointError(f"{path} is damaged: {name} is larger than the file.")
    except _UNREADABLE as error:
        if asked := _ASKED.search(str(error)):
            raise CheckpointError(
                f"{path} was not read: its pickle asks for {asked[1]}, which no checkpoint of "
                "sc2-benchmark needs, and which may run any code.",
                next_step=f"{_AGAIN} Do not open this one with other tools.",
            ) from error
        reason = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: {reason.rstrip('.') or type(error).__name__}.",
            next_step=_AGAIN,
        ) from error
    parallel = bool(tensors) and all(name.startswith(_PARALLEL) for name in tensors)
    if parallel:
        tensors = {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
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


def _check_zip(path: Path, size: int) -> None:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is cut short, or no zip file, which torch writes since version 1.6")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        # torch stores them as they are. Compressed ones could be of any size once unpacked.
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("its records are compressed, which torch's never are")
        if sum(record.file_size for record in records) > size:
            raise ValueError("its records claim to be larger than the file")
        # torch maps the records and looks at no checksum.
        if damaged := archive.testzip():
            raise ValueError(f"its record {damaged} is damaged")
        pickles = [r for r in records if r.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("it is a zip file, but not one that torch wrote")
        if pickles[0].file_size > _PICKLE_LIMIT_BYTES:
            raise ValueError(f"its pickle is larger than {_PICKLE_LIMIT_BYTES >> 20} MiB")


def _state_dict(path: Path, loaded: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the model's tensors, and the names of all else."""
    # dict.items: a pickle can hide an ordered dictionary's own methods.
    entries = dict(dict.items(loaded)) if isinstance(loaded, dict) else {}
    model = entries.get("model")
    beside = ()
    if isinstance(model, dict):
        beside = tuple(sorted(str(name) for name in entries if name != "model"))
        entries = dict(dict.items(model))
    others = [name for name, value in entries.items() if not _is_tensor(name, value)]
    if not entries or others:
        what = f"its {others[0]!r} is no tensor" if others else "there are no tensors in it"
        raise CheckpointError(
            f"{path} is no checkpoint of a model: {what}.",
            next_step="A checkpoint is a state dict, or a dictionary whose 'model' is one.",
        )
    return entries, beside


def _is_tensor(name: Any, value: Any) -> bool:
    plain = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
    return isinstance(name, str) and plain
