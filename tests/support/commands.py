"""Run splitzoo as a program, and hold what it says to the rules."""

import contextlib
import json
import subprocess
import sys
import time

import pytest

SPLITZOO = [sys.executable, "-m", "splitzoo"]


def refused(result: tuple[int, str, str], *sayings: str, code: int = 1) -> None:
    """The exit code, no result on stdout, and one message that says all of it."""
    found, out, err = result
    assert found == code
    if out:  # with --json
        error = json.loads(out)["error"]
        assert error.keys() == {"kind", "message", "next_step", "exit_code"}
        assert (error["exit_code"], error["kind"][-5:]) == (code, "Error")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    for saying in sayings:
        assert saying in err


def start(*words: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [*SPLITZOO, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 100
    while not condition() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finish(*words: object, **options) -> tuple[int, str, str]:
    process = start(*words, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@contextlib.contextmanager
def disk_of(size_bytes: int):
    """Files end at a size, as on a disk that fills up."""
    resource = pytest.importorskip("resource", reason="needs limits of POSIX")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python would leave truncated caches of the modules that it imports meanwhile, and trip over
    # them ever after.
    caches, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = caches
