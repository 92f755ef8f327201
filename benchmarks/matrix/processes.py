"""Run each item in a process of its own: memory is given back, and a crash stops nothing else."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from splitrun.signals import check_stopped

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE_S = 5
"""Time that a process has to end by itself."""


def run_apart(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    jobs: int,
    crashed: Callable[[Item, int], Result],
) -> Iterator[tuple[int, Result]]:
    """Give each item's number and result as they come.

    Args:
        work: Function at the top of a module; it must not raise.
        items: Items to work on; they and the results are pickled.
        jobs: Processes at a time.
        crashed: Function that makes the result of an item whose process ended without one, from
            the exit code; a negative code is a signal.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(enumerate(items))[::-1]
    running = {}
    try:
        while waiting or running:
            check_stopped()
            while waiting and len(running) < jobs:
                number, item = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(work, item, theirs), daemon=True)
                process.start()
                theirs.close()
                running[ours] = number, process
            ready = wait(list(running))
            for connection in [pipe for pipe in running if pipe in ready]:
                number, process = running.pop(connection)
                try:
                    result = connection.recv()
                except EOFError:
                    process.join()
                    result = crashed(items[number], process.exitcode or 0)
                process.join()
                yield number, result
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join(_PATIENCE_S)
            process.kill()
            process.join()


def _work(work: Callable[[Item], Result], item: Item, connection: Connection) -> None:
    # Ctrl-C reaches the whole group; the first process ends the others, which then clean up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    connection.send(work(item))
