"""Pages that commands write: Markdown, whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

from splitrun.files import new_file
from splitrun.machine import machine


def write_page(path: Path, text: str) -> None:
    """Write a page.

    Raises:
        OutputError: It cannot be written.
    """
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def made_here() -> str:
    """Return this machine's processor, and how it does bf16 if it does not, for a page's foot."""
    env = machine()
    text = f"on {env['cpu']} ({env['instructions']})"
    if "BF16" not in env["instructions"]:
        text += ", which has nothing for bf16: there, OpenVINO computes it in fp32"
    return text


def table_line(cells: Iterable[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"
