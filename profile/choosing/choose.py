"""Rank models by accuracy among those that fit a link, a deadline, and so many bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from splitrun.errors import ReportError, UnknownNameError
from splitrun.sending.links import Link

from ...zoo.catalog import has_weights
from ...zoo.model_rows import ModelRow, package_rows
from .crossings import Course, Crossing, crossing
from .devices import Pace, macs_per_ms, read_pace

ANSWER_BYTES = 16
"""What a device sends that has named the image itself: a class and how sure it is, in a frame."""


@dataclass(frozen=True)
class Wanted:
    """What a model must do.

    Attributes:
        max_bytes: Most bytes per image, on average.
        deadline_ms: Longest time from image to answer.
        min_accuracy: Least share in [0, 1] of the main metric.
    """

    max_bytes: float | None = None
    deadline_ms: float | None = None
    min_accuracy: float | None = None


@dataclass(frozen=True)
class Plan:
    """What one model takes from image to answer.

    Attributes:
        model: Name of the model.
        way: ``"split"``, ``"image codec"`` or ``"all on the device"``.
        series: Name of the models that differ in β, channels or quality only.
        metric: Key of the main metric.
        score: Share in [0, 1] by it.
        stream_bytes: Bytes per image, mean.
        frames: Frames of the link for so many bytes; None without a link.
        device_ms: Latency of the device.
        device_measured: Whether that was measured on this device; else it is scaled to it.
        air_ms: Time on the link; None without one.
        edge_ms: Latency of the edge.
        edge_measured: Whether that was measured; else it is estimated from operations.
        millijoules: What the radio takes; None where no figure is public.
        images_per_hour: Most images that the link's duty cycle allows; None where it has none.
        misses: What of what is wanted it does not do, in words; empty where it fits.
    """

    model: str
    way: str
    series: str
    metric: str
    score: float
    stream_bytes: float
    frames: int | None
    device_ms: float
    device_measured: bool
    air_ms: float | None
    edge_ms: float
    edge_measured: bool
    millijoules: float | None
    images_per_hour: float | None
    misses: tuple[str, ...] = ()

    @property
    def total_ms(self) -> float:
        """Time from image to answer, without a link that of both halves."""
        return self.device_ms + (self.air_ms or 0.0) + self.edge_ms


@dataclass(frozen=True)
class Group:
    """Models that were measured on the same images, best first.

    Attributes:
        data: Name of the folder of images.
        images: Number of images.
        plans: All plans; those that fit come first.
        crossings: Where the best split model and another way take equally long.
        courses: Total latency over the rate of the link, of the ways that are compared.
    """

    data: str
    images: int
    plans: tuple[Plan, ...]
    crossings: tuple[Crossing, ...]
    courses: tuple[Course, ...]

    @property
    def best(self) -> Plan | None:
        """The first that fits."""
        return self.plans[0] if self.plans and not self.plans[0].misses else None


@dataclass(frozen=True)
class Choice:
    """What :func:`choose` found.

    Attributes:
        link: Link that was given.
        device: Device, and how its latencies were had.
        edge: Machine of the edge.
        wanted: What was wanted.
        groups: Models by what they were measured on.
    """

    link: Link | None
    device: Pace
    edge: str
    wanted: Wanted
    groups: tuple[Group, ...] = field(default=())


def choose(
    rows: Sequence[ModelRow] | None = None,
    *,
    link: Link | None = None,
    device: str | None = None,
    max_bytes: float | None = None,
    deadline_ms: float | None = None,
    min_accuracy: float | None = None,
    local: Iterable[ModelRow] = (),
) -> Choice:
    """Rank models by accuracy, those first that do what is wanted.

    Args:
        rows: Rows to rank; by default those of the package whose weights are on this machine.
        link: Link to send over.
        device: Board, or file of latencies that were measured on the device; see
            :func:`.devices.read_pace`. By default the machine that the rows were measured on.
        max_bytes: Most bytes per image.
        deadline_ms: Longest time from image to answer.
        min_accuracy: Least share in [0, 1] of the main metric.
        local: Rows to rank beside them.

    Raises:
        ReportError: There is no model, or no latency to begin from.
        UnknownNameError: There is no such board.
    """
    known = list(package_rows() if rows is None else rows)
    ranked = [*(known if rows is not None else _at_hand(known)), *local]
    if not ranked:
        raise ReportError(
            "There is no model to choose from.",
            next_step="Give reports of your own: --report FILE. Carried models: splitzoo zoo list "
            "--pretrained",
        )
    timed = _of_one_machine([*known, *local])
    pace, speed = read_pace(device, timed), macs_per_ms(timed)
    wanted = Wanted(max_bytes, deadline_ms, min_accuracy)
    edge = next(row.machine for row in timed)
    groups: dict[tuple[str, str], list[ModelRow]] = {}
    for row in ranked:
        groups.setdefault((row.data_sha256, row.metric), []).append(row)
    found = [_group(same, link, pace, speed, wanted) for same in groups.values()]
    return Choice(link, pace, edge, wanted, tuple(found))


def _at_hand(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """Keep the models that load here, each as it is carried: calibrated, if it can be."""
    found: dict[tuple[str, str], ModelRow] = {}
    for row in sorted(rows, key=lambda row: bool(row.coding)):
        found[row.model, row.data_sha256] = row
    return [row for row in found.values() if _loads(row.model)]


def _loads(name: str) -> bool:
    try:
        return has_weights(name)
    except UnknownNameError:  # measured in an experiment, and not carried
        return False


def _of_one_machine(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """Return the rows that were timed on the machine on which most were."""
    timed = [row for row in rows if row.machine]
    machines = [row.machine for row in timed]
    most = max(machines, key=machines.count, default="")
    return [row for row in timed if row.machine == most]


def _group(
    rows: Sequence[ModelRow], link: Link | None, pace: Pace, speed: float, wanted: Wanted
) -> Group:
    plans = [_plan(row, link, pace, speed, wanted) for row in rows]
    whole = [row for row in rows if _is_lossless(row)]
    plans += [_on_the_device(row, link, pace, speed, wanted) for row in whole]
    plans.sort(key=lambda plan: (bool(plan.misses), -plan.score, plan.total_ms, plan.stream_bytes))
    compared = _compared(plans)
    courses = [Course.of(plan, link) for plan in compared]
    crossings = [crossing(courses[0], other) for other in courses[1:]]
    return Group(rows[0].data, rows[0].images, tuple(plans), tuple(crossings), tuple(courses))


def _is_lossless(row: ModelRow) -> bool:
    return row.method == "input-compression" and row.model.endswith("-png")


def _own_ms(row: ModelRow, speed: float) -> float:
    """Latency of the device on the machine of the rows, from operations where it was not timed."""
    return row.device_macs / speed if row.device_ms is None else row.device_ms


def _plan(row: ModelRow, link: Link | None, pace: Pace, speed: float, wanted: Wanted) -> Plan:
    device_ms, measured = pace.device_ms(row, _own_ms(row, speed))
    edge_ms = row.edge_macs / speed if row.edge_ms is None else row.edge_ms
    way = "image codec" if row.method == "input-compression" else "split"
    return _sent(
        row,
        way,
        row.stream_bytes,
        link,
        wanted,
        device_ms,
        measured,
        edge_ms,
        row.edge_ms is not None,
    )


def _on_the_device(
    row: ModelRow, link: Link | None, pace: Pace, speed: float, wanted: Wanted
) -> Plan:
    graph_ms = row.edge_graph_ms or row.edge_macs / speed
    measured = pace.factor == 1 and row.edge_graph_ms is not None
    ms = graph_ms * pace.factor
    return _sent(row, "all on the device", ANSWER_BYTES, link, wanted, ms, measured, 0.0, True)


def _sent(
    row: ModelRow,
    way: str,
    size: float,
    link: Link | None,
    wanted: Wanted,
    device_ms: float,
    device_measured: bool,
    edge_ms: float,
    edge_measured: bool,
) -> Plan:
    air_s = link.seconds_on_air(size) if link else None
    joules = link.joules(size) if link else None
    plan = Plan(
        model=row.model,
        way=way,
        series=way if way == "all on the device" else row.series,
        metric=row.metric,
        score=row.score,
        stream_bytes=size,
        frames=link.frames(size) if link and link.frame_bytes else None,
        device_ms=device_ms,
        device_measured=device_measured,
        air_ms=None if air_s is None else 1e3 * air_s,
        edge_ms=edge_ms,
        edge_measured=edge_measured,
        millijoules=None if joules is None else 1e3 * joules,
        images_per_hour=3600 * link.duty_cycle / air_s
        if link and air_s and link.duty_cycle < 1
        else None,
    )
    return Plan(**{**plan.__dict__, "misses": tuple(_misses(plan, wanted))})


def _misses(plan: Plan, wanted: Wanted) -> Iterable[str]:
    if wanted.max_bytes is not None and plan.stream_bytes > wanted.max_bytes:
        yield f"{plan.stream_bytes:,.0f} bytes"
    if wanted.deadline_ms is not None and plan.total_ms > wanted.deadline_ms:
        yield f"{plan.total_ms:,.0f} ms"
    if wanted.min_accuracy is not None and plan.score < wanted.min_accuracy:
        yield f"{plan.score:.2%}"


def _compared(plans: Sequence[Plan]) -> list[Plan]:
    """Return the best split model, each image codec at no less accuracy, and the device alone.

    A codec that reaches the accuracy nowhere is taken where it is most accurate.
    """
    split = next((plan for plan in plans if plan.way == "split"), None)
    if split is None:
        return [*plans[:1]]
    codecs: dict[str, list[Plan]] = {}
    for plan in plans:
        if plan.way == "image codec" and not plan.model.endswith("-png"):
            codecs.setdefault(plan.series, []).append(plan)
    chosen = [split]
    for same in codecs.values():
        enough = [plan for plan in same if plan.score >= split.score]
        chosen.append(
            min(enough, key=lambda plan: plan.stream_bytes)
            if enough
            else max(same, key=lambda plan: plan.score)
        )
    alone = [plan for plan in plans if plan.way == "all on the device"]
    return [*chosen, *sorted(alone, key=lambda plan: -plan.score)[:1]]
