"""Arrays in ``.npz`` files: written in one go, read even where the file may be hostile."""

import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,  # encrypted; its subclasses: unknown compression, nesting
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions that zipfile and numpy raise at damaged files, documented or not."""


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[np.generic]], *, save: Callable[..., None] = np.savez
) -> None:
    """Write arrays as an ``.npz`` file.

    Args:
        path: File to write.
        arrays: Arrays by name.
        save: Function that packs them, ``np.savez`` or ``np.savez_compressed``.

    Raises:
        OSError: The file system refused.
    """
    content = io.BytesIO()  # written directly, zipfile complains at length about a full disk
    save(content, **arrays)
    path.write_bytes(content.getvalue())


def read_arrays(
    path: Path, names: Collection[str], *, limit_bytes: int
) -> dict[str, NDArray[np.generic]]:
    """Read all arrays of an ``.npz`` file; nothing is unpickled.

    Args:
        path: File to read.
        names: Names of the arrays that it must hold; it may hold nothing else.
        limit_bytes: Largest size of all arrays together, unpacked.

    Raises:
        ValueError: The file is missing, damaged, too large, or holds other arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # A small archive can claim large arrays: look before unpacking.
            if sum(entry.file_size for entry in entries) > limit_bytes:
                raise ValueError(f"it unpacks to more than {limit_bytes >> 20} MiB")
            held = sorted(entry.filename for entry in entries)
            if held != sorted(f"{name}.npy" for name in names):
                raise ValueError(f"it holds {', '.join(held) or 'nothing'}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except _DAMAGE as error:
        raise ValueError(str(error).partition("\n")[0] or type(error).__name__) from error
