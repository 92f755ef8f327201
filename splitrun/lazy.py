"""Packages that import the home of a name when the name is first used."""

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_names(
    package: str, home: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package.

    Args:
        home: Module of each public name, relative to the package (``".catalog"``) or absolute.
    """

    def getattribute(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home[name], package), name)

    def directory() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home})

    return getattribute, directory
