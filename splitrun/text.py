"""Texts of others: file names, labels, what a manifest says. None of them steers a terminal."""

import json
import unicodedata
from typing import Any

MAX_LENGTH = 1 << 14


def is_plain(text: str) -> bool:
    """Say whether a text holds no control characters, no marks of direction and no half codes."""
    # Paths may hold spaces of other widths.
    return text.isprintable() or all(map(_is_plain_character, text))


def check_texts(value: Any, where: str = "") -> None:
    """Raise ``ValueError`` where a text inside lists and objects is not plain, or very long.

    Args:
        value: Value as JSON or YAML gives it.
        where: Path of the value in its document, for messages.
    """
    if isinstance(value, str):
        if len(value) > MAX_LENGTH:
            raise ValueError(f"{where} has {len(value):,} characters, more than {MAX_LENGTH:,}")
        if not is_plain(value):
            shown = ascii(value[:40])
            raise ValueError(f"{where} is {shown}, which holds control characters")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_texts(key, f"a key of {where or 'the document'}")
            check_texts(item, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            check_texts(item, f"{where}.{place}".lstrip("."))


def visible(text: str, keep: str = "\n") -> str:
    """Return a text for a terminal: what is not plain is written as Python writes it in strings."""
    if is_plain(text):
        return text
    return "".join(
        char
        if char in keep or _is_plain_character(char)
        else char.encode("unicode_escape").decode()
        for char in text
    )


def json_text(value: Any) -> str:
    """Return JSON for people and machines: what is not plain is written as JSON's escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if is_plain(text.replace("\n", "")):
        return text
    return "".join(
        char if char == "\n" or _is_plain_character(char) else json.dumps(char)[1:-1]
        for char in text
    )


def _is_plain_character(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"
