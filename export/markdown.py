"""Markdown pages around texts of others: nothing that is filled in becomes markup."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

# Written as HTML's numbers, which are text in Markdown wherever they stand: in a cell of a table,
# in the description of an image, in a paragraph. An underscore inside a word is plain as it is.
_SPECIAL = re.compile(
    r"[\\`*<>\[\]|&$~\r\n]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE
)


def plain(text: str) -> str:
    """Return Markdown that shows a text as it is."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};" if found[0].strip() else " ", text)


def code(text: object) -> Markup:
    """Return Markdown that shows a text in a line as code."""
    text = str(text)
    return Markup(f"<code>{plain(text)}</code>" if re.search(r"[`|\r\n]", text) else f"`{text}`")


def fence(text: object) -> Markup:
    """Return Markdown that shows a text as a block of code."""
    text = str(text)
    longest = max(map(len, re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return Markup(f"{marks}\n{text}\n{marks}")


def inside_fence(text: object) -> Markup:
    """Return a text as part of a line in a block of code, which other words follow."""
    return Markup(" ".join(str(text).splitlines()))


def render(template: Path, values: dict[str, Any]) -> str:
    """Fill a template in; ``Markup`` alone is taken as Markdown, and a name it misspells raises."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(plain(str(value))),
    )
    environment.filters |= {"code": code, "fence": fence, "inside_fence": inside_fence}
    return environment.from_string(template.read_text(encoding="utf-8")).render(values)
