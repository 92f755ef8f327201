"""Print what commands say: data on standard output, progress and hints on standard error."""

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from splitrun.errors import SomeFilesError, SplitzooError
from splitrun.text import json_text, visible

from .progress import Progress, T

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, errors included.")]
RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights",
        help="Use seeded random weights: for graphs and latency, not for predictions.",
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", help="Replace what is there; without it, what exists is refused."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Run graphs of any operators from this bundle, and formats that can hold code "
        "(PyTorch's).",
    ),
]
Beta = Annotated[
    float | None,
    typer.Option(
        help="β to encode at, where the model's rate varies: a larger one sends fewer bytes.",
        show_default="the model's",
    ),
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="Seed for random weights. [default: 0]")
]


def command_line() -> str:
    """Return the command that was given, for records that others read.

    Absolute paths are cut to their last name: the rest is this machine's affair. Control characters
    are written as escapes: no document holds them.
    """

    def told(word: str) -> str:
        option, equals, value = word.partition("=")
        if equals and option.startswith("-"):
            return f"{option}={told(value)}"
        return Path(word).name if word.startswith(("/", "~")) else word

    return visible(shlex.join(["splitzoo", *map(told, sys.argv[1:])]), keep="")


def seed_of(random_weights: bool, seed: int | None) -> int | None:
    """Return the seed of random weights, or None where trained ones are wanted.

    Raises:
        typer.BadParameter: A seed without ``--random-weights``.
    """
    if seed is not None and not random_weights:
        raise typer.BadParameter("--seed goes with --random-weights.")
    return (seed or 0) if random_weights else None


_LONGEST_WORD = 40
"""Width from which a word, such as a path, may be broken."""
_PIPE_COLUMNS = 200
"""Width of tables that no terminal shows: what reads them looks for lines."""


class Console:
    """Prints the result of one command.

    Args:
        json: Print JSON instead of tables, and nothing else on standard output.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json
        wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_COLUMNS
        self._out = RichConsole(highlight=False, width=wide)
        self._err = RichConsole(stderr=True, highlight=False)

    def data(self, value: Any, show: Callable[[], None]) -> None:
        """Print a dataclass, pydantic model or plain value as JSON, or call ``show``."""
        if self.json:
            self.document(value)
        else:
            show()

    def document(self, value: Any) -> None:
        """Print JSON; it is all that a command prints on standard output."""
        # Loaded late, for a quick `--help`.
        from pydantic import TypeAdapter

        print(json_text(TypeAdapter(Any).dump_python(value, mode="json")), flush=True)

    def print(self, text: str = "") -> None:
        """Print a line of data."""
        self._out.print(_told(text), soft_wrap=True)

    def markdown(self, text: str) -> None:
        """Print Markdown, rendered for the terminal."""
        from rich.markdown import Markdown

        self._out.print(Markdown(visible(text)))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table.

        The first column, and those whose name ends in ``>``, which are aligned to the right, are
        not broken into lines, and no word is. A table that the terminal is too narrow for becomes
        a list: the first cell of each row on a line, the others below it.
        """
        if title:
            self._out.print(f"[bold]{_told(title)}[/]", soft_wrap=True)
        cells = [[visible(str(cell)) for cell in row] for row in rows]
        names = [column.removesuffix(">") for column in columns]
        table = Table(show_header=any(names), box=SIMPLE)
        least = 2  # the box's own
        for number, column in enumerate(columns):
            whole = column.endswith(">") or number == 0
            texts = [names[number], *(row[number] for row in cells)]
            parts = [
                part for text in texts for part in (text.split("\n") if whole else text.split())
            ]
            width = max(map(cell_len, parts), default=1)
            width = width if whole else min(width, _LONGEST_WORD)
            least += width + 2
            table.add_column(
                names[number],
                justify="right" if column.endswith(">") else "left",
                no_wrap=whole,
                min_width=width,
                overflow="fold",
            )
        if least <= self._out.width or len(columns) < 2:
            for row in cells:
                table.add_row(*map(escape, row))
            self._out.print(table)
            return
        for first, *others in cells:
            self._out.print(escape(first), soft_wrap=True)
            told = zip(names[1:], others, strict=True)
            line = " · ".join(f"{name} {cell}".strip() for name, cell in told if cell)
            self._out.print(Padding(escape(line), (0, 0, 0, 4)))

    def hint(self, text: str) -> None:
        """Say something on standard error that is not data."""
        self._err.print(_told(text), style="dim", soft_wrap=True)

    def error(self, error: SplitzooError) -> None:
        """Print an error and its next step on standard error, and as JSON if that is asked for."""
        self._err.print(f"[bold red]error:[/] {_told(error.message)}", soft_wrap=True)
        if error.next_step:
            self._err.print(_told(error.next_step), soft_wrap=True)
        # Where some of several files failed, the data say which.
        if self.json and not isinstance(error, SomeFilesError):
            self.document(error.document())

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show on standard error how work goes on: as bars, or without a terminal now and then."""
        if not self._err.is_terminal:
            yield _Lines(self)
            return
        shown = _Shown(self)
        with Live(Group(shown.steps, shown.bars), console=self._err, transient=True):
            yield shown


def _told(text: str) -> str:
    """Return a text as rich takes it: no markup, nothing that steers the terminal."""
    return escape(visible(text))


_TELL_EVERY_S = 30.0
"""Time between two lines about one piece of work, seconds."""


class _Lines:
    """A line every half minute, for logs: how many are done, of how many, and the step."""

    def __init__(self, console: Console) -> None:
        self._console, self._step = console, ""

    def step(self, text: str) -> None:
        self._step = text

    def track(
        self, items: Iterable[T], title: str, *, total: int | None = None, done: int = 0
    ) -> Iterator[T]:
        size = len(items) if total is None and isinstance(items, Sized) else total
        told = time.monotonic()
        for number, item in enumerate(items, done + 1):
            yield item
            if time.monotonic() - told >= _TELL_EVERY_S:
                told = time.monotonic()
                count = f"{number:,}" if size is None else f"{number:,} of {size:,}"
                self.note(f"{title}: {count}{f'; {self._step}' * bool(self._step)}")

    def note(self, text: str) -> None:
        self._console.hint(text)


class _Shown:
    """The step under way beside a spinner, and below it a bar for what is counted."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.steps = Bars(SpinnerColumn(), TextColumn("{task.description}"))
        columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self.bars = Bars(TextColumn("{task.description}"), *columns)
        self._step = self.steps.add_task("", total=None)

    def step(self, text: str) -> None:
        self.steps.update(self._step, description=_told(text))

    def track(
        self, items: Iterable[T], title: str, *, total: int | None = None, done: int = 0
    ) -> Iterator[T]:
        size = len(items) if total is None and isinstance(items, Sized) else total
        task = self.bars.add_task(_told(title), total=size, completed=done)
        try:
            for item in items:
                yield item
                self.bars.advance(task)
        finally:
            self.bars.remove_task(task)

    def note(self, text: str) -> None:
        self._console.hint(text)
