"""The thread that empties the spool: one stream after another, again and again until answered."""

import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..coding.stream import read_stream
from ..errors import BitstreamError, SplitzooError
from .carriers import Carrier, LinkDownError, RefusedError
from .items import Item
from .spool import Spool

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0


class Sender(threading.Thread):
    """Sends what a spool holds until it is closed and empty, or nothing more can be sent.

    Args:
        spool: Spool to empty.
        carrier: What carries the streams.
        tell: Function that takes the fields of each answer, or of the error in its place.
        retry_for_s: Longest time to try again while nothing gets through; None for no end.
        own_model: Id of the model that new streams are of, as hexadecimal digits: where the server
            lacks it, nothing more is sent. Streams of others are then refused one by one.
        note: Function that takes what people are told of the link.

    Attributes:
        failure: Error after which nothing more was sent, if there was one.
        answered: Number of streams that were answered.
        refused: Number of streams that were refused.
    """

    def __init__(
        self,
        spool: Spool,
        carrier: Carrier,
        tell: Callable[[dict[str, Any]], None],
        *,
        retry_for_s: float | None = None,
        own_model: str = "",
        note: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(name="sender", daemon=True)
        self._spool, self._carrier, self._tell = spool, carrier, tell
        self._retry_for_s, self._own_model = retry_for_s, own_model
        self._note = note or (lambda text: print(text, file=sys.stderr, flush=True))
        self._halt = threading.Event()
        self.failure: Exception | None = None
        self.answered = self.refused = 0

    def run(self) -> None:
        """Send until the spool is closed and empty; see the class."""
        try:
            while not self._halt.is_set():
                name = self._spool.oldest()
                if name is None:
                    return
                self._send(name)
        except (SplitzooError, OSError) as error:  # the latter: answers that cannot be written
            self.failure = error
        finally:
            self._carrier.close()
            self._spool.wake()

    def halt(self) -> None:
        """Stop after the attempt under way; what was not answered stays in the spool."""
        self._halt.set()

    def _send(self, name: str) -> None:
        try:
            item = self._spool.read(name)
            model = read_stream(item.stream).stream_id.hex()
        except BitstreamError as error:
            # The device lost power while it wrote, or its card is failing: there is no stream.
            self._answer(Item(name, "", b"", 0.0, ""), {"error": error.document()["error"]})
            return
        pause, attempts, down_since = _FIRST_PAUSE_S, 0, None
        while not self._halt.is_set():
            attempts += 1
            began = time.monotonic()
            try:
                delivery = self._carrier.deliver(item)
            except LinkDownError as error:
                if attempts == error.most_attempts:
                    self._answer(item, {"error": error.document()["error"]})
                    return
                down_since = down_since or began
                if self._retry_for_s is not None:
                    left = self._retry_for_s - (time.monotonic() - down_since)
                    if left <= 0 or error.retry_after_s > left:
                        raise
                if attempts == 1:
                    kept = len(self._spool)
                    self._note(f"{error.message} Trying again; {_streams(kept)} in the spool.")
                # Devices that lost the link together must not come back together.
                least = error.retry_after_s * random.uniform(1, 1.2)
                self._halt.wait(max(pause * random.uniform(0.5, 1), least))
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                continue
            except RefusedError as error:
                if error.foreign and model == self._own_model:
                    raise
                self._answer(item, {"error": error.document()["error"]})
                return
            if attempts > 1:
                self._note(f"The link is back after {attempts} attempts.")
            took = 1e3 * (time.monotonic() - began)
            facts = {"sent_bytes": delivery.sent_bytes, "air_ms": round(delivery.air_ms, 3)}
            facts |= {"round_trip_ms": round(took, 3), "attempts": attempts}
            self._answer(item, facts | {"answer": delivery.answer})
            return

    def _answer(self, item: Item, fields: dict[str, Any]) -> None:
        known = {"image": item.image, "id": item.id, "stream_bytes": len(item.stream)}
        self._tell(known | fields)
        # Told first: what is told twice after a crash has the same id.
        self._spool.remove(item.id)
        if "error" in fields:
            self.refused += 1
        else:
            self.answered += 1


def _streams(count: int) -> str:
    return f"{count:,} stream{'' if count == 1 else 's'}"
