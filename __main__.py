"""Entry point of ``splitzoo`` and ``python -m splitzoo``."""

import signal
import sys
from types import FrameType


def _terminate(signum: int, _frame: FrameType | None) -> None:
    """Unwind on SIGTERM as on Ctrl-C, so that temporary folders are removed."""
    raise SystemExit(128 + signum)


def main() -> None:
    """Run the command line: the one place where an error becomes a message and an exit code."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        from .cli import run

        sys.exit(run())
    except KeyboardInterrupt:
        print("\nStopped. Nothing half-written was left behind.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
