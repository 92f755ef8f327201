"""How a model is cited."""

import re
from typing import TYPE_CHECKING

from .. import __version__

if TYPE_CHECKING:
    from .card import CardFacts


def bibtex(facts: "CardFacts") -> str:
    """Return a BibTeX entry of a model: its name, what tells its weights, and where it is."""
    dates = [one.date for one in (facts.profile, facts.accuracy) if one]
    if facts.config and facts.config.training:
        dates.insert(0, facts.config.training.date)
    name = _text(facts.spec.name)
    fields = {
        "title": f"{name}: a split model",
        "note": f"Weights {facts.model_id}" if facts.model_id else "",
        "howpublished": f"splitzoo {__version__}",
        "url": f"https://huggingface.co/{facts.repository}" if facts.repository else "",
        "year": dates[0][:4] if dates else "",
    }
    key = re.sub(r"[^A-Za-z0-9]+", "-", facts.spec.name).strip("-") or "model"
    said = [f"  {field} = {{{value}}}," for field, value in fields.items() if value]
    return "\n".join([f"@misc{{{key},", *said, "}"])


def _text(name: str) -> str:
    """Return a name as BibTeX takes it: on one line, and with nothing that steers TeX."""
    return re.sub(r"([#$%&_])", r"\\\1", re.sub(r"[\s{}\\^~]+", " ", name))
