"""Parts of models' names: where each stands, and what it may be.

The regular expressions take whatever stands in a part's place, and the functions say what is wrong
with it: they raise ``ValueError`` with the reason, or ``UnknownNameError`` with close names.
"""

import re
from collections.abc import Sequence

from splitrun.errors import UnknownNameError
from splitrun.registry import close_matches

PREFIX = "(?P<prefix>faster_rcnn_|deeplabv3_)?"
BACKBONE = r"(?P<backbone>(?!splittable_|svbi_)[A-Za-z0-9_.]+)"
LAYER = r"(?P<layer>[A-Za-z][A-Za-z0-9_.]*)"
CODEC = r"(?P<codec>[A-Za-z0-9_]+)"
QUALITY = "q(?P<quality>.*)"
BETA = "beta(?P<beta>.*?)"

_NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?(e-?[0-9]{1,2})?")
_WHOLE = re.compile(r"0|[1-9][0-9]*")


def check_beta(text: str) -> str:
    """Return β as it is spelled in a name."""
    if _NUMBER.fullmatch(text):
        return text
    reason = f"β is a number from 0 to 1e99, written like 0.08, 3 or 1.28e-8, not {text!r}"
    digits = text.lstrip("0")
    if digits != text and _NUMBER.fullmatch(digits):
        reason += f"; is beta{digits} or beta0.{text[1:]} meant?"
    raise ValueError(reason)


def whole_number(what: str, text: str, low: int, high: int) -> int:
    """Return a whole number of a name, which has no leading zeros."""
    if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
        raise ValueError(f"{what} is a whole number from {low} to {high}, not {text!r}")
    return int(text)


def check_choice(kind: str, text: str, known: Sequence[str]) -> str:
    """Return a word that is one of a few."""
    if text not in known:
        there = f"There are: {', '.join(known)}."
        raise UnknownNameError(kind, text, close_matches(text, known), next_step=there)
    return text
