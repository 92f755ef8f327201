"""Ctrl-C and SIGTERM: unwind everything, so that nothing half-written stays, and say so once."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)

_received: list[int] = []
_kept: list[str] = ["Nothing half-written was left behind."]


class _Stopped(BaseException):
    """Raised where the signal found the program."""


def check_stopped() -> None:
    """Stop where a signal was received, but what it raised was lost.

    Python ignores exceptions in destructors, and long work with libraries has many of them: it
    calls this now and then.
    """
    if _received:
        raise _Stopped


def stop_by(signum: int) -> None:
    """Stop as if this signal had been received now, after it was received and waited with."""
    _received.append(signum)
    raise _Stopped


@contextlib.contextmanager
def keeping(what: str) -> Iterator[None]:
    """Let a stop meanwhile say what is kept on purpose, and what it is good for."""
    _kept.append(what)
    yield  # after a stop, the text stays for the message
    _kept.pop()


def run_stoppable(work: Callable[[], int]) -> int:
    """Run ``work`` and return its exit code; 128 + its number after a signal, 130 after Ctrl-C.

    The imports of ``work`` belong inside it, so that they can be stopped too.
    """
    _received.clear()

    def stop(signum: int, _frame: FrameType | None) -> None:
        # A second signal must not interrupt the clean-up after the first.
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        _received.append(signum)
        raise _Stopped

    def hide(unraisable: "sys.UnraisableHookArgs") -> None:
        # What a stop breaks in destructors would print tracebacks there; see check_stopped.
        if not _received:
            sys.__unraisablehook__(unraisable)

    try:
        sys.unraisablehook = hide
        for signum in _SIGNALS:
            signal.signal(signum, stop)
        return work()
    except BaseException:
        # A library may have turned the stop into an error of its own, such as an ImportError.
        if not _received:
            raise
        print(f"\nStopped. {_kept[-1]}", file=sys.stderr)
        return 128 + _received[0]
