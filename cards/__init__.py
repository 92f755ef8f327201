"""Model cards: what was measured, for people to read.

>>> from splitzoo import cards
>>> cards.build("card", bundle="bundle", profile="report.json")
>>> print(cards.read("card/README.md").data)
"""

from typing import TYPE_CHECKING

from splitrun.lazy import lazy_names

if TYPE_CHECKING:
    from .card import CardFacts, build, gather, read, render

__all__ = ["CardFacts", "build", "gather", "read", "render"]

_HOME = dict.fromkeys(__all__, ".card")

__getattr__, __dir__ = lazy_names(__name__, _HOME)
