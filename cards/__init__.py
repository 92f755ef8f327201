"""Model cards: what was measured, for people to read.

>>> from splitzoo import cards
>>> cards.build("card", bundle="bundle", profile="report.json")
>>> print(cards.read("card/README.md").data)
"""

from typing import TYPE_CHECKING

from splitrun.lazy import lazy_names

if TYPE_CHECKING:
    from .card import CardFacts, gather, read, render
    from .verification import verify
    from .writing import add_measurement, build

_HOME = {
    "CardFacts": ".card",
    "add_measurement": ".writing",
    "build": ".writing",
    "gather": ".card",
    "read": ".card",
    "render": ".card",
    "verify": ".verification",
}

__all__ = ["CardFacts", "add_measurement", "build", "gather", "read", "render", "verify"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
