"""Measure latency and memory, alike for bundles and models."""

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Latency:
    """Percentiles of repeated runs of one step, in milliseconds."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Latency":
        """Summarise the durations of single runs; percentiles are nearest-rank."""
        ordered = sorted(1e3 * value for value in seconds)

        def percentile(share: float) -> float:
            return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]

        return cls(percentile(0.5), percentile(0.9), percentile(0.99), statistics.fmean(ordered))


def measure_steps(
    steps: Mapping[str, Callable], value: object, *, warmup: int, iterations: int
) -> dict[str, Latency]:
    """Time steps that feed each other, apart and together.

    Args:
        steps: Functions by name, in order; each takes what the one before returned.
        value: Argument of the first.
        warmup: Runs before the counted ones.
        iterations: Counted runs.

    Returns:
        Latency of each step, and ``total`` for all together.
    """
    durations: dict[str, list[float]] = {name: [] for name in (*steps, "total")}
    for iteration in range(warmup + iterations):
        result, marks = value, [time.perf_counter()]
        for step in steps.values():
            result = step(result)
            marks.append(time.perf_counter())
        if iteration >= warmup:
            for name, began, ended in zip(steps, marks, marks[1:], strict=False):
                durations[name].append(ended - began)
            durations["total"].append(marks[-1] - marks[0])
    return {name: Latency.of(values) for name, values in durations.items()}


def peak_memory_bytes() -> int:
    """Return the largest resident size that this process has had."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike ru_maxrss, it does not inherit the size of the process that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
