"""Pages that commands write: Markdown, whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

from ..files import new_file


def write_page(path: Path, text: str) -> None:
    """Write a page.

    Raises:
        OutputError: It cannot be written.
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def table_line(cells: Iterable[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"
