"""Model cards: what was measured, for people to read.

>>> from splitzoo import cards
>>> cards.build_card("card", bundle="bundle", profile="report.json")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .card import build_card, render_card

_HOME = {"build_card": "card", "render_card": "card"}

__all__ = ["build_card", "render_card"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
