"""Total latency as a function of the link's rate, and where two ways take equally long."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from splitrun.sending.links import Link

if TYPE_CHECKING:
    from .choose import Plan


@dataclass(frozen=True)
class Course:
    """One way from image to answer, at any rate of the link: a fixed time, and bits to send.

    Attributes:
        model: Name of the model.
        way: Which way it is.
        score: Share in [0, 1] by the main metric.
        stream_bytes: Bytes per image.
        fixed_ms: What does not depend on the rate: device, edge, and the link's time a frame.
        air_bits: Bits on the link, frames included.
    """

    model: str
    way: str
    score: float
    stream_bytes: float
    fixed_ms: float
    air_bits: float

    @classmethod
    def of(cls, plan: "Plan", link: Link | None) -> "Course":
        """Return the course of a plan, in the frames of a link if there is one."""
        size = plan.stream_bytes
        fixed = plan.device_ms + plan.edge_ms
        if link is None:
            return cls(plan.model, plan.way, plan.score, size, fixed, 8 * size)
        fixed += 1e3 * link.frames(size) * link.frame_seconds
        air_bits = 8 * link.bytes_on_air(size)
        return cls(plan.model, plan.way, plan.score, size, fixed, air_bits)

    def total_ms(self, bits_per_second: float) -> float:
        """Return the time from image to answer at a rate."""
        return self.fixed_ms + 1e3 * self.air_bits / bits_per_second


@dataclass(frozen=True)
class Crossing:
    """Where a split model and another way take equally long.

    Attributes:
        model: Name of the split model.
        other: Name of the other way's model.
        other_way: Which way the other is.
        other_score: Share in [0, 1] that the other reaches.
        other_bytes: Bytes per image of the other.
        bits_per_second: Rate at which they meet; None where one is faster at every rate.
        total_ms: Time that both take there.
        faster_below: Which is faster on slower links, or, where they do not meet, on all.
    """

    model: str
    other: str
    other_way: str
    other_score: float
    other_bytes: float
    bits_per_second: float | None
    total_ms: float | None
    faster_below: Literal["split", "other"]


def crossing(split: Course, other: Course) -> Crossing:
    """Solve ``fixed + bits / rate`` for the rate at which two courses are equal."""
    bits, fixed = other.air_bits - split.air_bits, split.fixed_ms - other.fixed_ms
    rate = 1e3 * bits / fixed if bits * fixed > 0 else None
    fewer = split.air_bits < other.air_bits or (bits == 0 and fixed < 0)
    return Crossing(
        model=split.model,
        other=other.model,
        other_way=other.way,
        other_score=other.score,
        other_bytes=other.stream_bytes,
        bits_per_second=rate,
        total_ms=split.total_ms(rate) if rate else None,
        faster_below="split" if fewer else "other",
    )
