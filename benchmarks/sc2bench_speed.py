"""How fast the halves of a ``cpu`` bundle are beside sc2bench, with the same weights.

    .venv/bin/python benchmarks/sc2bench_speed.py [--photos DIR] [-o benchmarks/results]

Each side measures in processes of its own, because the thread pools of two runtimes in one process
disturb each other. The sides take turns over several rounds, a new process each time, and the
durations of all rounds are pooled, so that a drift of the machine hits both. This process only
waits meanwhile. A bar that is not met is reported; it does not change the exit code.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from splitzoo.errors import SplitzooError
from splitzoo.export.runtime.measure import Latency, machine
from splitzoo.files import new_file
from splitzoo.zoo.preprocessing import list_images

MODEL = "splittable_resnet50-fp-beta0.08"
THREADS = 2
WARMUP = 10
HELP_WARMUP, HELP_RUNS = 2, 10
SIDES = ("splitzoo", "sc2bench")
TABLE_BUFFERS = {"_offset", "_quantized_cdf", "_cdf_length"}  # made anew by sc2bench's update()
PACKAGES = (
    *("splitzoo", "sc2bench", "torchdistill", "compressai", "torch", "torchvision", "timm"),
    *("onnx", "onnxruntime", "constriction", "numpy", "pillow"),
)


@dataclass(frozen=True)
class Task:
    """What is timed on both sides: the largest ratio allowed, and what each side does."""

    bar: float
    splitzoo: str
    sc2bench: str


PATHS = {
    "device path": Task(0.45, "image float32 → stream, framed", "bottleneck_layer.encode"),
    "edge path": Task(0.75, "stream → logits", "bottleneck_layer.decode, layer2 … layer4, fc"),
    "entropy encoding": Task(
        0.35, "FactorizedCoder.encode(symbols)", "entropy_bottleneck.compress(latent)"
    ),
    "entropy decoding": Task(
        0.8, "FactorizedCoder.decode(payload)", "entropy_bottleneck.decompress(strings)"
    ),
}


@dataclass(frozen=True)
class Turn:
    """One turn of one side: seconds of each timed run, bytes of each photograph."""

    seconds: dict[str, list[float]]
    payload_bytes: list[int]


@dataclass(frozen=True)
class Comparison:
    """One path on both sides; ``ratio`` and each of ``round_ratios`` are medians over medians."""

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
    """Everything that one run found."""

    date: str
    command: str
    model: str
    threads: int
    rounds: int
    iterations: int
    warmup: int
    load_average: list[float]
    environment: dict[str, str]
    versions: dict[str, str]
    comparisons: list[Comparison]
    limits: list[Limit]
    agreement: Agreement
    photographs: list[Photograph]


def prepare(work: Path, _iterations: int) -> None:
    """Write what both sides read: the bundle, its weights under sc2bench's names, the images."""
    from safetensors.torch import save_file

    from splitzoo import zoo
    from splitzoo.export.split import export_split

    model = zoo.load(MODEL, pretrained=False, seed=0)
    export_split(model, work / "bundle", target="cpu", seed=0)
    weights = {
        _sc2bench_key(name): tensor.contiguous()
        for name, tensor in model.state_dict().items()
        if name.rpartition(".")[2] not in TABLE_BUFFERS
    }
    save_file(weights, work / "weights.safetensors")
    photos = json.loads((work / "photos.json").read_text())
    load = model.spec.preprocessing.load
    np.save(work / "images.npy", np.concatenate([load(photo) for photo in photos]))


def _sc2bench_key(name: str) -> str:
    for ours, theirs in (
        ("encoder.", "bottleneck_layer.encoder."),
        ("coder.", "bottleneck_layer."),
        ("decoder.g_s.", "bottleneck_layer.decoder."),
        ("decoder.tail.", ""),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


def measure_splitzoo(work: Path, iterations: int) -> Turn:
    """Time the bundle's halves, and keep what they computed for :func:`compare_outputs`."""
    from splitzoo.export.runtime.bundle import open_bundle
    from splitzoo.export.runtime.halves import Device, Edge

    bundle = open_bundle(work / "bundle")
    device, edge = Device(bundle, THREADS), Edge(bundle, THREADS)
    coder, tables = device.codec.coder, device.codec.tables
    images = np.load(work / "images.npy")
    image = images[:1]
    symbols, stream = device.symbols(image)[0], device.encode(image)[0]
    frame = device.codec.unframe(stream)
    np.savez(
        work / "splitzoo.npz",
        symbols=coder.decode(*frame),
        logits=edge.decode(stream),
        cdf=tables.cdf,
        length=tables.length,
        offset=tables.offset,
    )
    seconds = {
        "device path": _time(lambda: device.encode(image), iterations),
        "edge path": _time(lambda: edge.decode(stream), iterations),
        "entropy encoding": _time(lambda: coder.encode(symbols), iterations),
        "entropy decoding": _time(lambda: coder.decode(*frame), iterations),
    }
    payloads = [coder.encode(device.symbols(one[None])[0]) for one in images]
    return Turn(seconds, [len(payload) for payload in payloads])


def measure_sc2bench(work: Path, iterations: int) -> Turn:
    """Time the same with sc2bench's model under ``inference_mode``, as its own evaluation runs."""
    import torch
    from safetensors.torch import load_file
    from sc2bench.models.backbone import splittable_resnet
    from torch import nn

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    sizes = {"num_bottleneck_channels": 24, "num_target_channels": 256}
    model = splittable_resnet(
        {"key": "FPBasedResNetBottleneck", "kwargs": sizes},
        resnet_name="resnet50",
        skips_avgpool=False,
        skips_fc=False,
    ).eval()
    # Its own load_state_dict accepts anything; torch's says what was left out.
    loaded = nn.Module.load_state_dict(model, load_file(work / "weights.safetensors"), strict=False)
    bottleneck = model.bottleneck_layer
    prior = bottleneck.entropy_bottleneck
    left_out = {name.rpartition(".")[2] for name in loaded.missing_keys}
    if loaded.unexpected_keys or left_out != TABLE_BUFFERS:
        raise RuntimeError(f"The weights do not fit sc2bench's model: {loaded}")
    bottleneck.update()
    tail = nn.Sequential(
        model.layer2, model.layer3, model.layer4, model.avgpool, nn.Flatten(), model.fc
    )
    images = torch.from_numpy(np.load(work / "images.npy"))
    image = images[:1]
    with torch.inference_mode():
        latent, encoded = bottleneck.encoder(image), bottleneck.encode(image)
        strings, shape = encoded["strings"][0], encoded["shape"]
        medians = prior.quantiles[:, 0, 1].reshape(-1, 1, 1)
        np.savez(
            work / "sc2bench.npz",
            symbols=torch.round(prior.decompress(strings, shape)[0] - medians).int().numpy(),
            logits=tail(bottleneck.decode(**encoded)).numpy(),
            cdf=prior.quantized_cdf.numpy(),
            length=prior.cdf_length.numpy(),
            offset=prior.offset.numpy(),
        )
        seconds = {
            "device path": _time(lambda: bottleneck.encode(image), iterations),
            "edge path": _time(lambda: tail(bottleneck.decode(**encoded)), iterations),
            "entropy encoding": _time(lambda: prior.compress(latent), iterations),
            "entropy decoding": _time(lambda: prior.decompress(strings, shape), iterations),
        }
        payloads = [bottleneck.encode(one[None])["strings"][0][0] for one in images]
    return Turn(seconds, [len(payload) for payload in payloads])


def _time(step: Callable[[], object], iterations: int) -> list[float]:
    for _ in range(WARMUP):
        step()
    seconds = []
    for _ in range(iterations):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds


STAGES = {"prepare": prepare, "splitzoo": measure_splitzoo, "sc2bench": measure_sc2bench}


def run_stage(stage: str, work: Path, iterations: int) -> None:
    """Run a stage in a process of its own; a side's turn is then in ``work``."""
    command = [sys.executable, __file__, "--stage", stage, "--work", str(work)]
    subprocess.run(
        [*command, "--iterations", str(iterations)],
        check=True,
        stdout=sys.stderr,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )


def take_turns(work: Path, rounds: int, iterations: int) -> dict[str, list[Turn]]:
    """Let the sides measure one after the other, round after round."""
    turns: dict[str, list[Turn]] = {side: [] for side in SIDES}
    for number in range(rounds):
        for side in SIDES:
            _progress(f"round {number + 1} of {rounds}: {side}")
            run_stage(side, work, iterations)
            turns[side].append(Turn(**json.loads((work / f"{side}.json").read_text())))
    return turns


def compare_times(turns: dict[str, list[Turn]]) -> list[Comparison]:
    """Pool the rounds of each side and hold the ratio of the medians against its bar."""
    found = []
    for name, path in PATHS.items():
        rounds = {side: [turn.seconds[name] for turn in turns[side]] for side in SIDES}
        ours, peer = (Latency.of([s for one in rounds[side] for s in one]) for side in SIDES)
        ratio = ours.p50_ms / peer.p50_ms
        ratios = [
            Latency.of(mine).p50_ms / Latency.of(theirs).p50_ms
            for mine, theirs in zip(*rounds.values(), strict=True)
        ]
        runs = sum(len(one) for one in rounds["splitzoo"])
        found.append(Comparison(name, runs, ours, peer, ratios, ratio, path.bar, ratio <= path.bar))
    return found


def compare_outputs(work: Path) -> Agreement:
    """Compare symbols, tables and logits of both sides on the first photograph."""
    ours, peer = (np.load(work / f"{side}.npz") for side in SIDES)
    names = ("cdf", "length", "offset")
    difference = np.abs(ours["logits"].astype(np.float64) - peer["logits"]).max()
    return Agreement(
        symbols=ours["symbols"].size,
        symbols_differing=int((ours["symbols"] != peer["symbols"]).sum()),
        symbols_not_zero=int(np.count_nonzero(ours["symbols"])),
        tables_equal=all(np.array_equal(ours[name], peer[name]) for name in names),
        logits_relative_error=float(difference / np.abs(peer["logits"]).max()),
    )


def measure_memory(work: Path, photo: Path, rounds: int) -> Limit:
    """Encode a photograph with the bundle's own runtime; take the largest peak of the rounds."""
    command = ["-m", "splitrun", "encode", str(photo), "-o", str(work / "photo.sz"), "--json"]
    peaks = []
    for _ in range(rounds):
        done = _run([sys.executable, *command, "--threads", str(THREADS)], work / "bundle")
        peaks.append(json.loads(done.stdout)["peak_memory_bytes"] / 1e6)
    trace = _run([sys.executable, "-X", "importtime", *command], work / "bundle").stderr
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in trace.splitlines()}
    loaded = sorted(modules & {"torch", "splitzoo", "compressai", "timm", "onnx"})
    note = f"imports {', '.join(loaded)}" if loaded else "imports neither torch nor splitzoo"
    met = max(peaks) <= 250 and not loaded
    return Limit("peak memory, encoding a photograph", "MB", max(peaks), 250, met, note)


def measure_help() -> Limit:
    """Time ``splitzoo --help`` from start to end."""
    name, bar = "splitzoo --help", 0.5
    command = [str(Path(sys.executable).with_name("splitzoo")), "--help"]
    seconds = []
    try:
        for _ in range(HELP_WARMUP + HELP_RUNS):
            start = time.perf_counter()
            _run(command)
            seconds.append(time.perf_counter() - start)
    except (OSError, subprocess.CalledProcessError) as error:
        return Limit(name, "s", None, bar, None, f"not measured: {type(error).__name__}")
    median = float(np.median(seconds[HELP_WARMUP:]))
    return Limit(name, "s", median, bar, median <= bar, f"median of {HELP_RUNS}")


def _run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def render(report: Report) -> tuple[Table, str]:
    """Return the figures as a table for the terminal, and the whole report as Markdown."""
    head = ["what", "splitzoo p50 (p90)", "sc2bench p50 (p90)", "ratio", "bar", "met"]
    rows = [
        [
            one.name,
            *(f"{t.p50_ms:.2f} ({t.p90_ms:.2f}) ms" for t in (one.splitzoo, one.sc2bench)),
            f"{one.ratio:.3f}",
            f"≤ {one.bar}",
            _word(one.met),
        ]
        for one in report.comparisons
    ]
    for limit in report.limits:
        value = "–" if limit.value is None else f"{limit.value:.3g} {limit.unit}"
        rows.append([limit.name, value, "–", "–", f"≤ {limit.bar} {limit.unit}", _word(limit.met)])
    sums = [
        sum(getattr(photo, field) for photo in report.photographs)
        for field in ("splitzoo_payload_bytes", "sc2bench_string_bytes")
    ]
    label = f"bytes of {len(report.photographs)} photograph(s)"
    rows.append([label, *(f"{n:,}" for n in sums), f"{sums[0] / sums[1]:.4f}", "–", "–"])
    table = Table(*head, title=f"{report.model}, {report.threads} threads")
    for row in rows:
        table.add_row(*row)
    same, env = report.agreement, report.environment
    loads = ", ".join(f"{load:.2f}" for load in report.load_average)
    text = [
        "# Speed beside sc2bench",
        f"{report.model}, random weights of seed 0 on both sides, 224×224, batch 1, "
        f"{report.threads} threads. {report.date}, `{report.command}`.",
        f"{env['cpu']}, {env['cores']} cores, {env['system']}, Python {env['python']}; load average "
        f"{loads}. "
        + ", ".join(f"{name} {number}" for name, number in report.versions.items())
        + ".",
        _markdown([head, *rows]),
        f"{report.rounds} rounds, the sides in turn, each turn a new process with {report.warmup} "
        f"warm-up runs and {report.iterations} counted ones per row; percentiles of all rounds "
        "together. Ratios of the single rounds: "
        + "; ".join(
            f"{one.name} {', '.join(f'{ratio:.3f}' for ratio in one.round_ratios)}"
            for one in report.comparisons
        )
        + ".",
        *(f"{limit.name}: {limit.note}." for limit in report.limits),
        f"Same work on both sides: {same.symbols_differing} of {same.symbols:,} symbols differ "
        f"({same.symbols_not_zero:,} are not 0), tables equal: {_word(same.tables_equal)}, logits "
        f"within {same.logits_relative_error:.1e} of the largest.",
        _markdown([["row", *SIDES], *([n, p.splitzoo, p.sc2bench] for n, p in PATHS.items())]),
        "sc2bench's entropy coding takes and gives latents, so rounding and medians are in its "
        "rows; here they are in the graphs, and so in the device and edge paths.",
    ]
    return table, "\n\n".join(text) + "\n"


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _word(met: bool | None) -> str:
    return "not measured" if met is None else "yes" if met else "no"


def save(report: Report, markdown: str, folder: Path) -> list[Path]:
    """Write JSON and Markdown under a name that carries device and versions."""
    cpu = re.sub(r"[^a-z0-9]+", "-", report.environment["cpu"].lower()).strip("-")
    torch, ort = (report.versions[name].partition("+")[0] for name in ("torch", "onnxruntime"))
    stem = f"sc2bench_speed.{cpu}.{report.threads}threads.torch{torch}-ort{ort}"
    paths = []
    for suffix, text in (("json", json.dumps(asdict(report), indent=2) + "\n"), ("md", markdown)):
        paths.append(folder / f"{stem}.{suffix}")
        with new_file(paths[-1]) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def measure(photos: list[Path], rounds: int, iterations: int, command: str) -> Report:
    """Run everything, one process at a time."""
    load_average = list(os.getloadavg())
    with tempfile.TemporaryDirectory(prefix="sc2bench-speed-") as folder:
        work = Path(folder)
        (work / "photos.json").write_text(json.dumps([str(photo) for photo in photos]))
        _progress("exporting the bundle")
        run_stage("prepare", work, iterations)
        turns = take_turns(work, rounds, iterations)
        _progress("memory and start-up time")
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
            environment=machine(),
            versions={package: version(package) for package in PACKAGES},
            comparisons=compare_times(turns),
            limits=[measure_memory(work, photos[0], rounds), measure_help()],
            agreement=compare_outputs(work),
            photographs=[Photograph(photo.name, ours, peer) for photo, ours, peer in sizes],
        )


def main() -> None:
    """Read the arguments; run one stage if asked by :func:`run_stage`, otherwise everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, metavar="DIR", help="images; the first is timed")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--iterations", type=_positive, default=50, help="per round and row")
    parser.add_argument("--rounds", type=_positive, default=3)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        turn = STAGES[arguments.stage](arguments.work, arguments.iterations)
        if turn:
            (arguments.work / f"{arguments.stage}.json").write_text(json.dumps(asdict(turn)))
        return
    try:
        if arguments.photos:
            photos = [photo.resolve() for photo in list_images(arguments.photos)]
        else:
            from matplotlib.cbook import get_sample_data

            photos = [Path(get_sample_data("grace_hopper.jpg", asfileobj=False))]
        command = "python benchmarks/sc2bench_speed.py" + (
            " --photos DIR" if arguments.photos else ""
        )
        command += f" --iterations {arguments.iterations} --rounds {arguments.rounds}"
        report = measure(photos, arguments.rounds, arguments.iterations, command)
        table, markdown = render(report)
        Console().print(table)
        for path in save(report, markdown, arguments.output):
            _progress(f"wrote {path}")
    except SplitzooError as error:
        raise SystemExit(f"error: {error}") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"error: a stage failed ({error.returncode}).\n{error.stderr or ''}"
        ) from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
