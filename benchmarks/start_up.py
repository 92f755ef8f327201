"""How long the programs take from the process's start to its end, and how much memory.

    python benchmarks/start_up.py PHOTO [-o benchmarks/results]

``splitzoo --help``, and ``python -m splitrun encode`` of one photograph in a bundle of the default
model for the target cpu, each many times, with warm caches of files. The bars are of the clock; the
processor's time is beside it, which other processes disturb less.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from splitrun.files import new_file
from splitrun.machine import machine

RUNS = 20
HELP_SECONDS, HELP_MB, ENCODE_SECONDS = 0.3, 60, 0.5


@dataclass(frozen=True)
class Run:
    """A process: seconds of the clock and of the processor, and the largest resident size."""

    seconds: float
    processor: float
    peak_mb: float


def run(words: list[str], folder: Path | None = None) -> Run:
    """Run a program to its end."""
    began = time.perf_counter()
    started = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(started.pid, 0)
    seconds = time.perf_counter() - began
    started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode:
        raise SystemExit(f"error: {' '.join(words)} ended with {started.returncode}.")
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)


def measure(photo: Path) -> dict[str, list[Run]]:
    """Run both programs in turns; the first two runs of each do not count."""
    with tempfile.TemporaryDirectory() as place:
        bundle, stream = Path(place, "bundle"), Path(place, "photo.sz")
        program = str(Path(sys.executable).with_name("splitzoo"))
        # A process of its own: what it takes would count as its parent's, and so its children's.
        subprocess.run([program, "export", "split", "-o", str(bundle)], check=True)
        shown = [program, "--help"]
        encode = [sys.executable, "-m", "splitrun", "encode", str(photo), "-o", str(stream)]
        found: dict[str, list[Run]] = {"splitzoo --help": [], "splitrun encode": []}
        for _ in range(2 + RUNS):
            found["splitzoo --help"].append(run(shown))
            found["splitrun encode"].append(run([*encode, "--force"], bundle))
    return {name: runs[2:] for name, runs in found.items()}


def page(found: dict[str, list[Run]]) -> str:
    """Return what people read."""
    cpu = machine()
    load = os.getloadavg()[0]
    lines = [
        "# Start-up",
        "",
        f"{time.strftime('%Y-%m-%d')}, `python benchmarks/start_up.py PHOTO`, {cpu['cpu']} "
        f"({cpu['instructions']}), {cpu['cores']} cores, Python {cpu['python']}, load average "
        f"{load:.1f}. {RUNS} processes of each, in turns; the default model's bundle for cpu.",
        "",
        "| program | median | fastest | bar | met | processor, median | peak memory | bar | met |",
        "| --- | ---: | ---: | --- | --- | ---: | ---: | --- | --- |",
    ]
    bars = {"splitzoo --help": (HELP_SECONDS, HELP_MB), "splitrun encode": (ENCODE_SECONDS, None)}
    for name, runs in found.items():
        seconds, processor = ([getattr(one, of) for one in runs] for of in ("seconds", "processor"))
        median, peak = float(np.median(seconds)), max(one.peak_mb for one in runs)
        most, most_mb = bars[name]
        memory = f"≤ {most_mb} MB | {_met(peak <= most_mb)}" if most_mb else "– | –"
        lines.append(
            f"| `{name}` | {median:.2f} s | {min(seconds):.2f} s | ≤ {most} s | "
            f"{_met(median <= most)} | {np.median(processor):.2f} s | {peak:.0f} MB | {memory} |"
        )
    return "\n".join(lines) + "\n"


def _met(fulfilled: bool) -> str:
    return "yes" if fulfilled else "no"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    found = page(measure(arguments.photo.resolve()))
    with new_file(arguments.output / "start_up.md", force=True) as temporary:
        temporary.write_text(found, encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
