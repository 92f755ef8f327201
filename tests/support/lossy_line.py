"""A line between a sender and a receiver of frames, in made time: it loses, doubles and damages."""

import random

from splitrun.sending.frames import Assembler


class LossyLine:
    """The sender's end; each frame goes to ``assembler``, and its answer comes back later.

    Args:
        assembler: What receives.
        loss: Share of frames, either way, that are lost.
        damage: Share of frames of which one bit is turned.
        double: Share of frames that come twice.
        bits_per_second: Rate of the line.
        delays: Least and most time that an answer takes, seconds.
    """

    overhead_bytes = 0

    def __init__(
        self,
        assembler: Assembler,
        *,
        frame_bytes=222,
        loss=0.0,
        damage=0.0,
        double=0.0,
        seed=0,
        bits_per_second=5470.0,
        delays=(0.01, 3.0),
    ):
        self.frame_bytes = frame_bytes
        self.now = 0.0
        self.frames = self.lost = 0
        self._assembler, self._random = assembler, random.Random(seed)
        self._loss, self._damage, self._double = loss, damage, double
        self._rate, self._delays = bits_per_second, delays
        self._answers = []

    def clock(self):
        return self.now

    def send(self, frame, to=None):
        assert len(frame) <= self.frame_bytes
        self.frames += 1
        self.now += 8 * len(frame) / self._rate
        for arrived in self._through(frame):
            answer = self._assembler.receive("device", arrived)
            assert answer is None or len(answer) <= self.frame_bytes
            for returned in self._through(answer) if answer else ():
                self._answers.append((self.now + self._random.uniform(*self._delays), returned))

    def receive(self, timeout_s):
        due = [one for one in self._answers if one[0] <= self.now + timeout_s]
        if not due:
            self.now += timeout_s
            return None
        first = min(due)
        self._answers.remove(first)
        self.now = max(self.now, first[0])
        return first[1], "receiver"

    def close(self):
        pass

    def _through(self, frame):
        if self._random.random() < self._loss:
            self.lost += 1
            return
        for _ in range(1 + (self._random.random() < self._double)):
            content = bytearray(frame)
            if self._random.random() < self._damage:
                content[self._random.randrange(len(content))] ^= 1 << self._random.randrange(8)
            yield bytes(content)
