"""Streams on disk until they are answered: one file each, whole or not there at all.

A program that is killed, a machine that loses power and a full disk leave whole files alone: each
is written under another name, synchronised and renamed. One program at a time uses a spool.
"""

import contextlib
import errno
import os
import re
import secrets
import socket
import threading
from pathlib import Path
from typing import Any

from ..errors import BitstreamError, OutputError
from ..files import check_free
from ..sizes import format_size
from .items import Item

_ENDING = ".item"
_UNFINISHED = ".unfinished"
_NAME = re.compile(r"[0-9a-f]{24}")
_ROOM = (errno.ENOSPC, errno.EDQUOT)


class SpoolFullError(OutputError):
    """A stream for which the spool, or the disk that it lies on, has no room at present."""


class Spool:
    """Streams that wait, oldest first; several threads may use one.

    Args:
        folder: Folder of the files; it is made if it is missing.
        limit_bytes: Most bytes that it holds.

    Raises:
        OutputError: Another program uses the folder, or it cannot be written.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._changed = threading.Condition()
        self._closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            check_free(folder, force=True)
            self._lock_file = _locked(folder / "lock")
            for left in folder.glob(f"*{_UNFINISHED}"):
                left.unlink(missing_ok=True)
            self._sizes = {
                path.stem: path.stat().st_size
                for path in sorted(folder.glob(f"*{_ENDING}"))
                if _NAME.fullmatch(path.stem)
            }
            self.device = self._device()
        except OSError as error:
            raise _refusal(folder, error) from error

    def __len__(self) -> int:
        with self._changed:
            return len(self._sizes)

    @property
    def size_bytes(self) -> int:
        """Bytes that the files have."""
        with self._changed:
            return sum(self._sizes.values())

    def put(self, item: Item) -> None:
        """Keep a stream; when this returns, it is on the disk.

        Raises:
            SpoolFullError: The limit is reached, or the disk is full; nothing was kept.
            OutputError: The file cannot be written.
        """
        content = item.to_bytes()
        with self._changed:
            held = sum(self._sizes.values()) - self._sizes.get(item.id, 0)
        if held + len(content) > self.limit_bytes:
            raise SpoolFullError(
                self.folder,
                f"the spool holds {format_size(held)}, and its limit is "
                f"{format_size(self.limit_bytes)}",
                next_step="Give it more with --spool-limit, or send fewer with --max-rate.",
            )
        path = self.folder / f"{item.id}{_ENDING}"
        unfinished = path.with_suffix(_UNFINISHED)
        try:
            with unfinished.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError as error:
            raise _refusal(self.folder, error) from error
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        with self._changed:
            self._sizes[item.id] = len(content)
            self._changed.notify_all()

    def oldest(self, timeout_s: float | None = None) -> str | None:
        """Return the id of the oldest stream; wait for one until the spool is closed.

        Returns:
            None when it is closed and empty, or the time is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._sizes or self._closed, timeout_s)
            return min(self._sizes, default=None)

    def read(self, name: str) -> Item:
        """Return a stream.

        Raises:
            BitstreamError: Its file is damaged or gone.
        """
        try:
            content = (self.folder / f"{name}{_ENDING}").read_bytes()
        except OSError as error:
            raise BitstreamError(f"The stream that was kept as {name} cannot be read.") from error
        return Item.of_bytes(name, content)

    def remove(self, name: str) -> None:
        """Forget a stream, and make room."""
        with contextlib.suppress(OSError):
            (self.folder / f"{name}{_ENDING}").unlink(missing_ok=True)
        with self._changed:
            self._sizes.pop(name, None)
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> None:
        """Wait until a stream comes or goes, or somebody calls :meth:`wake`."""
        with self._changed:
            self._changed.wait(timeout_s)

    def wake(self) -> None:
        """End :meth:`wait` in all threads."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Say that no more streams will come; those that are there stay."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def release(self) -> None:
        """Let other programs use the folder."""
        self._lock_file.close()

    def _device(self) -> str:
        """Return the name of this device, the same each time: its host's, and random digits."""
        path = self.folder / "device"
        if path.is_file() and (name := path.read_text().strip()):
            return name
        host = re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:40]
        name = f"{host}-{secrets.token_hex(4)}"
        unfinished = path.with_suffix(_UNFINISHED)
        unfinished.write_text(name + "\n")
        unfinished.replace(path)
        return name


def _refusal(folder: Path, error: OSError) -> OutputError:
    kind = SpoolFullError if error.errno in _ROOM else OutputError
    reason = (error.strerror or str(error)).lower()
    return kind(folder, reason, next_step="Free some room, or name another folder with --spool.")


def _locked(path: Path) -> Any:
    """Open a file that no other program has open here; the system frees it when this one ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        return path.open("a")
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OutputError(
            path.parent,
            "another program sends from this spool",
            next_step="Stop it, or name another folder with --spool.",
        ) from error
    return file
