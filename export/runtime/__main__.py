"""``python -m splitzoo.export.runtime --bundle DIR …``: not the bundle's own copy."""

import sys

from ...signals import run_stoppable


def _run() -> int:
    from .cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run_stoppable(_run))
