"""What an encoder costs, for tradeoffs: bits, operations, or latency on the device it ran on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from splitrun.errors import ReportError
from splitrun.registry import Registry

from .. import zoo
from ..zoo.spec import ModelSpec
from .accuracy_report import AccuracyReport
from .report import StepLatency, parts_of, read_report

_MAX_BENCH_BYTES = 1 << 24


@dataclass(frozen=True)
class Cost:
    """A measure of what the encoder costs.

    Attributes:
        field: Name of its column.
        words: Name and unit, for an axis.
        what: What it is, for a note; empty where the name says it all.
    """

    field: str
    words: str
    what: str = ""


COSTS: Registry[Cost] = Registry("encoder cost")
COSTS.register("bits", Cost("encoder_bits", "encoder size, bits"))
COSTS.register("macs", Cost("encoder_macs", "encoder MACs"))
COSTS.register("flops", Cost("encoder_flops", "encoder FLOPs"))
COSTS.register("latency", Cost("device_ms", "device latency, ms"))


@dataclass(frozen=True)
class Latency:
    """Median latency of a half, and what ran it.

    Attributes:
        model: Name of the model.
        model_id: 8 hexadecimal digits, of all tensors of the model.
        half: ``"device"`` or ``"edge"``.
        precision: Precision of the device graph.
        machine: Engine and processor.
        median_ms: Median of all steps, without preprocessing.
        graph_ms: Median of the graph alone.
    """

    model: str
    model_id: str
    half: Literal["device", "edge"]
    precision: str
    machine: str
    median_ms: float
    graph_ms: float

    def is_of(self, report: AccuracyReport) -> bool:
        """Say whether it is of a report's model."""
        return self.model_id == report.model_id


def measure_costs(
    reports: Sequence[AccuracyReport], name: str, profiles: Iterable[Path] = ()
) -> tuple[Cost, list[float | None]]:
    """Return a measure and its value for each report.

    There is no value for bits and operations where the device holds no learned parameters, and for
    latency where no profile is of the report's model.

    Args:
        reports: Reports of the models.
        name: Name of the measure.
        profiles: Reports of latency on one machine, or folders of them: what ``splitzoo profile
            encoder -o`` wrote, or ``python -m splitrun bench --json`` printed.

    Raises:
        UnknownNameError: There is no such measure.
        ReportError: Latency is asked for, and no profile is of these models; or the profiles are of
            several machines, or one cannot be read.
    """
    cost, paths = COSTS.get(name), list(profiles)
    if paths and name != "latency":
        raise ReportError("Profiles hold latencies.", next_step="Add: --cost latency")
    if name == "latency":
        return _latencies(cost, reports, read_latencies(paths))
    if name == "bits":
        return cost, [report.encoder.encoder_bits or None for report in reports]
    counted: dict[str, Any] = {}
    values: list[float | None] = []
    for report in reports:
        key = architecture_of(report.spec)
        if report.encoder.encoder_bits and key not in counted:
            from .flops import count_flops

            counted[key] = count_flops(zoo.build(report.spec))
        values.append(getattr(counted[key], name) if report.encoder.encoder_bits else None)
    left_out = {one for compute in counted.values() for one in compute.uncounted}
    what = f"at least, as these operators were not counted: {', '.join(left_out)}"
    return Cost(cost.field, cost.words, what if left_out else ""), values


def architecture_of(spec: ModelSpec) -> str:
    """Return what models that compute the same have in common."""
    shared = {"name": "any", "beta": None, "reference": "", "base_model": "", "dataset": ""}
    return spec.model_copy(update=shared).model_dump_json()


def _latencies(
    cost: Cost, reports: Sequence[AccuracyReport], latencies: Sequence[Latency]
) -> tuple[Cost, list[float | None]]:
    found = [_latency_of(report, latencies) for report in reports]
    used = [latency for latency in found if latency]
    if not used:
        raise ReportError(
            "No profile holds the latency of one of these models.",
            next_step="Measure the bundle that was evaluated, on its device: splitzoo profile "
            "encoder BUNDLE -o FILE, or there: python -m splitrun bench --json > FILE; then: "
            "--cost latency --profiles FILE",
        )
    machines = sorted({latency.machine for latency in used})
    if len(machines) > 1:
        raise ReportError(
            f"The latencies are of {len(machines)} engines or machines: {'; '.join(machines)}.",
            next_step="Give the profiles of one.",
        )
    what = f"median of image tensor → stream, {machines[0]}"
    return Cost(cost.field, cost.words, what), [one.median_ms if one else None for one in found]


def _latency_of(report: AccuracyReport, latencies: Sequence[Latency]) -> Latency | None:
    """Return the latency of a report's model: in its precision, if it is there in several."""
    same = [one for one in latencies if one.half == "device" and one.is_of(report)]
    _, precision = parts_of(report.runtime)
    return min(same, key=lambda latency: latency.precision != precision, default=None)


def read_latencies(paths: Iterable[Path]) -> list[Latency]:
    """Read latencies of halves, from files or folders of them.

    Raises:
        ReportError: A file holds none.
    """
    found: list[Latency] = []
    for path in paths:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        for file in files:
            found += _read_benches(file) if _begins(file, b"[") else [_of_profile(file)]
    return found


class _Bench(BaseModel):
    """What of a bench is needed."""

    model: Annotated[str, Field(max_length=400)]
    half: Literal["device", "edge"]
    engine: Annotated[str, Field(max_length=200)]
    model_id: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    precision: Annotated[str, Field(max_length=20)]
    latency: dict[str, StepLatency]
    environment: dict[str, str]


def is_accuracy(path: Path) -> bool:
    """Say whether a file is rather a report of accuracy than one of latency."""
    return _begins(path, b"{") and b'"bits_per_pixel"' in path.read_bytes()[: 1 << 20]


def _begins(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).lstrip().startswith(mark)
    except OSError:
        return False  # the reader of profiles says why


def _read_benches(path: Path) -> list[Latency]:
    try:
        if path.stat().st_size > _MAX_BENCH_BYTES:
            raise ReportError(f"{path} is larger than {_MAX_BENCH_BYTES >> 20} MiB.")
        benches = TypeAdapter(list[_Bench]).validate_json(path.read_bytes())
        return [
            Latency(
                one.model,
                one.model_id,
                one.half,
                one.precision,
                f"{one.engine} on {one.environment['cpu']}",
                *_medians(one.latency),
            )
            for one in benches
        ]
    except (OSError, ValidationError, KeyError) as error:
        raise ReportError(
            f"{path} holds no latencies.",
            next_step="Make it on the device with: python -m splitrun bench --json > FILE",
        ) from error


def _of_profile(path: Path) -> Latency:
    profile = read_report(path)
    engine, precision = parts_of(profile.runtime)
    machine = f"{engine} on {profile.environment['cpu']}"
    medians = _medians(profile.latency.steps)
    return Latency(profile.spec.name, profile.model_id, "device", precision, machine, *medians)


def _medians(steps: dict[str, StepLatency]) -> tuple[float, float]:
    """Return the medians of all steps but preprocessing, which only some have, and of the graph."""
    graph = steps["encoder" if "encoder" in steps else "decoder"].p50_ms
    if "preprocessing" not in steps:
        return steps["total"].p50_ms, graph
    others = (name for name in steps if name not in ("preprocessing", "total"))
    return sum(steps[name].p50_ms for name in others), graph
