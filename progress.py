"""How long work says where it stands: one interface, for a terminal or for nobody."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Shows how work goes on; ``Console.progress`` is the one for a terminal."""

    def step(self, text: str) -> None:
        """Name the step that begins."""
        ...

    def track(
        self, items: Iterable[T], title: str, *, total: int | None = None, done: int = 0
    ) -> Iterator[T]:
        """Go through items, and count them.

        Args:
            items: What to go through.
            title: Name of what is counted, such as ``"images"``.
            total: Number of all items; by default the length of ``items``.
            done: Number of items that were done before.
        """
        ...

    def note(self, text: str) -> None:
        """Say something that stays, such as the result of an epoch."""
        ...


class Silent:
    """Shows nothing."""

    def step(self, text: str) -> None:
        """Do nothing."""

    def track(
        self, items: Iterable[T], title: str, *, total: int | None = None, done: int = 0
    ) -> Iterator[T]:
        """Go through items."""
        return iter(items)

    def note(self, text: str) -> None:
        """Do nothing."""


SILENT = Silent()
"""What functions take by default."""
