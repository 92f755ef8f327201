"""A coder in a file: its integer tables, ``.npz``."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import TablesError
from .arrays import read_arrays, write_arrays
from .coder import Coder, Setting
from .coders import CODERS

_MAX_FILE_BYTES = 1 << 26
_LARGE = 1 << 16


def save_coder(coder: Coder, path: Path) -> None:
    """Write a coder's tables as an ``.npz`` file, large ones compressed."""
    arrays = coder.arrays()
    large = sum(one.nbytes for one in arrays.values()) > _LARGE
    write_arrays(path, arrays, save=np.savez_compressed if large else np.savez)


def load_coder(kind: str, settings: Mapping[str, Setting], path: Path) -> Coder:
    """Read the coder that :func:`save_coder` wrote.

    Args:
        kind: Of the coder: a key in ``CODERS``.
        settings: That it gave.
        path: Of the file.

    Raises:
        TablesError: The kind is unknown, or the file is missing, damaged, too large, or holds
            anything else.
    """
    if kind not in CODERS:
        raise TablesError(
            f"The coder {kind!r} is unknown; this knows {', '.join(CODERS)}.",
            next_step="Use the splitrun inside the bundle, or: pip install --upgrade splitzoo",
        )
    coder = CODERS[kind]
    try:
        arrays = read_arrays(path, coder.array_names(), limit_bytes=_MAX_FILE_BYTES)
    except ValueError as error:
        raise TablesError(f"Cannot read entropy tables from {path}: {error}.") from error
    return coder.from_parts(settings, arrays)
