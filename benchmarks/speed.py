"""How fast bundles for every CPU target are beside sc2bench, with the same weights, in one run.

    python benchmarks/speed.py [--photos DIR] [-o benchmarks/results]

Each side measures in processes of its own (``speed_sides.py``), because the thread pools of two
runtimes in one process disturb each other. The sides take turns over several rounds, every other
round backwards, a new process each time, and the durations of all rounds are pooled, so that a
drift of the machine hits all. This process only waits meanwhile. A bar that is missed is reported;
the exit code stays 0. What is measured is in ``speed_tasks.py``, the bars are in
``speed_report.py``.

``--photos`` names at least 8 images: the first is timed, all are compared, int8 is calibrated
to some and judged on the others. Without it, the image that comes with matplotlib is timed and
compared, and int8 is calibrated to made images.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from rich.console import Console
from speed_page import disturbance, markdown, terminal_tables
from speed_peaks import CHOICES
from speed_report import Memory, Peak, Prepared, Report, Timing, Turn, judge
from speed_tasks import BATCHES, EDGES, KINDS, MODEL, PEER, TASKS, THREADS, Kind

from splitrun.errors import SplitzooError
from splitrun.files import new_file
from splitrun.image_files import list_images
from splitrun.machine import machine, short_name
from splitrun.measure import Latency

HERE = Path(__file__).parent
BEGAN = time.perf_counter()
FEWEST_CALIBRATED = 8
HELP_WARMUP, HELP_RUNS = 2, 10
HEAVY = {"torch", "compressai", "timm", "onnx", "splitzoo"}  # what a board should not need
PACKAGES = (
    *("splitzoo", "sc2bench", "torchdistill", "compressai", "torch", "torchvision", "timm", "onnx"),
    *("onnxruntime", "openvino", "constriction", "numpy", "pillow"),
)
Turns = dict[str, list[Turn]]


def measure(
    photos: list[Path],
    calibration: Path | None,
    rounds: int,
    iterations: int,
    kinds: Sequence[Kind],
) -> dict:
    """Run everything, one process at a time; return the fields of the report that it fills."""
    with tempfile.TemporaryDirectory(prefix="speed-") as folder:
        work = Path(folder)
        wanted = {
            "images": [str(photo) for photo in photos],
            "calibration": str(calibration) if calibration else None,
            "sides": [kind.name for kind in kinds],
        }
        (work / "photos.json").write_text(json.dumps(wanted))
        progress("exporting bundles")
        stage("speed_prepare.py", str(work))
        prepared = TypeAdapter(Prepared).validate_json((work / "prepared.json").read_text())
        refused = {one.name for one in prepared.made if one.refused}
        everything = len(kinds) == len(KINDS)
        kinds = [kind for kind in kinds if kind.name not in refused]
        peaks = measure_peaks(work, "before") if everything else []
        # sc2bench in the middle: no side is far from what it is compared with.
        sides = [kind.name for kind in kinds]
        sides.insert(len(sides) // 2, PEER)
        turns: Turns = {side: [] for side in sides}
        for number in range(rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                progress(f"round {number + 1} of {rounds}: {side}")
                stage("speed_sides.py", side, str(work), str(iterations))
                text = (work / "turn.json").read_text()
                turns[side].append(TypeAdapter(Turn).validate_json(text))
        peaks += measure_peaks(work, "after") if everything else []
        progress("memory and start-up time")
        memory = [measure_memory(kind, work, photos[0]) for kind in kinds if kind.has_device]
        timings = pool(turns)
        return {
            "prepared": prepared,
            "engines": {side: turns[side][0].engine for side in sides},
            "foreign_cores": {side: [one.foreign_cores for one in turns[side]] for side in sides},
            "agreements": {side: one for side in sides if (one := turns[side][0].agreement)},
            "timings": timings,
            "memory": memory,
            "peaks": best_of(peaks),
            "bars": judge(timings, memory, measure_help()),
        }


def stage(script: str, *arguments: str) -> None:
    """Run a script of this folder to its end."""
    # They use what other benchmarks have, below the root of the repository.
    quiet = os.environ | {"PYTHONWARNINGS": "ignore", "PYTHONPATH": str(HERE.parent)}
    command = [sys.executable, str(HERE / script), *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr, env=quiet)


def measure_peaks(work: Path, when: str) -> list[Peak]:
    """Measure what each library that is installed reaches."""
    found = []
    for library, precision, instructions in CHOICES:
        missing = importlib.util.find_spec(library) is None
        if missing or instructions not in machine()["instructions"]:
            continue
        progress(f"peak {when} the rounds: {library} {precision}")
        stage("speed_peaks.py", library, precision, str(work / "peaks.json"))
        found += TypeAdapter(list[Peak]).validate_json((work / "peaks.json").read_text())
    return found


def best_of(peaks: list[Peak]) -> list[Peak]:
    """Keep the faster of two measurements of the same."""
    best: dict[tuple[str, str, str], Peak] = {}
    for one in sorted(peaks, key=lambda one: one.gmacs_per_second):
        best[one.precision, one.library, one.operation] = one
    return [best[key] for key in sorted(best)]


def pool(turns: Turns) -> list[Timing]:
    """Pool the rounds of each side, and hold the medians against sc2bench's."""
    found = []
    for side, rounds in turns.items():
        for task in (*TASKS, *BATCHES.values()):
            if task.name not in rounds[0].seconds:
                continue
            own, peer = (
                [turn.seconds[task.name] for turn in both] for both in (rounds, turns[PEER])
            )
            latency, theirs = (Latency.of([*chain.from_iterable(both)]) for both in (own, peer))
            each = zip(own, peer, strict=True)
            found.append(
                Timing(
                    side=side,
                    task=task.name,
                    runs=sum(map(len, own)),
                    latency=latency,
                    ratio=latency.p50_ms / theirs.p50_ms,
                    round_ratios=[Latency.of(a).p50_ms / Latency.of(b).p50_ms for a, b in each],
                )
            )
    return found


def measure_memory(kind: Kind, work: Path, photo: Path) -> Memory:
    """Encode an image with the bundle's own runtime, twice; once it says what it imports."""
    words = [
        "-m",
        "splitrun",
        "encode",
        str(photo),
        "-o",
        str(work / "photo.sz"),
        "--json",
        "--force",
    ]
    words += ["--threads", str(THREADS)]
    plain, traced = (
        run([sys.executable, *flags, *words], work / kind.folder)
        for flags in ([], ["-X", "importtime"])
    )
    lines = traced.stderr.splitlines()
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    peaks = [json.loads(done.stdout)["peak_memory_bytes"] for done in (plain, traced)]
    return Memory(kind.name, max(peaks), sorted(modules & HEAVY))


def measure_help() -> float | None:
    """Time ``splitzoo --help`` from start to end, seconds; None where it cannot be run."""
    command = [str(Path(sys.executable).with_name("splitzoo")), "--help"]
    seconds = []
    try:
        for _ in range(HELP_WARMUP + HELP_RUNS):
            start = time.perf_counter()
            run(command)
            seconds.append(time.perf_counter() - start)
    except (OSError, subprocess.CalledProcessError):
        return None
    return float(np.median(seconds[HELP_WARMUP:]))


def run(command: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it wrote."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def save(report: Report, folder: Path, name: str) -> list[Path]:
    """Write JSON and Markdown under a name, with device and versions."""
    short = {"torch": "torch", "onnxruntime": "ort", "openvino": "openvino"}
    numbers = "-".join(
        f"{word}{report.versions[package].partition('+')[0]}"
        for package, word in short.items()
        if package in report.versions
    )
    stem = f"{name}.{short_name(report.environment)}.{report.threads}threads.{numbers}"
    pages = {"json": json.dumps(asdict(report), indent=2) + "\n", "md": markdown(report)}
    for suffix, page in pages.items():
        with new_file(folder / f"{stem}.{suffix}", force=True) as temporary:
            temporary.write_text(page, encoding="utf-8")
    return [folder / f"{stem}.{suffix}" for suffix in pages]


def find_photos(folder: Path | None) -> list[Path]:
    """Return the images of a folder, or the image that comes with matplotlib."""
    if folder:
        return [photo.resolve() for photo in list_images(folder)]
    from matplotlib.cbook import get_sample_data

    return [Path(get_sample_data("grace_hopper.jpg", asfileobj=False))]


def main() -> None:
    """Measure, print the tables and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, metavar="DIR", help="at least 8 images")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results", metavar="DIR")
    parser.add_argument("--iterations", type=positive, default=40, help="counted runs in a turn")
    parser.add_argument(
        "--edges", action="store_true", help="only the edges of cpu and openvino, in all precisions"
    )
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each side")
    arguments = parser.parse_args()
    # A path of this machine would say nothing elsewhere.
    command = "python benchmarks/speed.py" + " --photos DIR" * bool(arguments.photos)
    command += " --edges" * arguments.edges
    command += f" --iterations {arguments.iterations} --rounds {arguments.rounds}"
    try:
        photos = find_photos(arguments.photos)
        enough = len(photos) >= FEWEST_CALIBRATED
        calibration = arguments.photos.resolve() if enough else None
        load = [round(one, 2) for one in os.getloadavg()]
        kinds = [kind for kind in KINDS if kind.name in EDGES or not arguments.edges]
        found = measure(photos, calibration, arguments.rounds, arguments.iterations, kinds)
        report = Report(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            malloc={name: one for name, one in os.environ.items() if name.startswith("MALLOC_")},
            model=MODEL,
            threads=THREADS,
            rounds=arguments.rounds,
            iterations=arguments.iterations,
            images=[photo.name for photo in photos],
            calibrated_on="images" if calibration else "made images",
            load_average=load,
            environment=machine(),
            versions=versions_of(PACKAGES),
            **found,
        )
        console = Console(width=None if sys.stdout.isatty() else 140)
        for table in terminal_tables(report):
            console.print(table)
        progress(disturbance(report))
        for path in save(report, arguments.output, "speed-edges" if arguments.edges else "speed"):
            progress(f"wrote {path}")
    except SplitzooError as error:
        raise SystemExit(f"error: {error}") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"error: {error}\n{error.stderr or ''}") from error


def positive(text: str) -> int:
    """Read a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def progress(text: str) -> None:
    """Say on standard error what happens next, and after how many seconds."""
    print(f"{time.perf_counter() - BEGAN:4.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
