"""Read JSON that may be hostile into dataclasses: every key known, every value of its type."""

import dataclasses
import math
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .text import check_texts

T = TypeVar("T")

_WORDS = {str: "a word", int: "a whole number", float: "a number", bool: "true or false"}


def read_strictly(kind: type[T], value: Any, where: str = "") -> T:
    """Turn a JSON value into a type: a dataclass, ``tuple``, ``dict``, ``X | None`` or plain value.

    Dataclasses check their own ranges by raising ``ValueError``. All keys must be there, whatever
    the dataclass has defaults for.

    Args:
        kind: Type to make.
        value: Value from ``json.loads``.
        where: Path of the value in its document, for messages.

    Raises:
        ValueError: A key is missing or unknown, or a value is of another type or out of range; the
            message begins with its path.
    """
    return _read(kind, value, where)


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        # A value of none of the types is said not to be of the first.
        kind = next((inner for inner in arguments if type(value) is inner), arguments[0])
        return _read(kind, value, where)
    if kind is Any:
        return _read_any(value, where)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin is tuple:
        found = isinstance(value, list | tuple)
        kinds = arguments[:1] * len(value) if found and arguments[-1] is ... else arguments
        if not found or len(value) != len(kinds):
            count = "" if arguments[-1] is ... else f" of {len(arguments)}"
            raise ValueError(f"{where} is {_short(value)}, not a list{count}")
        pairs = zip(kinds, value, strict=True)
        return tuple(_read(inner, item, f"{where}.{i}") for i, (inner, item) in enumerate(pairs))
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise ValueError(f"{where} is {_short(value)}, not {' or '.join(map(str, arguments))}")
        return value
    if origin is dict:
        _check_object(value, where)
        return {key: _read(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise ValueError(f"{where} is {_short(value)}, not {_WORDS[kind]}")
    if type(value) is str:
        _check_text(value, where)
    return value


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    _check_object(value, where)
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    prefix = f"{where}." if where else ""
    for name in names:
        if name not in value:
            raise ValueError(f"{prefix}{name} is missing")
    for name in value:
        if name not in names:
            raise ValueError(f"{prefix}{name} is unknown")
    found = {name: _read(hints[name], value[name], prefix + name) for name in names}
    try:
        return kind(**found)
    except ValueError as error:
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def _read_any(value: Any, where: str) -> Any:
    """Keep a plain value as it is, but for control characters and numbers that are none."""
    if isinstance(value, dict):
        _check_object(value, where)
        return {key: _read_any(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_read_any(item, f"{where}.{i}") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}, not a number")
    if isinstance(value, str):
        _check_text(value, where)
    return value


def _check_object(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'the document'} is {_short(value)}, not an object")
    for key in value:
        _check_text(key, f"a key of {where}" if where else "a key")


def _check_text(text: str, where: str) -> None:
    check_texts(text, where)


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a huge number"
    return text if len(text) <= 40 else f"{text[:40]}…"
