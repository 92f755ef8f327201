"""Answers to recent senders, by the keys that they sent: a repeat is not run again."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from ..errors import RequestError
from .answers import Answer

MAX_BYTES = 64 << 20

Key = tuple[str, str]
"""A token and a key under it."""


@dataclass
class _Entry:
    digest: bytes
    future: "asyncio.Future[Answer | None]"
    size: int = 0


class Repeats:
    """The last answers by key; used by the thread of the event loop alone.

    Args:
        limit: Most answers; those of more than 64 MiB together are forgotten too.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()

    async def once(self, key: Key, asked: bytes, work: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer that the key has, or have it worked out and keep it.

        Args:
            asked: All that the answer depends on.
            work: Function that works the answer out; what it raises is not kept.

        Raises:
            RequestError: The key came before with something else.
        """
        digest = hashlib.sha256(asked).digest()
        while (entry := self._entries.get(key)) is not None:
            if entry.digest != digest:
                raise RequestError(
                    f"The key {key[1]} came before with another stream or query.",
                    422,
                    next_step="Give each sending a key of its own, and a repeat the same bytes.",
                )
            known = await asyncio.shield(entry.future)
            if known is not None:
                return replace(known, replayed=True)
        entry = _Entry(digest, asyncio.get_running_loop().create_future())
        self._entries[key] = entry
        try:
            found = await work()
        except BaseException:
            # Who waits for it works it out anew.
            del self._entries[key]
            entry.future.set_result(None)
            raise
        entry.future.set_result(found)
        entry.size = len(found.body)
        self._bytes += entry.size
        self._forget()
        return found

    def _forget(self) -> None:
        while len(self._entries) > self._limit or self._bytes > MAX_BYTES:
            oldest = next(
                (key for key, entry in self._entries.items() if entry.future.done()), None
            )
            if oldest is None:
                return
            self._bytes -= self._entries.pop(oldest).size
