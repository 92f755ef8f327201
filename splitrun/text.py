"""Texts of others: file names, labels, what a manifest says. None of them steers a terminal."""

import json
import unicodedata
from typing import Any

MAX_LENGTH = 1 << 14


def is_plain(text: str) -> bool:
    """Say whether a text holds no control characters, no marks of direction and no half codes."""
    # Paths may hold spaces of other widths.
    return text.isprintable() or all(map(_is_plain_character, text))


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
