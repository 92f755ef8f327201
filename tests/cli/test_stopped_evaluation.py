"""Ctrl-C, SIGTERM and SIGKILL while one or several processes evaluate a model."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import start, wait_for

from splitzoo.demo import IMAGES

IMAGE = IMAGES / "dandelion.jpg"


@pytest.fixture
def evaluating(tmp_path) -> Callable[..., subprocess.Popen]:
    """Start an evaluation of 60 images, in a group of processes of its own, into acc.json."""
    folder = tmp_path / "val" / "dandelion"
    folder.mkdir(parents=True)
    for number in range(60):
        shutil.copyfile(IMAGE, folder / f"{number}.jpg")
    model = "flowers-splittable_regnetx_002-fp-beta3"
    words = ("profile", "accuracy", model, "--data", tmp_path / "val", "-o", "acc.json")
    return lambda *more: start(*words, *more, cwd=tmp_path, start_new_session=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_evaluation_says_what_it_keeps(processes, evaluating, tmp_path) -> None:
    process = evaluating("--processes", processes)
    partial = tmp_path / ".acc.json.partial"
    wait_for(lambda: partial.is_file() and partial.stat().st_size > 1000, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    kept = "Results so far are kept in .acc.json.partial: the same command goes on with them."
    assert err.strip().splitlines()[-1] == f"Stopped. {kept}"
    assert "Traceback" not in err
    assert partial.is_file()


def children(process: subprocess.Popen) -> list[int]:
    """The processes of Python that a process started, but for the one that tracks resources."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_processes_that_have_only_begun_stop_without_a_word(number, evaluating) -> None:
    process = evaluating("--processes", 2)
    wait_for(lambda: bool(children(process)), process)  # they import torch now
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=15)  # what they began is not waited for
    assert (process.returncode, out) == (128 + number, "")
    assert "Traceback" not in err
    assert err.strip().splitlines()[-1].startswith("Stopped.")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_processes_end_with_one_that_is_killed(evaluating, tmp_path) -> None:
    process = evaluating("--processes", 2)
    partial = tmp_path / ".acc.json.partial"
    wait_for(lambda: partial.is_file() and partial.stat().st_size > 1000, process)
    started = children(process)
    assert len(started) == 2
    process.kill()
    process.communicate()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        assert time.monotonic() < until
        time.sleep(0.05)
