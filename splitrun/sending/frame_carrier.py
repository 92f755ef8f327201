"""Sends a stream in frames until the receiver says that it has all of it."""

import time
from collections.abc import Callable

from ..errors import LinkError
from .carriers import Delivery, LinkDownError, RefusedError
from .frame_lines import Line
from .frames import ASKING, HERE, PART, WHOLE, Frame, cut, digest_of, missing, read_frame, tag_of
from .items import Item
from .links import Pace

_MOST_SILENT_ROUNDS = 8
_MOST_USELESS_ROUNDS = 8
_FIRST_WAIT_S = 0.5
_LEAST_WAIT_S = 0.05
_MOST_TAGS = 3
_LONGEST_WAIT_S = 8.0


class FrameCarrier:
    """Sends parts, asks which of them came, and sends the others; see :class:`.carriers.Carrier`.

    Args:
        line: Line that carries the frames.
        pace: Pace to send at.
        timeout_s: Longest time without an answer before the link counts as down.
    """

    def __init__(
        self,
        line: Line,
        *,
        pace: Pace,
        timeout_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line, self._pace, self._timeout_s, self._clock = line, pace, timeout_s, clock
        self._sent_bytes = self._sent_frames = 0
        self._air_s = 0.0
        self._is_sure = False
        self._round_trip_s = _FIRST_WAIT_S

    def deliver(self, item: Item) -> Delivery:
        """Send a stream; the answer says how many frames it took."""
        try:
            parts = cut(item.stream, self._line.frame_bytes)
        except LinkError as error:
            raise RefusedError(error.message, next_step=error.next_step) from error
        digest = digest_of(item.stream)
        self._sent_bytes = self._sent_frames = 0
        self._air_s = 0.0
        for attempt in range(_MOST_TAGS):
            if self._send_parts(parts, tag_of(item.key, attempt)) == digest:
                said = {"acknowledged": True, "frames": self._sent_frames, "parts": len(parts)}
                return Delivery(said, self._sent_bytes, 1e3 * self._air_s)
            # Another stream has this tag: one of 4 billion, or somebody is lying.
        raise RefusedError("The receiver says that it has other bytes than were sent.")

    def _send_parts(self, parts: list[bytes], tag: bytes) -> bytes:
        """Send all parts, and return the digest of what the receiver has."""
        last, wanted = len(parts) - 1, list(range(len(parts)))
        silent, useless, quiet_s, wait_s = 0, 0, 0.0, 0.0
        while True:
            # Whoever heard nothing asks again with one part, and not with all of them. So does
            # who may have sent some before the link, or this program, broke down.
            sending = wanted[-1:] if silent or not self._is_sure else wanted
            # Late answers know nothing of what is sent now.
            answer = self._answer(tag, last, 0.0)
            if answer is None or answer.kind != WHOLE:
                began = self._clock()
                for index in sending:
                    kind = ASKING if index == sending[-1] else PART
                    self._send(Frame(kind, tag, index, last, parts[index]))
                self._air_s += self._clock() - began
                wait_s = min(
                    max(2 * self._round_trip_s, _LEAST_WAIT_S) * 2**silent, _LONGEST_WAIT_S
                )
                answer = self._answer(tag, last, wait_s)
            if answer is None:
                silent, quiet_s = silent + 1, quiet_s + wait_s
                if silent >= _MOST_SILENT_ROUNDS or quiet_s > self._timeout_s:
                    self._is_sure = False
                    raise LinkDownError(
                        f"Nobody acknowledges: {quiet_s:.1f} s without an answer.",
                        next_step="Check the address, and that this runs there: splitrun receive",
                    )
                continue
            self._is_sure = True
            if answer.kind == WHOLE:
                return answer.content
            left = missing(answer)
            useless = 0 if len(left) < len(wanted) else useless + 1
            if useless >= _MOST_USELESS_ROUNDS:
                self._is_sure = False
                raise LinkDownError(f"Nothing more arrives: {len(left)} parts are missing.")
            silent, quiet_s, wanted = 0, 0.0, left

    def close(self) -> None:
        """Close the line."""
        self._line.close()

    def _send(self, frame: Frame) -> None:
        content = frame.to_bytes()
        self._line.send(content)
        self._sent_bytes += len(content)
        self._sent_frames += 1
        link = self._pace.link
        overhead = link.overhead_bytes if link and link.frame_bytes else self._line.overhead_bytes
        self._pace.keep(len(content) + overhead, frames=1)

    def _answer(self, tag: bytes, last: int, wait_s: float) -> Frame | None:
        """Wait for an answer; with no time, return the latest of those that are here."""
        asked, latest = self._clock(), None
        while True:
            left = asked + wait_s - self._clock()
            received = self._line.receive(max(left, 0.0))
            if received is None:
                if left <= 0 or latest:
                    return latest
                continue
            frame = read_frame(received[0])
            if frame is None or frame.tag != tag:
                continue
            if frame.kind == WHOLE or (frame.kind == HERE and frame.last == last):
                if wait_s:
                    took = self._clock() - asked
                    self._round_trip_s += 0.25 * (took - self._round_trip_s)
                    return frame
                latest = frame
                if frame.kind == WHOLE:
                    return frame
