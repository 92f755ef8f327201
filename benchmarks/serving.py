"""The edge server under 64 clients, beside a loop of `Edge.predict` and the engine alone.

    python benchmarks/serving.py --photos photos --model NAME --model NAME

Each model is exported for ONNX Runtime with graphs that take several images at once. In each round
the sides take turns, for some seconds each: a loop of batch-1 `Edge.predict`; the edge graph by
itself on decoded tensors, at several batch sizes; and the server, a process of its own, asked over
loopback by 64 clients in this process, each of which sends its next stream when it has an answer.
Every answer is held against `Edge.predict`. Then the server decodes in threads and in processes,
and the other servers of `make servers` answer the same streams, with a process on each core that
runs the graph: Triton (`splitzoo export triton --backend python`), Ray
(`splitrun.serving.ray_serve`).
Models without weights at hand get random ones. Server and clients share the cores.

Beside answers per second stand milliseconds of processor for each: they hold on a machine that does
other work too, where rates do not. Two idle cores would give at most 2,000 of them a second.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.request import urlopen

import numpy as np
import psutil
from speed_sides import busy_seconds

from splitrun.bundle import open_bundle
from splitrun.errors import HubError, WeightsNotFoundError
from splitrun.files import new_file
from splitrun.halves import Device, Edge
from splitrun.image_files import list_images
from splitrun.machine import machine, versions
from splitrun.measure import Latency
from splitzoo import export, zoo

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
import ray_server
import triton_server

RESULTS = Path(__file__).parent / "results"
MODELS = (zoo.DEFAULT_MODEL, "splittable_resnet50-fp-beta0.08")
CLIENTS = 64
BATCHES = (1, 2, 4, 8, 16)


@dataclass
class Rate:
    """What is done per second, and milliseconds of processor for each."""

    rate: float
    cpu_ms: float


@dataclass
class Served:
    """The server in one round.

    Attributes:
        options: What is served with: options of ``splitrun serve``, or another server.
        rate: Answers per second.
        latency: Latency of a request, as a client sees it.
        peak_memory_bytes: Largest memory of the server's processes, shared pages counted in each.
        cpu_ms: Time of a processor for each answer, of all processes of the server.
        mean_batch: Mean number of streams that the graph ran at once; 0 where it is not counted.
    """

    options: str
    rate: float
    latency: Latency
    peak_memory_bytes: int
    cpu_ms: float
    mean_batch: float = 0


@dataclass
class Measured:
    """One model.

    Attributes:
        model: Name of the model.
        weights: ``"trained"`` or ``"random"``.
        stream_bytes: Mean size of a stream.
        loop: Predictions of the loop, in each round.
        engine: Images of the graph by itself, by batch, in each round.
        served: The server, in each round.
        others: The server with other options, and Triton where it is here.
        busy_cores: Cores that other processes kept busy in each round of the loop.
    """

    model: str
    weights: str
    stream_bytes: float
    loop: list[Rate] = field(default_factory=list)
    engine: dict[int, list[Rate]] = field(default_factory=dict)
    served: list[Served] = field(default_factory=list)
    others: list[Served] = field(default_factory=list)
    busy_cores: list[float] = field(default_factory=list)


def rate_of(run: Callable[[int], int], seconds: float) -> Rate:
    """Return how fast a function that takes its turn's number does so many things."""
    run(0)
    done, turn, began, used = 0, 0, time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) - began < seconds or not done:
        done += run(turn)
        turn += 1
    return Rate(done / (now - began), 1e3 * (time.process_time() - used) / done)


async def ask(
    port: int, requests: list[bytes], expected: list[int], until: float, seconds: list[float]
) -> list[str]:
    """Be one client: send the next stream when there is an answer; return the wrong answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wrong, turn = [], len(seconds)
    while time.perf_counter() < until:
        place = turn % len(requests)
        turn += 1
        began = time.perf_counter()
        writer.write(requests[place])
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"\ncontent-length: (\d+)", head, re.IGNORECASE)
        assert length
        body = await reader.readexactly(int(length[1]))
        seconds.append(time.perf_counter() - began)
        found = re.search(rb'"index": (\d+)', body)
        if not head.startswith(b"HTTP/1.1 200") or not found or int(found[1]) != expected[place]:
            wrong.append(f"stream {place}, {expected[place]}: {head[:20]!r} {body[:300]!r}")
    writer.close()
    return wrong


def processes_of(process: subprocess.Popen) -> list[psutil.Process]:
    whole = psutil.Process(process.pid)
    return [whole, *whole.children(recursive=True)]


def load(
    process: subprocess.Popen,
    port: int,
    requests: list[bytes],
    expected: list[int],
    seconds: float,
    options: str,
) -> Served:
    """Have all clients ask a server, once it is warm."""

    async def all_clients(length: float) -> tuple[float, list[float]]:
        spent: list[float] = []
        began = time.perf_counter()
        clients = [ask(port, requests, expected, began + length, spent) for _ in range(CLIENTS)]
        wrong = [text for texts in await asyncio.gather(*clients) for text in texts]
        if wrong:
            raise SystemExit("Not the answers of Edge.predict:\n" + "\n".join(wrong[:8]))
        return len(spent) / (time.perf_counter() - began), spent

    def used() -> float:
        times = [one.cpu_times() for one in processes_of(process)]
        return sum(one.user + one.system for one in times)

    asyncio.run(all_clients(1))  # warm
    before = used()
    rate, spent = asyncio.run(all_clients(seconds))
    cpu_ms = 1e3 * (used() - before) / len(spent)
    peaks = [
        re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{one.pid}/status").read_text())
        for one in processes_of(process)
    ]
    peak = sum(int(found[1]) * 1024 for found in peaks if found)
    return Served(options, rate, Latency.of(spent), peak, cpu_ms)


def predictions_of(streams: list[bytes]) -> list[bytes]:
    """Return the requests that ask what streams say."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
    return [head + b"Content-Length: %d\r\n\r\n%s" % (len(one), one) for one in streams]


def serve(
    folder: Path, streams: list[bytes], expected: list[int], seconds: float, options: list[str]
) -> Served:
    command = [sys.executable, "-m", "splitrun", "serve", str(folder), "--port", "0"]
    command += ["--log-level", "warning", "--answer-timeout", "600", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = next(line for line in process.stdout if line.startswith("Serving on"))
        port = int(said.rpartition(":")[2])
        words = " ".join(options)
        found = load(process, port, predictions_of(streams), expected, seconds, words)
        with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = answer.read().decode()
        totals = {
            name: float(value)
            for name, value in re.findall(r"splitrun_batch_size_(sum|count){.*} (\S+)", metrics)
        }
        return replace(found, mean_batch=totals["sum"] / totals["count"])
    finally:
        process.terminate()
        process.communicate()


def serve_by_triton(
    folder: Path, streams: list[bytes], expected: list[int], seconds: float, scratch: Path
) -> Served:
    repository = scratch / "repository"
    options = export.TritonOptions("python", instances=os.cpu_count() or 1, max_queue=1000)
    export.export_triton([("model", folder)], repository, options)
    with triton_server.triton_server(repository, scratch) as server:
        head = {
            "inputs": [{"name": "STREAM", "shape": [1, 1], "datatype": "BYTES"}],
            "outputs": [{"name": "PREDICTION", "parameters": {"binary_data": True}}],
        }
        requests = []
        for stream in streams:
            data = struct.pack("<I", len(stream)) + stream
            head["inputs"][0]["parameters"] = {"binary_data_size": len(data)}
            text = json.dumps(head).encode()
            requests.append(
                b"POST /v2/models/model/infer HTTP/1.1\r\nHost: x\r\n"
                b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n%s%s"
                % (len(text), len(text) + len(data), text, data)
            )
        return load(server.process, server.port, requests, expected, seconds, "Triton")


def serve_by_ray(
    folder: Path, streams: list[bytes], expected: list[int], seconds: float, scratch: Path
) -> Served:
    replicas = os.cpu_count() or 1
    fixed = {"min_replicas": replicas, "max_replicas": replicas}
    deployments = [{"name": "model", "autoscaling_config": fixed}]
    words = {"bundles": f"model={folder}", "answer_timeout_s": 600}
    with ray_server.ray_server(scratch, words, deployments) as server:
        requests = predictions_of(streams)
        return load(server.process, server.port, requests, expected, seconds, "Ray Serve")


def measure(name: str, photos: list[Path], folder: Path, rounds: int, seconds: float) -> Measured:
    trained = True
    try:
        model = zoo.load(name)
    except (HubError, WeightsNotFoundError):
        model, trained = zoo.load(name, pretrained=False, seed=0), False
    export.split(model, folder, target="cpu", dynamic_batch=True)
    del model
    bundle = open_bundle(folder)
    device, edge = Device(bundle), Edge(bundle)
    streams = [bytes(device.encode_image(photo)) for photo in photos]
    expected = [edge.predict(stream, 1).top[0].index for stream in streams]
    mean = statistics.fmean(map(len, streams))
    found = Measured(name, "trained" if trained else "random", mean)
    tensors = [edge.decompress(stream) for stream in streams]
    for _ in range(rounds):
        busy, own, began = busy_seconds(), time.process_time(), time.perf_counter()

        def predict(turn: int) -> int:
            edge.predict(streams[turn % len(streams)])
            return 1

        found.loop.append(rate_of(predict, seconds))
        after, took = busy_seconds(), time.perf_counter() - began
        if busy is not None and after is not None:
            others = (after - busy - (time.process_time() - own)) / took
            found.busy_cores.append(max(others, 0.0))
        for batch in BATCHES:
            group = tuple(
                map(
                    np.concatenate,
                    zip(*(tensors[i % len(tensors)] for i in range(batch)), strict=True),
                )
            )

            def run(_turn: int, group=group, batch=batch) -> int:
                edge.graph(group)
                return batch

            found.engine.setdefault(batch, []).append(rate_of(run, seconds / 2))
        found.served.append(serve(folder, streams, expected, seconds, []))
    for options in (["--decoders", "1"], ["--decoders", "2"], ["--instances", "1"]):
        found.others.append(serve(folder, streams, expected, seconds, options))
    for python, serve_by in (
        (triton_server.PYTHON, serve_by_triton),
        (ray_server.PYTHON, serve_by_ray),
    ):
        if python.exists():
            with tempfile.TemporaryDirectory() as scratch:
                found.others.append(serve_by(folder, streams, expected, seconds, Path(scratch)))
    return found


S = TypeVar("S", Rate, Served)


def middle(sides: list[S]) -> S:
    return sorted(sides, key=lambda side: side.rate)[len(sides) // 2]


def told(side: Rate | Served) -> str:
    return f"{side.rate:.3g}/s ({side.cpu_ms:.3g} ms)"


def ratio(side: Rate | Served, of: Rate | Served) -> str:
    return f"{side.rate / of.rate:.2f} ({of.cpu_ms / side.cpu_ms:.2f})"


def page(found: list[Measured], seconds: float, rounds: int) -> str:
    environment = machine()
    others = max((busy for model in found for busy in model.busy_cores), default=0)
    packages = ", ".join(f"{name} {of}" for name, of in versions("onnxruntime", "uvicorn").items())
    lines = [
        "# The edge server under load",
        "",
        f"`python benchmarks/serving.py --photos photos --rounds {rounds} --seconds {seconds:g}`: "
        f"{CLIENTS} clients over loopback on the same {environment['cores']} cores of "
        f"{environment['cpu']} ({environment['instructions']}), {packages}. Medians of the rounds.",
        f"Beside the loop, other processes kept up to {others:.2f} cores busy.",
        "",
        "In brackets: milliseconds of processor for each answer.",
        "",
        "| model | bytes | loop of `Edge.predict` | engine, best batch | server | server : loop | "
        "server : engine | p50 | p99 | memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model in found:
        loop = middle(model.loop)
        sizes = {size: middle(rates) for size, rates in model.engine.items()}
        batch = max(sizes, key=lambda size: sizes[size].rate)
        engine, served = sizes[batch], middle(model.served)
        lines.append(
            f"| {model.model}, {model.weights} weights | {model.stream_bytes:,.0f} | "
            f"{told(loop)} | "
            f"{told(engine)} at {batch} | {told(served)} | {ratio(served, loop)} | "
            f"{ratio(served, engine)} | {served.latency.p50_ms:.0f} ms | "
            f"{served.latency.p99_ms:.0f} ms | {served.peak_memory_bytes / 1e6:.0f} MB |"
        )
    lines += ["", "| model | server | streams/s | p50 | p99 | mean batch | memory |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    for model in found:
        for side in [middle(model.served), *model.others]:
            options = side.options or "decodes in two threads"
            options = f"`{options}`" if options.startswith("--") else options
            batch = f"{side.mean_batch:.1f}" if side.mean_batch else ""
            lines.append(
                f"| {model.model} | {options} | {told(side)} | {side.latency.p50_ms:.0f} ms | "
                f"{side.latency.p99_ms:.0f} ms | {batch} | {side.peak_memory_bytes / 1e6:.0f} MB |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--model", action="append", dest="models")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    photos = list_images(arguments.photos)[:32]
    models = arguments.models or list(MODELS)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(models):
            folder = Path(scratch, str(number))
            found.append(measure(name, photos, folder, arguments.rounds, arguments.seconds))
            text = page(found, arguments.seconds, arguments.rounds)
            document = {"machine": machine(), "models": [asdict(model) for model in found]}
            files = {"serving.json": json.dumps(document, indent=1), "serving.md": text}
            for path, content in files.items():
                with new_file(arguments.output / path, force=True) as temporary:
                    temporary.write_text(content)
    print(text)


if __name__ == "__main__":
    main()
