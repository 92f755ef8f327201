"""Model cards: what was measured, for people to read.

>>> from splitzoo import cards
>>> cards.build_card("card", bundle="bundle", profile="report.json")
"""

from typing import TYPE_CHECKING

from splitrun.lazy import lazy_names

if TYPE_CHECKING:
    from .card import build_card, render_card

_HOME = {"build_card": ".card", "render_card": ".card"}

__all__ = ["build_card", "render_card"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
