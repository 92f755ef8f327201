"""The coder in C, compiled once in a process; tests skip where there is no C compiler."""

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from splitrun.coding import c_library

COMPILER = shutil.which(os.environ.get("CC", "cc"))
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler here")
SUPPORT = Path(__file__).parent


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="splitrun-c-")


@functools.cache
def library() -> Path:
    """Return the path of the compiled library."""
    path = Path(_folder().name) / "sz.so"
    c_library.compile_library(path)
    return path


def compile_c(output: Path, *words: object) -> str:
    """Compile C sources, and return what the compiler says."""
    command = [COMPILER, "-std=c99", f"-I{c_library.SOURCES}", "-o", output, *words]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr
