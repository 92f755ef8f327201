"""Each item of a table has a process of its own."""

import os
import signal

import pytest

from benchmarks.matrix.processes import run_apart


def test_every_item_has_its_own_process() -> None:
    results = dict(run_apart(abs, [-3, 4, -5], jobs=2, crashed=lambda *_: None))
    assert results == {0: 3, 1: 4, 2: 5}


@pytest.mark.parametrize(
    ("work", "item", "code"), [(os._exit, 7, 7), (signal.raise_signal, signal.SIGKILL, -9)]
)
def test_a_process_that_dies_is_one_result(work, item, code) -> None:
    given = run_apart(work, [item], jobs=1, crashed=lambda item, code: (item, code))
    assert list(given) == [(0, (item, code))]
