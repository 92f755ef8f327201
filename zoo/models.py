"""The registry of models: their specs by name. Imports no torch."""

import contextlib
from collections.abc import Callable

from pydantic import ValidationError

from ..registry import Registry
from .spec import ModelSpec

MODELS: Registry[ModelSpec] = Registry("model", next_step="See: splitzoo zoo list")

PATTERNS: list[Callable[[str], ModelSpec | None]] = []
"""Each reads a name that no model is registered under: another backbone, β or quality."""


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a registered name or alias, or of a name that a method can read.

    Raises:
        UnknownNameError: No model has that name; it carries close ones.
    """
    if name not in MODELS:
        for read in PATTERNS:
            # What a pattern takes and a spec does not, such as a β of a hundred digits, is no name.
            with contextlib.suppress(ValidationError):
                spec = read(name)
                if spec is not None:
                    return spec
    return MODELS.get(name)
