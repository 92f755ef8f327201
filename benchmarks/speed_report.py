"""What ``speed.py`` finds: figures, all of one run, and the bars that they are held against."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from speed_tasks import (
    DECODE,
    ENCODE,
    ENTROPY_DECODING,
    ENTROPY_ENCODING,
    IMAGE,
    KINDS,
    Task,
)

from splitrun.measure import Latency

QUIET_CORES = 0.1  # kept busy by other processes; beyond it the ratios mean little


@dataclass(frozen=True)
class Agreement:
    """Does a side compute what the model does in PyTorch?

    Attributes:
        symbols: Number of symbols compared, over all images.
        symbols_differing: Number of these that differ.
        largest_difference: Largest difference of a symbol.
        payload_bytes: Payload of each image, without the frame.
        logits_relative_error: Error of the logits of the first stream; None without an edge.
        tables_equal: Whether the entropy tables are the model's.
    """

    symbols: int
    symbols_differing: int
    largest_difference: int
    payload_bytes: list[int]
    logits_relative_error: float | None
    tables_equal: bool


@dataclass(frozen=True)
class Turn:
    """One turn of one side.

    Attributes:
        engine: Engine and its version.
        seconds: Time of each counted run, by task.
        foreign_cores: Cores that other processes kept busy meanwhile; None where unknown.
        agreement: Agreement with PyTorch; None where only the edge is measured.
    """

    engine: str
    seconds: dict[str, list[float]]
    foreign_cores: float | None
    agreement: Agreement | None


@dataclass(frozen=True)
class PrecisionReport:
    """What a precision below fp32 changes on images held out: of the bundle's manifest."""

    calibrated: int
    held_out: int
    flips: float
    largest_difference: int
    rate_inflation: float
    kept_fp32: list[str]
    accepted: list[str]


@dataclass(frozen=True)
class EdgeEffect:
    """What a precision of the edge below fp32 changes on images held out: of the manifest."""

    calibrated: int
    held_out: int
    answers_changed: int
    output_error: float
    accepted: list[str]


@dataclass(frozen=True)
class Made:
    """A bundle that was exported; or why it was not.

    Attributes:
        name: Name of the side.
        seconds: Time that the export took.
        graph_bytes: Size of the device graph's files.
        tables_bytes: Size of the entropy tables' file.
        effect: Changes made by a precision below fp32.
        edge_effect: Changes made by a precision of the edge below fp32.
        refused: Reason why there is no bundle; empty where there is one.
    """

    name: str
    seconds: float
    graph_bytes: int = 0
    tables_bytes: int = 0
    effect: PrecisionReport | None = None
    edge_effect: EdgeEffect | None = None
    refused: str = ""


@dataclass(frozen=True)
class Pixels:
    """How far the pixels of our preprocessing are from torchvision's, in 8-bit levels."""

    values: int
    largest: int
    mean: float


@dataclass(frozen=True)
class Prepared:
    """What every side starts from.

    Attributes:
        made: The bundles.
        macs: Multiply-accumulates of the device graph, one image.
        int8_macs: Number of these that the int8 graph computes in int8; None without one.
        edge_macs: Multiply-accumulates of the convolutions of the edge graph, one image.
        pixels: Difference of the images' pixels from torchvision's.
        payload_bytes: Payload of each image, by the model in PyTorch.
        symbols_not_zero: Number of nonzero symbols of the first image.
    """

    made: list[Made]
    macs: int
    int8_macs: int | None
    edge_macs: int
    pixels: Pixels
    payload_bytes: list[int]
    symbols_not_zero: int


@dataclass(frozen=True)
class Timing:
    """A task on one side, all rounds pooled.

    Attributes:
        side: Its name.
        task: Its name.
        runs: Number of counted runs.
        latency: Latency over all of them.
        ratio: Ratio of the medians, ours over sc2bench's.
        round_ratios: Ratio of each round alone.
    """

    side: str
    task: str
    runs: int
    latency: Latency
    ratio: float
    round_ratios: list[float]


@dataclass(frozen=True)
class Memory:
    """Of a process that encodes the first image: ``python -m splitrun encode``.

    Attributes:
        side: Its name.
        peak_bytes: Largest resident size; the larger of two processes.
        heavy_imports: Packages it loads that a board should not need, where it is looked at.
    """

    side: str
    peak_bytes: int
    heavy_imports: list[str]


@dataclass(frozen=True)
class Peak:
    """The fastest that a library multiplies and adds on this machine."""

    library: str
    precision: str
    operation: str
    gmacs_per_second: float


@dataclass(frozen=True)
class Bar:
    """A figure held against what was asked for.

    Attributes:
        name: What was measured.
        subject: Side that was measured.
        value: Figure in the unit, or a ratio; None where it was not measured.
        limit: Largest value that meets the bar.
        unit: Unit; empty for a ratio.
        met: Whether the bar is met; None where it was not measured.
    """

    name: str
    subject: str
    value: float | None
    limit: float
    unit: str
    met: bool | None


@dataclass(frozen=True)
class Report:
    """Everything that one run found; ``foreign_cores`` are those others kept busy in each turn."""

    date: str
    command: str
    malloc: dict[str, str]
    model: str
    threads: int
    rounds: int
    iterations: int
    images: list[str]
    calibrated_on: str
    load_average: list[float]
    environment: dict[str, str]
    versions: dict[str, str]
    prepared: Prepared
    engines: dict[str, str]
    foreign_cores: dict[str, list[float | None]]
    agreements: dict[str, Agreement]
    timings: list[Timing]
    memory: list[Memory]
    peaks: list[Peak]
    bars: list[Bar]

    def timing(self, side: str, task: Task) -> Timing | None:
        """Return what a side took for a task, if it was measured."""
        return find(self.timings, side, task)

    def peak(self, precision: str) -> Peak | None:
        """Return the fastest of all libraries."""
        known = (one for one in self.peaks if one.precision == precision)
        return max(known, key=lambda one: one.gmacs_per_second, default=None)

    def bound_ms(self, precision: str) -> float | None:
        """Return how long the encoder takes at least, at the measured peaks.

        An int8 graph computes some of its parts in fp32: each part at the peak of its own type.
        """
        lower, full = self.peak(precision), self.peak("fp32")
        if lower is None or full is None:
            return None
        known = self.prepared.int8_macs
        low = known if precision == "int8" and known is not None else self.prepared.macs
        rest = self.prepared.macs - low
        return 1e-6 * (low / lower.gmacs_per_second + rest / full.gmacs_per_second)

    def edge_bound_ms(self, precision: str) -> float | None:
        """Return how long the edge takes at least, with all its convolutions in a precision."""
        peak = self.peak(precision)
        return None if peak is None else 1e-6 * self.prepared.edge_macs / peak.gmacs_per_second


def find(timings: Iterable[Timing], side: str, task: Task) -> Timing | None:
    """Return what a side took for a task, if it was measured."""
    return next((one for one in timings if (one.side, one.task) == (side, task.name)), None)


def judge(timings: list[Timing], memory: list[Memory], help_seconds: float | None) -> list[Bar]:
    """Hold the figures against what was asked for."""

    def bar(name: str, subject: str, value: float | None, limit: float, unit: str = "") -> Bar:
        return Bar(name, subject, value, limit, unit, None if value is None else value <= limit)

    def ratio(name: str, timing: Timing | None, limit: float) -> Bar:
        return (
            bar(name, timing.side, timing.ratio, limit) if timing else bar(name, "–", None, limit)
        )

    def best(task: Task, precision: str, edges: tuple[str, ...] = ("fp32",)) -> Timing | None:
        sides = {
            k.name
            for k in KINDS
            if k.precision == precision and k.edge_precision in edges and not k.open_batch
        }
        known = (one for one in timings if one.side in sides and one.task == task.name)
        return min(known, key=lambda one: one.latency.p50_ms, default=None)

    fastest = (best(ENCODE, precision) for precision in ("fp32", "int8"))
    looked_at = {"cpu fp32", *(one.side for one in fastest if one)}

    def remembered(one: Memory) -> Bar:
        found = bar("peak memory of encoding", one.side, one.peak_bytes / 1e6, 250, "MB")
        if not one.heavy_imports:
            return found
        return replace(found, met=False, subject=f"{one.side}: imports {one.heavy_imports}")

    return [
        ratio("image → stream, best in fp32", best(ENCODE, "fp32"), 0.38),
        ratio("image → stream, best in int8", best(ENCODE, "int8"), 0.20),
        ratio("JPEG file → stream, best in fp32", best(IMAGE, "fp32"), 0.45),
        ratio("JPEG file → stream, best in int8", best(IMAGE, "int8"), 0.45),
        ratio("stream → logits, best in fp32", best(DECODE, "fp32"), 0.60),
        ratio(
            "stream → logits, best in int8 or bf16", best(DECODE, "fp32", ("int8", "bf16")), 0.40
        ),
        ratio("entropy encoding", find(timings, "cpu fp32", ENTROPY_ENCODING), 0.35),
        ratio("entropy decoding", find(timings, "cpu fp32", ENTROPY_DECODING), 0.8),
        *(remembered(one) for one in memory if one.side in looked_at),
        bar("splitzoo --help", "start to end", help_seconds, 0.5, "s"),
    ]
