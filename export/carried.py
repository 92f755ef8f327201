"""The runtime that lies in a bundle: its sources, copied."""

import shutil
from pathlib import Path

from .. import __version__

_PACKAGE = Path(__file__).parents[1]
_RUNTIME_SOURCES = (
    "errors.py",
    "files.py",
    "machine.py",
    "registry.py",
    "signals.py",
    "zoo/preprocessing.py",
    "zoo/coding",
    "export/runtime",
    "export/runtime/engines",
    "export/runtime/tensorrt",
)
_ENTRY_POINT = '''"""Entry point of ``python -m splitrun``."""

import sys
from pathlib import Path

from .signals import run_stoppable


def _run() -> int:
    from .export.runtime.cli import main

    return main(bundle=Path(__file__).parents[1])


sys.exit(run_stoppable(_run))
'''


def write_runtime(folder: Path) -> None:
    """Copy the runtime's sources, each to the place that it has in this package.

    Their relative imports then hold unchanged, and what runs on the board is what was tested here.
    """
    for name in _RUNTIME_SOURCES:
        source = _PACKAGE / name
        for path in sorted(source.glob("*.py")) if source.is_dir() else [source]:
            copy = folder / path.relative_to(_PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    (folder / "__init__.py").write_text(
        '"""The runtime of this bundle: python -m splitrun --help."""\n\n'
        f'__version__ = "{__version__}"\n',
        encoding="utf-8",
    )
    (folder / "__main__.py").write_text(_ENTRY_POINT, encoding="utf-8")
