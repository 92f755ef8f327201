"""Entry point of ``splitzoo`` and ``python -m splitzoo``."""

import sys

from splitrun.signals import run_stoppable


def main() -> None:
    """Run the command line."""
    sys.exit(run_stoppable(_run))


def _run() -> int:
    from .cli import run

    return run()


if __name__ == "__main__":
    main()
