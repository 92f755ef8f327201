"""``splitrun receive``: streams from frames or a broker, into a spool or a folder."""

import argparse
import sys
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult

from ..errors import OutputError, UsageError
from ..files import new_file
from .carriers import read_address
from .frame_lines import Line, open_line
from .frames import Assembler, digest_of
from .items import Ids, Item, key_of
from .links import read_link
from .outbox import open_outbox, read_token, tell
from .spool import Spool, SpoolFullError

_LOOK_EVERY_S = 0.25
Take = Callable[[str, str, bytes], bool]


class Source(Protocol):
    """Where streams come from."""

    def listen(self, take: Take, check: Callable[[], None]) -> None:
        """Take streams for ever.

        Args:
            take: Function that keeps a stream, of a sender and under a name that a repeat has
                too; it returns False where there is no room.
            check: Function that is called now and then; what it raises ends this.
        """
        ...

    def answer(self, key: str, fields: dict[str, Any]) -> None:
        """Tell a sender what came of its stream, where it can be told."""
        ...


def receive(arguments: argparse.Namespace) -> None:
    """Receive streams until the program is stopped.

    Raises:
        SpecError: An option cannot be used.
        UsageError: Streams are to go to two places, or none.
    """
    address = read_address(arguments.source, ("udp", "serial", "mqtt", "mqtts"))
    if (arguments.to is None) == (arguments.output is None):
        raise UsageError("Streams go to one place.", next_step="Name --to ADDRESS or -o DIR.")
    source = _open_source(address, arguments)
    print(f"Listening on {arguments.source}.", file=sys.stderr, flush=True)
    if arguments.output is not None:
        source.listen(_into_folder(arguments.output, source), lambda: None)
        return

    def told(fields: dict[str, Any]) -> None:
        tell(fields)
        source.answer(fields["image"], fields)

    with open_outbox(arguments, live=True, tell=told) as outbox:

        def check() -> None:
            if outbox.sender.failure:
                raise outbox.sender.failure

        source.listen(_into_spool(outbox.spool), check)


def _open_source(address: SplitResult, arguments: argparse.Namespace) -> Source:
    if address.scheme in ("mqtt", "mqtts"):
        from .mqtt import MqttSource

        return MqttSource(address, read_token(arguments.token_file), arguments.certificates)
    link = read_link(arguments.link) if arguments.link else None
    return FrameSource(open_line(address, arguments.frame, link=link, listen=True))


class FrameSource:
    """Frames of a line, put together; see :class:`Source`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def listen(self, take: Take, check: Callable[[], None]) -> None:
        """Answer frames for ever."""

        def keep(sender: Hashable, tag: bytes, stream: bytes) -> bool:
            # Two streams can have one tag, but not the same digest too.
            return take(str(sender), tag.hex() + digest_of(stream).hex(), stream)

        assembler = Assembler(keep)
        try:
            while True:
                check()
                received = self._line.receive(_LOOK_EVERY_S)
                if received is None:
                    continue
                content, sender = received
                # Ports change when a device starts again; its tags do not.
                who = sender[0] if isinstance(sender, tuple) else sender
                if answer := assembler.receive(who, content):
                    self._line.send(answer, sender)
        finally:
            self._line.close()

    def answer(self, key: str, fields: dict[str, Any]) -> None:
        """Do nothing: the way back is for acknowledgements."""


def _into_spool(spool: Spool) -> Take:
    is_full = False
    ids = Ids()

    def take(sender: str, name: str, stream: bytes) -> bool:
        nonlocal is_full
        key = key_of(sender, name)
        try:
            spool.put(Item(ids.next(), key, stream, time.time(), key))
        except SpoolFullError as error:
            if not is_full:
                then = "Nothing is acknowledged until there is room."
                print(f"{error.message} {then}", file=sys.stderr, flush=True)
            is_full = True
            return False
        is_full = False
        return True

    return take


def _into_folder(folder: Path, source: Source) -> Take:
    def take(sender: str, name: str, stream: bytes) -> bool:
        path = folder / f"{name}.sz"
        try:
            with new_file(path, force=True) as temporary:
                temporary.write_bytes(stream)
        except OutputError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            return False
        tell({"stream": str(path), "from": sender, "stream_bytes": len(stream)})
        source.answer(f"{sender}/{name}", {"answer": {"acknowledged": True}})
        return True

    return take
