"""How the API reference reads the package: its docstrings as Markdown, and ``splitzoo.profile``."""

import re
from pathlib import Path
from typing import Any

import griffe

API = Path(__file__).parents[1] / "profile" / "api.py"


class ReferencePages(griffe.Extension):
    """Show roles as code, sessions as code blocks, and ``splitzoo.profile`` as its ``api.py``."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn what is reStructuredText in a docstring into Markdown."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_members(self, *, obj: griffe.Object, agent: griffe.Visitor, **_: Any) -> None:
        """Put the module in the place of the alias in splitzoo's ``__init__.py``."""
        if obj.path == "splitzoo":
            obj.members["profile"] = griffe.visit(
                "profile",
                filepath=API,
                code=API.read_text(encoding="utf-8"),
                parent=obj,  # pyright: ignore[reportArgumentType]
                docstring_parser=agent.docstring_parser,
                lines_collection=agent.lines_collection,
                modules_collection=agent.modules_collection,
            )


def as_markdown(text: str) -> str:
    """Return a docstring with its roles, literal blocks and sessions in Markdown's form."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"^::$", "", text, flags=re.MULTILINE)
    return re.sub(r"^>>> .*(?:\n(?:>>>|\.\.\.).*)*", session, text, flags=re.MULTILINE)


def session(found: re.Match[str]) -> str:
    """Return the lines of an interactive session as a block of code."""
    return "\n".join(["```python", *(line[4:] for line in found[0].splitlines()), "```"])
