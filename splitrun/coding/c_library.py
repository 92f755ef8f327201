"""The coder in C, ``c/sz.c``, as a library of this machine: compiled on request, then found.

The library lies beside its source. Its name says what it was made of and for which machine, so
that one of an earlier source or of another machine is never loaded.
"""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from ..errors import DependencyError, SplitzooError

SOURCES = Path(__file__).with_name("c")
"""Folder of the sources."""

_FLAGS = ("-std=c99", "-O3", "-shared", "-fPIC")


def library_path() -> Path:
    """Return where the library lies once it is compiled."""
    content = b"".join((SOURCES / name).read_bytes() for name in ("sz.h", "sz.c"))
    digest = hashlib.sha256(content).hexdigest()[:8]
    return SOURCES / f"sz-{digest}-{sysconfig.get_platform()}.so"


def compile_library(path: Path) -> list[str]:
    """Compile the library with the system's C compiler: what CC names, or cc.

    Args:
        path: File to write, whole or not at all.

    Returns:
        The command that compiled it.

    Raises:
        DependencyError: There is no C compiler.
        SplitzooError: It failed, or the file cannot be written.
    """
    compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(compiler[0]) is None:
        raise DependencyError(
            f"There is no C compiler here: {compiler[0]}.",
            next_step="Install one, on Debian or Raspberry Pi OS: sudo apt install gcc libc6-dev",
        )
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            made = Path(folder) / path.name
            command = [*compiler, *_FLAGS, str(SOURCES / "sz.c"), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode or not made.is_file():
                detail = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[0]
                raise SplitzooError(f"{compiler[0]} cannot compile the coder: {detail}")
            made.replace(path)
    except OSError as error:
        raise SplitzooError(
            f"Cannot write {path}: {error.strerror or error}.",
            next_step="Install splitrun where you may write, such as in a virtual environment.",
        ) from error
    library.cache_clear()
    return [*command[:-1], str(path)]


@functools.lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """Return the library; None where it was not compiled, or cannot be loaded."""
    try:
        return load(library_path())
    except OSError:
        return None


def load(path: Path) -> ctypes.CDLL:
    """Load a library.

    Raises:
        OSError: It is missing, or not for this machine.
    """
    loaded = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    for name, arguments in {
        "sz_push": [pointer] * 4,
        "sz_pop": [pointer] * 4,
        "sz_push_bits": [pointer, pointer, pointer, ctypes.c_size_t],
        "sz_pop_bits": [pointer, pointer, pointer, ctypes.c_size_t],
    }.items():
        getattr(loaded, name).argtypes = arguments
    return loaded
