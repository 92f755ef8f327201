"""The registry of models: their specs by name. Imports no torch."""

import difflib
import functools
import importlib
import re
from collections.abc import Callable

from pydantic import ValidationError

from splitrun.errors import SpecError, SplitzooError, UnknownNameError
from splitrun.registry import Registry, close_matches

from .packaged import packaged
from .packaged import read_name as read_packaged
from .spec import ModelSpec

_METHODS = (
    "entropic_student",
    "shallow_injection",
    "channel_reduction",
    "fine_tuning",
    "feature_compression",
    "input_compression",
)
"""Modules that register their models when they are imported, in the order of lists."""

MODELS: Registry[ModelSpec] = Registry("model")

PATTERNS: list[Callable[[str], ModelSpec | None]] = []
"""Each reads a name that no model is registered under: another backbone, layer, β or quality."""

_FORMS: list[str] = []
"""The forms of such names, for people."""
_FEW = 5
"""Number of names that an error lists at most."""
_TYPO = 0.95
"""Likeness from which a name is one misspelled."""

_Reader = Callable[[re.Match[str]], ModelSpec]


def reads(pattern: str, form: str) -> Callable[[_Reader], _Reader]:
    """Let a function give the specs of names that match a pattern.

    It raises where a part of the name is wrong: an error of ours, or ``ValueError``, whose text is
    the reason.

    Args:
        pattern: Regular expression.
        form: Form of the names, for people.
    """

    def register(read: _Reader) -> _Reader:
        PATTERNS.append(functools.partial(_read, re.compile(pattern), read))
        _FORMS.append(form)
        return read

    return register


def _read(pattern: re.Pattern[str], read: _Reader, name: str) -> ModelSpec | None:
    found = pattern.fullmatch(name)
    return read(found) if found else None


@functools.cache
def registered() -> Registry[ModelSpec]:
    """Return the registry with all models in it; ``MODELS`` itself is empty until they came."""
    for method in _METHODS:
        importlib.import_module(f".methods.{method}", __package__)
    for name, spec in packaged().items():
        MODELS.register(name, spec)
    PATTERNS.insert(0, read_packaged)
    return MODELS


def find_spec(name: str) -> ModelSpec:
    """Return the spec of a registered name or alias, or of a name that a method can read.

    Raises:
        UnknownNameError: No model, backbone, layer or codec has that name; it carries close ones.
        SpecError: A part of the name cannot be: a quality out of range, a layer that is no cut.
    """
    spec = _find(name)
    if spec is None:
        raise _unknown(name)
    return spec


def is_name(text: str) -> bool:
    """Say whether a text is a registered name or alias, or a name of a family that has a spec."""
    try:
        return _find(text) is not None
    except SplitzooError:
        return False


def _find(name: str) -> ModelSpec | None:
    models = registered()
    if name in models:
        return models.get(name)
    try:
        return next((spec for read in PATTERNS if (spec := read(name)) is not None), None)
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        reason = reason.removeprefix("Value error, ").rstrip(".")
        mark = "" if reason.endswith("?") else "."
        raise SpecError(f"No model is named {name!r}: {reason}{mark}") from error


def _unknown(name: str) -> UnknownNameError:
    """Return the error for a name of no form, with what it may be meant for."""
    names = registered().names()
    word = name.lower()
    for holding in (
        [other for other in names if other.lower().startswith(word)],
        [other for other in names if word in other.lower()],
    ):
        if word and 0 < len(holding) <= _FEW:
            return UnknownNameError("model", name, holding, next_step="See: splitzoo zoo list")
        if word and holding:
            step = f"{len(holding)} names hold it. See: splitzoo zoo list {name}"
            return UnknownNameError("model", name, next_step=step)
    matches = close_matches(word, names)
    forms = [form for form in _FORMS if form.startswith("splittable_") == ("splittable_" in word)]
    step = ""
    if "-" in word and not difflib.get_close_matches(word, matches, cutoff=_TYPO):
        step = f"Names of other backbones and settings: {'; '.join(forms)}."
    elif _is_backbone(name):
        step = f"It is a backbone; {name}-jpeg-q90 is a model of it, and splittable_{name}-fp."
    return UnknownNameError(
        "model", name, matches, next_step=f"{step} See: splitzoo zoo list".strip()
    )


def _is_backbone(name: str) -> bool:
    if not re.fullmatch(r"[A-Za-z0-9_.]+", name):
        return False
    from .backbones.table import find_backbone

    try:
        return bool(find_backbone(name))
    except SplitzooError:
        return False
