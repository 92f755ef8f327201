"""Entry point of ``splitzoo`` and ``python -m splitzoo``."""

import signal
import sys
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(BaseException):
    """Ctrl-C or SIGTERM. Unwinds everything, so that temporary folders are removed."""


def _stop(signum: int, _frame: FrameType | None) -> None:
    # A second signal must not interrupt the clean-up after the first.
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise _Stopped(signum)


def main() -> None:
    """Run the command line: the one place where an error becomes a message and an exit code."""
    try:
        for signum in _SIGNALS:
            signal.signal(signum, _stop)
        from .cli import run

        code = run()
    except _Stopped as stopped:
        print("\nStopped. Nothing half-written was left behind.", file=sys.stderr)
        code = 1 if stopped.args[0] == signal.SIGINT else 128 + stopped.args[0]
    sys.exit(code)


if __name__ == "__main__":
    main()
