"""An engine in a process of another Python, where it cannot be installed beside what is here.

    SPLITRUN_PYTHON_EXECUTORCH=/path/to/python splitrun encode photo.jpg

The process is given arrays and gives arrays, without pickle: what runs in it is not trusted more
than an engine is.
"""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, SplitzooError
from .base import Session

_ERROR, _VERSION = "error", "version"
Arrays = Mapping[str, NDArray[Any]]


def python_of(engine: str) -> str:
    """Return the Python that an engine runs in, by the environment; empty for this one."""
    return os.environ.get(variable_of(engine), "")


def variable_of(engine: str) -> str:
    """Return the name of the variable that says which Python an engine runs in."""
    return f"SPLITRUN_PYTHON_{engine.upper().replace('-', '_')}"


class SessionApart(Session):
    """A graph that a process of another Python has loaded, and runs until this object goes.

    Args:
        python: Path of the Python.
        engine: Name of the engine.
        path: Path of the graph's file.
        threads: Number of threads for the engine.
        hint: Precision to compute in.
    """

    def __init__(self, python: str, engine: str, path: Path, threads: int, hint: str) -> None:
        self._engine = engine
        words = [python, "-P", "-m", "splitrun.engines.apart", engine, str(path.resolve())]
        folder = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONPATH": folder}
        environment.pop(variable_of(engine), None)
        try:
            self._process = subprocess.Popen(
                [*words, str(threads), hint],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise BundleError(
                f"{engine} cannot run in {python}: {error}",
                next_step=f"Set {variable_of(engine)} to a Python that has it, or unset it.",
            ) from error
        self.version = str(self._read()[_VERSION])

    def run(self, inputs: Arrays, outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs of the graph."""
        # Where the process has ended, reading tells.
        with contextlib.suppress(OSError):
            _write(self._pipe(self._process.stdin), {"names": np.array(list(outputs)), **inputs})
        found = self._read()
        return [found[name] for name in outputs]

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):  # what was not sent is not wanted
                    pipe.close()

    def _read(self) -> Arrays:
        found = _read(self._pipe(self._process.stdout))
        if found is None:
            code = self._process.wait()
            raise BundleError(f"The process that ran {self._engine} ended, with code {code}.")
        if _ERROR in found:
            raise BundleError(str(found[_ERROR]))
        return found

    @staticmethod
    def _pipe(pipe: "IO[bytes] | None") -> "IO[bytes]":
        assert pipe is not None  # both were asked for
        return pipe


def _write(pipe: "IO[bytes]", arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # pyright: ignore[reportArgumentType]  # names are keywords
    content = buffer.getbuffer()
    pipe.write(len(content).to_bytes(8, "little"))
    pipe.write(content)
    pipe.flush()


def _read(pipe: "IO[bytes]") -> "Arrays | None":
    """Read what was written; None at the end."""
    length = int.from_bytes(pipe.read(8), "little")
    content = pipe.read(length)
    if not length or len(content) < length:
        return None
    with np.load(io.BytesIO(content)) as found:
        return {name: found[name] for name in found.files}


def main(engine: str, path: str, threads: str, hint: str = "") -> None:
    """Load a graph, and run it on what comes until nothing does."""
    from . import open_session

    # What an engine prints would stand among the arrays.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        session = open_session(engine, Path(path), int(threads), hint)
    except SplitzooError as error:
        _write(answers, {_ERROR: np.array(error.message)})
        return
    _write(answers, {_VERSION: np.array(session.version)})
    while (arrays := _read(sys.stdin.buffer)) is not None:
        inputs = dict(arrays)
        names = [str(name) for name in inputs.pop("names")]
        try:
            _write(answers, dict(zip(names, session.run(inputs, names), strict=True)))
        except BundleError as error:
            _write(answers, {_ERROR: np.array(error.message)})


if __name__ == "__main__":
    main(*sys.argv[1:])
