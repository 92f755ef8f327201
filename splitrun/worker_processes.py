"""Processes that work for this one: they leave signals to it, and end when it has ended."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})
_CAN_WAIT = hasattr(signal, "pthread_sigmask")


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Let signals wait while processes start; in them too, until they call ``leave_signals``."""
    if not _CAN_WAIT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # what the processes inherit
    waiting: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        # Another thread may be given a signal, and Python would handle it here.
        for number in _SIGNALS:
            handlers[number] = signal.signal(number, lambda given, _frame: waiting.append(given))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if waiting:
            signal.raise_signal(waiting[0])


def leave_signals() -> None:
    """Leave Ctrl-C to the process that started this one, and which ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if _CAN_WAIT:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def begin_worker() -> None:
    """Leave signals to the process that started this one, and end with it, even if it is killed."""
    leave_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
