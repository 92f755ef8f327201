"""Coders multiply in one thread: what Linux says of the time that each thread took."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from splitrun.coding.blas_threads import one_blas_thread

# Clock ticks that each thread of the process ran while matrices were multiplied, the first thread's
# first. Threads spin for some hundredths of a second when they start: they are left to rest before.
_SCRIPT = """
import contextlib, pathlib, sys, time, numpy as np
from splitrun.coding.blas_threads import one_blas_thread

def ticks():
    tasks = sorted(pathlib.Path("/proc/self/task").iterdir(), key=lambda path: int(path.name))
    fields = [(task / "stat").read_text().rpartition(")")[2].split() for task in tasks]
    return [int(field[11]) + int(field[12]) for field in fields]

a = np.ones((400, 400))
with one_blas_thread() if sys.argv[1] == "one" else contextlib.nullcontext():
    a @ a
    time.sleep(0.5)
    before = ticks()
    for _ in range(200):
        a @ a
for start, end in zip(before, ticks(), strict=True):
    print(end - start)
"""


def ticks(which: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, which],
        env=os.environ | {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(
    sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="needs Linux and two processors"
)
def test_products_run_in_the_thread_that_asks_for_them() -> None:
    _, *others = ticks("all")
    if not sum(others):
        pytest.skip("numpy's matrix products have one thread here")
    first, *others = ticks("one")
    assert first > 10
    assert sum(others) <= 1


def test_threads_come_back_when_the_last_caller_leaves() -> None:
    """The library's own count, asked where numpy keeps it."""
    from splitrun.coding.blas_threads import _OPEN_BLAS

    if _OPEN_BLAS._functions is None:
        pytest.skip("numpy runs on another library here")
    count, put = _OPEN_BLAS._functions
    before = count()
    put(2)
    if count() != 2:
        pytest.skip("this OpenBLAS has one thread")
    inside, leave, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        with one_blas_thread():
            inside.set()
            leave.wait(9)
            seen.append(count())

    thread = threading.Thread(target=other)
    try:
        with pytest.raises(ZeroDivisionError), one_blas_thread():
            thread.start()
            assert inside.wait(9)
            assert count() == 1
            _ = 1 // 0
        # The other thread is still inside.
        assert count() == 1
        leave.set()
        thread.join()
        assert (seen, count()) == ([1], 2)
    finally:
        put(before)


def test_without_openblas_products_are_as_they_were(monkeypatch) -> None:
    from splitrun.coding import blas_threads

    monkeypatch.setattr(blas_threads, "_PREFIXES", ("mkl",))
    monkeypatch.setattr(blas_threads, "_OPEN_BLAS", blas_threads._OpenBlas())
    with one_blas_thread():
        assert (np.ones((3, 3)) @ np.ones((3, 3)) == 3).all()
