"""Spool and sender together: what is put into the one, the other sends over the link."""

import argparse
import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LinkError, SpecError, SplitzooError
from ..signals import keeping
from .carriers import CarrierSettings, open_carrier, read_address
from .links import Pace, read_link
from .sender import Sender
from .spool import Spool

_RETRY_FOR_S = 60.0
_LOOK_EVERY_S = 0.25
_PRINTED = threading.Lock()


def tell(fields: dict[str, Any]) -> None:
    """Print one line of JSON on standard output, at once and whole."""
    line = json.dumps(fields)
    with _PRINTED:
        print(line, flush=True)


@dataclass(frozen=True)
class Outbox:
    """What streams are put into to be sent; from :func:`open_outbox`.

    Attributes:
        spool: Spool that keeps them until they are answered.
        sender: Thread that empties it.
        device: Name of this device.
    """

    spool: Spool
    sender: Sender
    device: str

    def finish(self) -> None:
        """Wait until the spool is empty, or nothing more can be sent.

        Raises:
            LinkError: Streams were refused, or stay in the spool.
        """
        spool, sender = self.spool, self.sender
        spool.close()
        while sender.is_alive():
            sender.join(_LOOK_EVERY_S)
        failure, left = sender.failure, len(spool)
        if isinstance(failure, SplitzooError) and left:
            stays = f"{left:,} stream{' stays' if left == 1 else 's stay'} in {spool.folder}"
            kept = f"{stays}; the same command sends them."
            failure.next_step = f"{failure.next_step}\n{kept}".strip()
        if failure:
            raise failure
        if sender.refused:
            raise LinkError(
                f"{sender.refused:,} of {sender.refused + sender.answered:,} streams were refused; "
                "their lines say why."
            )


@contextlib.contextmanager
def open_outbox(
    arguments: argparse.Namespace,
    *,
    live: bool,
    stream_id: str = "",
    tell: Callable[[dict[str, Any]], None] = tell,
) -> Iterator[Outbox]:
    """Open spool and link, and send from the one over the other.

    Args:
        arguments: Options of ``send`` and ``receive``.
        live: Whether streams go on coming, so that there is no end to trying by default.
        stream_id: Id of the model that they are of, as :class:`.Sender` takes it.
        tell: Function that takes the fields of each answer, or of the error in its place.

    Raises:
        SpecError: An option cannot be used.
        OutputError: The spool cannot be used.
    """
    address = read_address(arguments.to)
    pace = Pace(read_link(arguments.link) if arguments.link else None)
    token = read_token(arguments.token_file)
    with contextlib.ExitStack() as at_end:
        spool = Spool(arguments.spool or _default_spool(), int(arguments.spool_limit * 1e6))
        at_end.callback(spool.release)
        device = arguments.device or spool.device
        carrier = open_carrier(
            CarrierSettings(
                address=address,
                pace=pace,
                device=device,
                model=arguments.model,
                token=token,
                timeout_s=arguments.timeout,
                top=arguments.top,
                tail=arguments.tail,
                certificates=arguments.certificates,
                frame_bytes=arguments.frame,
            )
        )
        retry_for = arguments.retry_for
        if retry_for is None and not live:
            retry_for = _RETRY_FOR_S
        sender = Sender(spool, carrier, tell, retry_for_s=retry_for, own_model=stream_id)
        kept = f"Streams without an answer are kept in {spool.folder}; the same command sends them."
        at_end.enter_context(keeping(kept))
        sender.start()
        at_end.callback(_stop, sender, spool)
        yield Outbox(spool, sender, device)


def _stop(sender: Sender, spool: Spool) -> None:
    """End the sender, after an error too; an attempt under way is waited for a moment alone."""
    sender.halt()
    spool.close()
    sender.join(_LOOK_EVERY_S)


def read_token(path: Path | None) -> str:
    """Return the token in a file; empty where there is none.

    Raises:
        SpecError: The file cannot be read, or holds none.
    """
    if path is None:
        return ""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not plain text"
        raise SpecError(f"The token in {path} cannot be read: {reason.lower()}.") from error
    if not token or not token.isprintable() or " " in token:
        raise SpecError(f"{path} holds no token: one word on one line is expected.")
    return token


def _default_spool() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "splitrun" / "spool"
