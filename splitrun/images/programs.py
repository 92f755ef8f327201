"""Runs programs of external codecs: without a shell, within limits of time, output and memory."""

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import DependencyError

try:
    import resource
except ImportError:  # Windows
    resource = None

_LAST_WORDS = 300
"""Number of characters of a program's output that an error repeats."""
LOG_NAME = "output.log"
"""File, in a program's folder, of what it prints."""


class ProgramError(Exception):
    """A program failed; the text says how."""


@dataclass(frozen=True)
class ProgramLimits:
    """Limits of what a program may use.

    Attributes:
        seconds: Wall-clock time.
        file_bytes: Size of each file that it writes; enforced on Linux.
        memory_bytes: Address space; 0 for as much as there is. Enforced on Linux.
    """

    seconds: float
    file_bytes: int
    memory_bytes: int = 0


def find_program(name: str, next_step: str) -> str:
    """Return the path of a program on PATH, or raise ``DependencyError``."""
    if path := shutil.which(name):
        return str(Path(path).absolute())  # it will run in another folder
    raise DependencyError(f"The program {name} is not on PATH.", next_step=next_step)


def run_program(command: list[str], folder: Path, limits: ProgramLimits) -> None:
    """Run a program to its end in a folder, into which its output goes.

    Where it takes too long, or the wait for it is interrupted, it is killed with what it started.

    Raises:
        DependencyError: It could not be started.
        ProgramError: It ended with another code than 0, or took too long.
        OSError: The folder could not be written to.
    """
    name, log = Path(command[0]).name, folder / LOG_NAME
    with log.open("wb") as output, _started(command, folder, output) as process:
        try:
            _limit(process.pid, limits)
            code = process.wait(limits.seconds)
        except subprocess.TimeoutExpired as error:
            raise ProgramError(f"{name} was stopped after {limits.seconds:.3g} s") from error
        finally:
            _end(process)
    if code:
        with log.open("rb") as output:
            output.seek(max(0, log.stat().st_size - _LAST_WORDS))
            said = " ".join(output.read().decode(errors="replace").split())
        raise ProgramError(f"{name} ended with code {code}" + (f", saying: {said}" if said else ""))


def read_output(path: Path, limits: ProgramLimits) -> bytes:
    """Return what a program wrote; raise ``ProgramError`` for nothing, or more than it may."""
    if not path.is_file():
        raise ProgramError("no file came out")
    if path.stat().st_size > limits.file_bytes:
        raise ProgramError(f"{path.stat().st_size} bytes came out")
    return path.read_bytes()


def _started(command: list[str], folder: Path, output: BinaryIO) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise DependencyError(
            f"The program {command[0]} cannot be run: {(error.strerror or str(error)).lower()}.",
            next_step="Put a build for this machine on PATH.",
        ) from error


def _limit(pid: int, limits: ProgramLimits) -> None:
    if resource is None or not hasattr(resource, "prlimit"):
        return
    kinds = (resource.RLIMIT_FSIZE, limits.file_bytes), (resource.RLIMIT_AS, limits.memory_bytes)
    for kind, most in kinds:
        if most:
            # Refused where it has ended already, or where the present limit is lower.
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, kind, (most, most))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill what still runs of a program's session."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()  # Popen itself does not after Ctrl-C
