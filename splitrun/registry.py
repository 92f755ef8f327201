"""Entries by name; a wrong name is answered with the closest correct ones."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from .errors import DuplicateNameError, UnknownNameError

T = TypeVar("T")
_FEW = 5
"""Most names that are listed outright where none is close."""


def close_matches(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three of the known names that are spelled like a name, best first."""
    return difflib.get_close_matches(name, list(known), n=3)


class Registry(Generic[T]):
    """Names to entries, in the order of registration.

    Args:
        kind: What an entry is, for messages: ``"model"``, ``"target"``.
        next_step: The command that lists the names, for messages.
    """

    def __init__(self, kind: str, *, next_step: str = "") -> None:
        self.kind = kind
        self._next_step = next_step
        self._entries: dict[str, T] = {}
        self._aliases: dict[str, str] = {}

    def register(self, name: str, entry: T, *, aliases: Iterable[str] = ()) -> T:
        """Add an entry, and other names under which it is found.

        Raises:
            DuplicateNameError: One of the names is taken.
        """
        aliases = tuple(aliases)
        for new in (name, *aliases):
            if new in self:
                raise DuplicateNameError(f"The {self.kind} {new!r} is registered already.")
        self._entries[name] = entry
        self._aliases.update(dict.fromkeys(aliases, name))
        return entry

    def get(self, name: str) -> T:
        """Return the entry of a name or alias.

        Raises:
            UnknownNameError: Nothing has that name; it carries up to three close ones, or all
                where there are few.
        """
        try:
            return self._entries[self._aliases.get(name, name)]
        except KeyError:
            matches = close_matches(name, [*self._entries, *self._aliases])
            if not matches and len(self._entries) <= _FEW:
                matches = self.names()
            raise UnknownNameError(self.kind, name, matches, next_step=self._next_step) from None

    def names(self) -> list[str]:
        """Return the registered names, without aliases."""
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries or name in self._aliases

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries.values())
