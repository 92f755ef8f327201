"""How fast the halves of a ``cpu`` bundle are beside sc2bench, with the same weights.

    .venv/bin/python benchmarks/sc2bench_speed.py [--photos DIR] [-o benchmarks/results]

Each side measures in processes of its own (``sc2bench_sides.py``), because the thread pools of two
runtimes in one process disturb each other. The sides take turns over several rounds, a new process
each time, and the durations of all rounds are pooled, so that a drift of the machine hits both.
This process only waits meanwhile. A bar that is missed is reported; the exit code stays 0.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sc2bench_sides import MODEL, THREADS, WARMUP, Turn

from splitzoo.errors import SplitzooError
from splitzoo.export.runtime.measure import Latency
from splitzoo.files import new_file
from splitzoo.machine import machine
from splitzoo.zoo.preprocessing import list_images

HERE = Path(__file__).parent
SIDES = ("splitzoo", "sc2bench")
HELP_WARMUP, HELP_RUNS = 2, 10
QUIET_CORES = 0.1  # kept busy by other processes; beyond it the ratios mean little
PACKAGES = (
    *("splitzoo", "sc2bench", "torchdistill", "compressai", "torch", "torchvision", "timm"),
    *("onnx", "onnxruntime", "constriction", "numpy", "pillow"),
)
BARS = {  # largest ratio allowed; what splitzoo does; what sc2bench does
    "device path": (0.45, "image float32 → framed stream", "bottleneck_layer.encode"),
    "edge path": (0.75, "framed stream → logits", "bottleneck_layer.decode, layer2 … layer4, fc"),
    "entropy encoding": (0.35, "FactorizedCoder.encode", "entropy_bottleneck.compress"),
    "entropy decoding": (0.8, "FactorizedCoder.decode", "entropy_bottleneck.decompress"),
}


@dataclass(frozen=True)
class Comparison:
    """One task on both sides; ``ratio`` and each of ``round_ratios`` are medians over medians."""

    name: str
    runs: int
    splitzoo: Latency
    sc2bench: Latency
    round_ratios: list[float]
    ratio: float
    bar: float
    met: bool


@dataclass(frozen=True)
class Limit:
    """A figure of this package alone; ``value`` and ``met`` are None where it was not measured."""

    name: str
    unit: str
    value: float | None
    bar: float
    met: bool | None
    note: str


@dataclass(frozen=True)
class Agreement:
    """Do both sides compute the same thing, on the first photograph?"""

    symbols: int
    symbols_differing: int
    symbols_not_zero: int
    tables_equal: bool
    logits_relative_error: float


@dataclass(frozen=True)
class Photograph:
    """Bytes of the entropy-coded symbols, without any frame."""

    name: str
    splitzoo_payload_bytes: int
    sc2bench_string_bytes: int


@dataclass(frozen=True)
class Report:
    """Everything that one run found; ``foreign_cores`` are those others kept busy in each turn."""

    date: str
    command: str
    model: str
    threads: int
    rounds: int
    iterations: int
    warmup: int
    load_average: list[float]
    foreign_cores: dict[str, list[float | None]]
    environment: dict[str, str]
    versions: dict[str, str]
    comparisons: list[Comparison]
    limits: list[Limit]
    agreement: Agreement
    photographs: list[Photograph]


def measure(photos: list[Path], rounds: int, iterations: int, command: str) -> Report:
    """Run everything, one process at a time."""
    load_average = [round(load, 2) for load in os.getloadavg()]
    with tempfile.TemporaryDirectory(prefix="sc2bench-speed-") as folder:
        work = Path(folder)
        (work / "photos.json").write_text(json.dumps([str(photo) for photo in photos]))
        progress("exporting the bundle")
        run_stage("prepare", work, iterations)
        turns: dict[str, list[Turn]] = {side: [] for side in SIDES}
        for number in range(rounds):
            for side in SIDES:
                progress(f"round {number + 1} of {rounds}: {side}")
                run_stage(side, work, iterations)
                turns[side].append(Turn(**json.loads((work / f"{side}.json").read_text())))
        progress("memory and start-up time")
        sizes = zip(photos, *(turns[side][0].payload_bytes for side in SIDES), strict=True)
        return Report(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            model=MODEL,
            threads=THREADS,
            rounds=rounds,
            iterations=iterations,
            warmup=WARMUP,
            load_average=load_average,
            foreign_cores={side: [turn.foreign_cores for turn in turns[side]] for side in SIDES},
            environment=machine(),
            versions={package: version(package) for package in PACKAGES},
            comparisons=[compare_times(name, turns) for name in BARS],
            limits=[measure_memory(work, photos[0], rounds), measure_help()],
            agreement=compare_outputs(work),
            photographs=[Photograph(photo.name, ours, peer) for photo, ours, peer in sizes],
        )


def run_stage(stage: str, work: Path, iterations: int) -> None:
    """Run a stage of ``sc2bench_sides.py`` to its end."""
    command = [sys.executable, HERE / "sc2bench_sides.py", stage, work, str(iterations)]
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}
    subprocess.run(command, check=True, stdout=sys.stderr, env=quiet)


def compare_times(name: str, turns: dict[str, list[Turn]]) -> Comparison:
    """Pool the rounds of each side and hold the ratio of the medians against its bar."""
    rounds = [[turn.seconds[name] for turn in turns[side]] for side in SIDES]
    ours, peer = (Latency.of([s for seconds in side for s in seconds]) for side in rounds)
    medians = [[Latency.of(seconds).p50_ms for seconds in side] for side in rounds]
    bar, ratio = BARS[name][0], ours.p50_ms / peer.p50_ms
    return Comparison(
        name=name,
        runs=sum(len(seconds) for seconds in rounds[0]),
        splitzoo=ours,
        sc2bench=peer,
        round_ratios=[mine / theirs for mine, theirs in zip(*medians, strict=True)],
        ratio=ratio,
        bar=bar,
        met=ratio <= bar,
    )


def compare_outputs(work: Path) -> Agreement:
    """Compare symbols, tables and logits of both sides on the first photograph."""
    ours, peer = (np.load(work / f"{side}.npz") for side in SIDES)
    difference = np.abs(ours["logits"].astype(np.float64) - peer["logits"]).max()
    tables = ("cdf", "length", "offset")
    return Agreement(
        symbols=ours["symbols"].size,
        symbols_differing=int((ours["symbols"] != peer["symbols"]).sum()),
        symbols_not_zero=int(np.count_nonzero(ours["symbols"])),
        tables_equal=all(np.array_equal(ours[name], peer[name]) for name in tables),
        logits_relative_error=float(difference / np.abs(peer["logits"]).max()),
    )


def measure_memory(work: Path, photo: Path, rounds: int) -> Limit:
    """Encode a photograph with the bundle's own runtime; take the largest peak of the rounds."""
    encode = ["-m", "splitrun", "encode", str(photo), "-o", str(work / "photo.sz"), "--json"]
    encode += ["--threads", str(THREADS)]
    runs = [run([sys.executable, *encode], work / "bundle") for _ in range(rounds)]
    peak = max(json.loads(done.stdout)["peak_memory_bytes"] for done in runs) / 1e6
    trace = run([sys.executable, "-X", "importtime", *encode], work / "bundle").stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in trace.splitlines()}
    loaded = sorted(modules & {"torch", "compressai", "timm", "onnx", "splitzoo"})
    note = f"largest of {rounds}; " + (
        f"it imports {', '.join(loaded)}" if loaded else "it imports neither torch nor splitzoo"
    )
    met = peak <= 250 and not loaded
    return Limit("peak memory", "MB", peak, 250, met, f"python -m splitrun encode, {note}")


def measure_help() -> Limit:
    """Time ``splitzoo --help`` from start to end."""
    name, bar = "splitzoo --help", 0.5
    command = [str(Path(sys.executable).with_name("splitzoo")), "--help"]
    seconds = []
    try:
        for _ in range(HELP_WARMUP + HELP_RUNS):
            start = time.perf_counter()
            run(command)
            seconds.append(time.perf_counter() - start)
    except (OSError, subprocess.CalledProcessError) as error:
        return Limit(name, "s", None, bar, None, f"not measured: {type(error).__name__}")
    median = float(np.median(seconds[HELP_WARMUP:]))
    return Limit(name, "s", median, bar, median <= bar, f"median of {HELP_RUNS}, start to end")


def run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it wrote."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def figures(report: Report) -> list[list[str]]:
    """Return the rows of the table of figures, its head first."""
    rows = [["what", *SIDES, "ratio", "bar", "met"]]
    for one in report.comparisons:
        times = [f"{t.p50_ms:.2f} ({t.p90_ms:.2f}) ms" for t in (one.splitzoo, one.sc2bench)]
        rows.append([one.name, *times, f"{one.ratio:.3f}", f"≤ {one.bar}", word(one.met)])
    for one in report.limits:
        value = "–" if one.value is None else f"{one.value:.3g} {one.unit}"
        rows.append([one.name, value, "–", "–", f"≤ {one.bar} {one.unit}", word(one.met)])
    ours = sum(photo.splitzoo_payload_bytes for photo in report.photographs)
    peer = sum(photo.sc2bench_string_bytes for photo in report.photographs)
    rows.append(["payload bytes", f"{ours:,}", f"{peer:,}", f"{ours / peer:.4f}", "–", "–"])
    return rows


def markdown(report: Report) -> str:
    """Return the report as a page."""
    env, same = report.environment, report.agreement
    ratios = (
        f"{c.name} {', '.join(f'{r:.3f}' for r in c.round_ratios)}" for c in report.comparisons
    )
    parts = [
        "# Speed beside sc2bench",
        f"{report.model}, the same random weights (seed 0) on both sides, 224×224, batch 1, "
        f"{report.threads} threads. {report.date}, `{report.command}`.",
        f"{env['cpu']}, {env['cores']} cores, {env['system']}, Python {env['python']}; "
        + ", ".join(f"{name} {number}" for name, number in report.versions.items())
        + f". Load average before the run {report.load_average[0]}. {disturbance(report)}",
        grid(figures(report)),
        f"Times are p50 (p90) of {report.comparisons[0].runs} runs: {report.rounds} rounds, the "
        f"sides in turn, each turn a new process with {report.warmup} warm-up runs and "
        f"{report.iterations} counted ones. Ratios of the rounds: {'; '.join(ratios)}.",
        " ".join(f"{one.name}: {one.note}." for one in report.limits)
        + f" Payload bytes: {len(report.photographs)} photograph(s), entropy-coded, no frame.",
        f"On the first photograph {same.symbols_differing} of {same.symbols:,} symbols differ "
        f"({same.symbols_not_zero:,} are not 0); tables equal: {word(same.tables_equal)}; logits "
        f"within {same.logits_relative_error:.1e} of the largest.",
        grid([["task", *SIDES], *([name, *what] for name, (_, *what) in BARS.items())]),
        "sc2bench's entropy coding takes and gives latents: rounding and medians are in its rows. "
        "Ours takes and gives symbols; the graphs do the rest, in the device and edge paths.",
    ]
    return "\n\n".join(parts) + "\n"


def disturbance(report: Report) -> str:
    """Say how much other processes worked meanwhile, and whether the times can be trusted."""
    turns = [cores for side in report.foreign_cores.values() for cores in side]
    known = [cores for cores in turns if cores is not None]
    if not known:
        return "What other processes did meanwhile is not known."
    text = f"Other processes kept at most {max(known):.2f} cores busy during a turn"
    if max(known) <= QUIET_CORES:
        return text + "."
    return text + f": the machine was not quiet (≤ {QUIET_CORES}), do not rely on the times."


def grid(rows: list[list[str]]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def word(met: bool | None) -> str:
    """Return a verdict for people."""
    return "not measured" if met is None else "yes" if met else "no"


def save(report: Report, folder: Path) -> list[Path]:
    """Write JSON and Markdown under a name that carries device and versions."""
    cpu = re.sub(r"[^a-z0-9]+", "-", report.environment["cpu"].lower()).strip("-")
    torch, ort = (report.versions[name].partition("+")[0] for name in ("torch", "onnxruntime"))
    stem = f"sc2bench_speed.{cpu}.{report.threads}threads.torch{torch}-ort{ort}"
    pages = {"json": json.dumps(asdict(report), indent=2) + "\n", "md": markdown(report)}
    for suffix, page in pages.items():
        with new_file(folder / f"{stem}.{suffix}") as temporary:
            temporary.write_text(page, encoding="utf-8")
    return [folder / f"{stem}.{suffix}" for suffix in pages]


def find_photos(folder: Path | None) -> list[Path]:
    """Return the images of a folder, or the photograph that comes with matplotlib."""
    if folder:
        return [photo.resolve() for photo in list_images(folder)]
    from matplotlib.cbook import get_sample_data

    return [Path(get_sample_data("grace_hopper.jpg", asfileobj=False))]


def main() -> None:
    """Measure, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, metavar="DIR", help="images; the first is timed")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results", metavar="DIR")
    parser.add_argument("--iterations", type=positive, default=50, help="counted runs in a turn")
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each side")
    arguments = parser.parse_args()
    # A path of this machine would say nothing elsewhere.
    command = "python benchmarks/sc2bench_speed.py" + " --photos DIR" * bool(arguments.photos)
    command += f" --iterations {arguments.iterations} --rounds {arguments.rounds}"
    try:
        photos = find_photos(arguments.photos)
        report = measure(photos, arguments.rounds, arguments.iterations, command)
        head, *rows = figures(report)
        table = Table(*head, title=f"{report.model}, {report.threads} threads, p50 (p90)")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        progress(disturbance(report))
        for path in save(report, arguments.output):
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
    """Say on standard error what happens next."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
