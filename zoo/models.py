"""The registry of models: their specs by name. Imports no torch."""

import contextlib
import functools
import importlib
import re
from collections.abc import Callable

from pydantic import ValidationError

from splitrun.errors import SplitzooError
from splitrun.registry import Registry

from .packaged import packaged
from .packaged import read_name as read_packaged
from .spec import ModelSpec

_METHODS = (
    "entropic_student",
    "channel_reduction",
    "fine_tuning",
    "feature_compression",
    "input_compression",
)
"""Modules that register their models when they are imported, in the order of lists."""

MODELS: Registry[ModelSpec] = Registry("model", next_step="See: splitzoo zoo list")

PATTERNS: list[Callable[[str], ModelSpec | None]] = []
"""Each reads a name that no model is registered under: another backbone, β or quality."""

# Parts of such names, as regular expressions.
PREFIX = "(?P<prefix>faster_rcnn_|deeplabv3_)?"
BACKBONE = "(?P<backbone>[A-Za-z0-9_.]+)"
QUALITY = "(?P<quality>0|[1-9][0-9]?|100)"
BETA = r"(?P<beta>[0-9]+(\.[0-9]+)?(e-?[0-9]{1,2})?)"

_Reader = Callable[[re.Match[str]], ModelSpec | None]


def reads(pattern: str) -> Callable[[_Reader], _Reader]:
    """Let a function give the specs of names that match a pattern, or None where there is none."""

    def register(read: _Reader) -> _Reader:
        def from_name(name: str) -> ModelSpec | None:
            found = re.fullmatch(pattern, name)
            return read(found) if found else None

        PATTERNS.append(from_name)
        return read

    return register


@functools.cache
def registered() -> Registry[ModelSpec]:
    """Return the registry with all models in it; ``MODELS`` itself is empty until they came."""
    for method in _METHODS:
        importlib.import_module(f".methods.{method}", __package__)
    for name, spec in packaged().items():
        MODELS.register(name, spec)
    PATTERNS.append(read_packaged)
    return MODELS


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a registered name or alias, or of a name that a method can read.

    Raises:
        UnknownNameError: No model has that name; it carries close ones.
    """
    models = registered()
    if name not in models:
        for read in PATTERNS:
            # What a pattern takes and a spec does not, such as a β of a hundred digits, is no name.
            with contextlib.suppress(ValidationError):
                spec = read(name)
                if spec is not None:
                    return spec
    return models.get(name)


def is_name(text: str) -> bool:
    """Say whether a text is a registered name or alias, or a name of a family that has a spec."""
    try:
        find_spec(text)
    except SplitzooError:
        return False
    return True
