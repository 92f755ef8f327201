"""Entry point of ``splitrun`` and ``python -m splitrun``."""

import sys

from .signals import run_stoppable


def main() -> None:
    """Run the command line."""
    sys.exit(run_stoppable(_run))


def _run() -> int:
    from .cli import main

    return main()


if __name__ == "__main__":
    main()
