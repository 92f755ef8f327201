"""A fleet against one server: faults on both sides, and every stream answered once and rightly.

    python benchmarks/fleet.py --bundle BUNDLE --images DIR

200 devices send 10,000 streams to ``splitrun serve``, each from a spool of its own: 199 in three
processes, and one that is ``splitrun send --watch``. On the way 1% of the streams are damaged and
1% are of another model; at 2% the client first vanishes in the middle of its request, or before
the answer. The server is killed with SIGKILL and started again, and so is the device that is a
process. In the end each answer is held against what ``Edge.predict`` says of the stream.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from splitrun.bundle import open_bundle
from splitrun.files import new_file
from splitrun.halves import Device, Edge
from splitrun.image_files import list_images
from splitrun.machine import machine, versions
from splitrun.sending.carriers import CarrierSettings, open_carrier, read_address
from splitrun.sending.items import Item, new_id
from splitrun.sending.links import Pace
from splitrun.sending.sender import Sender
from splitrun.sending.spool import Spool

RESULTS = Path(__file__).parent / "results"
DEVICES, STREAMS, PROCESSES = 200, 10_000, 3
SHARES = {"damaged": 0.01, "foreign": 0.01, "vanishing": 0.02}
EACH = STREAMS // DEVICES
KILL_SERVER_AFTER, KILL_DEVICE_AFTER = 2000, 10
CLOSE = 1e-4
"""Largest difference of a probability: batches add in another order."""


@dataclass(frozen=True)
class Fleet:
    """What came of a run; see :func:`check`."""

    streams: int
    devices: int
    sent_kinds: dict[str, int]
    outcomes: dict[str, int]
    good: int
    good_answered_once: int
    repeated_lines: int
    answers_as_direct: int
    largest_probability_difference: float
    left_in_spools: int
    kills: dict[str, str]
    seconds: float
    streams_per_second: float
    round_trip_ms: dict[str, float]
    server_rss_mb: dict[str, float]
    rss_ratio: float
    others_load: float
    environment: dict[str, str]


def kind_of(device: int, number: int) -> str:
    """Return what happens to a stream; the same each time, and none of it to device 0."""
    if device == 0:
        return "good"
    drawn, limit = random.Random(device * 100_003 + number).random(), 0.0
    for kind, share in SHARES.items():
        limit += share
        if drawn < limit:
            return kind
    return "good"


def item_of(device: int, number: int, stream: bytes) -> Item:
    if kind_of(device, number) == "foreign":
        body = stream[:4] + b"\xff\xff\xff\xff" + stream[8:-4]
        stream = body + zlib.crc32(body).to_bytes(4, "little")
    made = new_id(number + 1, device.to_bytes(4, "big"))
    return Item(made, f"{number}", stream, 0.0, f"device-{device}/{number}")


class FaultyCarrier:
    """Delivers as the real one does, after what is to go wrong went wrong."""

    def __init__(self, url: str, device: int) -> None:
        self._address, self._device = urlsplit(url), device
        self._made = open_carrier(CarrierSettings(read_address(url), Pace(None), timeout_s=60))
        self._vanished: set[str] = set()

    def deliver(self, item: Item):
        kind = kind_of(self._device, int(item.image))
        if kind == "vanishing" and item.id not in self._vanished:
            self._vanish(item)
            self._vanished.add(item.id)
        if kind == "damaged":
            middle = len(item.stream) // 2
            turned = bytes([item.stream[middle] ^ 16])
            item = replace(item, stream=item.stream[:middle] + turned + item.stream[middle + 1 :])
        return self._made.deliver(item)

    def _vanish(self, item: Item) -> None:
        """Send half of a request, or all of it, and go."""
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nIdempotency-Key: {item.key}\r\n"
        head += "Content-Type: application/octet-stream\r\n"
        head += f"Content-Length: {len(item.stream)}\r\n\r\n"
        half = len(item.stream) // 2 if int(item.image) % 2 else len(item.stream)
        place = self._address.hostname, self._address.port
        try:
            with socket.create_connection(place, timeout=10) as opened:
                opened.sendall(head.encode() + item.stream[:half])
        except OSError:
            pass  # the server was killed just then

    def close(self) -> None:
        self._made.close()


def run_devices(first: int, last: int, url: str, folder: Path) -> None:
    """Run some devices, each in a thread with a spool of its own; a process of the benchmark."""
    pool = [path.read_bytes() for path in sorted((folder / "pool").glob("*.sz"))]

    def run(device: int) -> None:
        spool = Spool(folder / f"spool-{device}", 10_000_000)
        order = random.Random(device)
        with (folder / f"answers-{device}.jsonl").open("a") as file:

            def tell(fields: dict) -> None:
                file.write(json.dumps(fields) + "\n")
                file.flush()

            sender = Sender(spool, FaultyCarrier(url, device), tell, note=lambda _text: None)
            sender.start()
            for number in range(EACH):
                spool.put(item_of(device, number, pool[(device + number) % len(pool)]))
                time.sleep(order.uniform(0, 0.2))
            spool.close()
            sender.join()
            assert sender.failure is None, sender.failure

    threads = [threading.Thread(target=run, args=(device,)) for device in range(first, last)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Server:
    """``splitrun serve`` on a port, and what it takes."""

    def __init__(self, bundle: Path, port: int, log: Path) -> None:
        words = [sys.executable, "-m", "splitrun", "serve", bundle, "--port", port]
        words += ["--log-level", "error", "--max-connections", 2000]
        self._log = log.open("ab")
        self.process = subprocess.Popen([*map(str, words)], stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1000

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


def count_lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("answers-*.jsonl"))


def run(bundle: Path, images: list[Path], folder: Path) -> Fleet:
    opened = open_bundle(bundle)
    device, edge = Device(opened), Edge(opened)
    (folder / "pool").mkdir()
    (folder / "photos").mkdir()
    direct = []
    for number, path in enumerate(images[:EACH]):
        shutil.copyfile(path, folder / "photos" / f"{number:03d}{path.suffix}")
        stream = device.encode_image(path)
        (folder / "pool" / f"{number:03d}.sz").write_bytes(stream)
        direct.append([asdict(score) for score in edge.predict(stream).top])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, log = f"http://127.0.0.1:{port}", folder / "server.log"
    server = Server(bundle, port, log)
    rss = {"started": server.rss_mb()}
    own = [sys.executable, str(Path(__file__).resolve()), "devices"]
    bounds = [1 + (DEVICES - 1) * step // PROCESSES for step in range(PROCESSES + 1)]
    began, load = time.monotonic(), os.getloadavg()[0]
    groups = [
        subprocess.Popen([*own, str(first), str(last), url, str(folder)])
        for first, last in itertools.pairwise(bounds)
    ]
    # Slow enough to be killed in its midst.
    watching = [sys.executable, "-m", "splitrun", "--bundle", bundle, "send", "--to", url]
    watching += ["--watch", folder / "photos", "--spool", folder / "spool-0", "--link", "30kbps"]
    answers = (folder / "answers-0.jsonl").open("ab")
    watcher = subprocess.Popen([*map(str, watching)], stdout=answers, stderr=subprocess.DEVNULL)
    kills, restarted_at = {}, None
    while any(group.poll() is None for group in groups):
        done = count_lines(folder)
        if "server" not in kills and done >= KILL_SERVER_AFTER:
            server.kill()
            time.sleep(2)
            server = Server(bundle, port, log)
            kills["server"] = f"SIGKILL after {done:,} answers, started again after 2 s"
            restarted_at = count_lines(folder)
        own_lines = (folder / "answers-0.jsonl").read_bytes().count(b"\n")
        if "device" not in kills and own_lines >= KILL_DEVICE_AFTER:
            watcher.kill()
            watcher.wait()
            waiting = len(list((folder / "spool-0").glob("*.item")))
            kills["device"] = f"SIGKILL after {own_lines} answers, {waiting} streams in its spool"
            watcher = subprocess.Popen(
                [*map(str, watching)], stdout=answers, stderr=subprocess.DEVNULL
            )
        if restarted_at is not None and "after 1,000" not in rss and done >= restarted_at + 1000:
            rss["after 1,000"] = server.rss_mb()
        time.sleep(0.5)
    while not is_done(folder) or list((folder / "spool-0").glob("*.item")):
        assert time.monotonic() - began < 3000
        time.sleep(0.2)
    seconds = time.monotonic() - began
    rss["end"] = server.rss_mb()
    watcher.send_signal(signal.SIGTERM)
    watcher.wait()
    answers.close()
    assert all(group.returncode == 0 for group in groups)
    server.process.terminate()
    server.process.wait()
    return check(folder, direct, kills, seconds, rss, load)


def is_done(folder: Path) -> bool:
    lines = (folder / "answers-0.jsonl").read_text().splitlines()
    return len({json.loads(line)["id"] for line in lines if line.endswith("}")}) >= EACH


def check(folder, direct, kills, seconds, rss, load) -> Fleet:
    """Hold every answer against what was sent and what a direct decode says."""
    kinds, outcomes = Counter(), Counter()
    good = once = repeated = right = 0
    largest, trips = 0.0, []
    for device in range(DEVICES):
        told: dict[str, list[dict]] = {}
        for line in (folder / f"answers-{device}.jsonl").read_text().splitlines():
            fields = json.loads(line)
            # The device that watches names the files, the others number the streams.
            number = int(Path(fields["image"]).stem)
            told.setdefault(str(number), []).append(fields)
        for number in range(EACH):
            kind = kind_of(device, number)
            kinds[kind] += 1
            lines = told.pop(str(number), [])
            repeated += max(len(lines) - 1, 0)
            found = lines[0] if lines else {}
            answered = "answer" in found
            status = "answered" if answered else found.get("error", {}).get("kind", "no answer")
            if not answered and found:
                words = found["error"]["message"].split()
                status = next(
                    (f"refused, {word}" for word in words if word.strip(":.").isdigit()), status
                )
            outcomes[f"{kind}: {status}"] += 1
            if kind in ("damaged", "foreign"):
                continue
            good += 1
            tops = [line.get("answer", {}).get("top") for line in lines]
            same = answered and all(top == tops[0] for top in tops)
            once += answered and len({line["id"] for line in lines}) == 1 and same
            if answered:
                trips.append(found["round_trip_ms"])
                expected = direct[number if device == 0 else (device + number) % len(direct)]
                top = found["answer"]["top"]
                differences = [
                    abs(a["probability"] - b["probability"])
                    for a, b in zip(top, expected, strict=True)
                ]
                largest = max(largest, *differences)
                labels = [score["label"] for score in top] == [score["label"] for score in expected]
                right += labels and max(differences) < CLOSE
        assert not told, f"device {device} heard of streams that it did not send: {told}"
    trips.sort()
    return Fleet(
        streams=sum(kinds.values()),
        devices=DEVICES,
        sent_kinds=dict(kinds),
        outcomes=dict(sorted(outcomes.items())),
        good=good,
        good_answered_once=once,
        repeated_lines=repeated,
        answers_as_direct=right,
        largest_probability_difference=largest,
        left_in_spools=sum(1 for _ in folder.glob("spool-*/*.item")),
        kills=kills,
        seconds=round(seconds, 1),
        streams_per_second=round(sum(kinds.values()) / seconds, 1),
        round_trip_ms={f"p{p}": round(trips[len(trips) * p // 100], 1) for p in (50, 90, 99)},
        server_rss_mb={name: round(value, 1) for name, value in rss.items()},
        rss_ratio=round(rss["end"] / rss["after 1,000"], 3),
        others_load=round(load, 1),
        environment=machine()
        | versions("splitzoo", "onnxruntime", "numpy", "uvicorn", "starlette"),
    )


def page(found: Fleet, model: str) -> str:
    def listed(values: dict, form: str = "") -> str:
        return ", ".join(f"{name} {value:{form}}" for name, value in values.items())

    most = f"probabilities differ by at most {found.largest_probability_difference:.1e}"
    rows = [
        ("streams, devices", f"{found.streams:,}, {found.devices}"),
        ("sent", listed(found.sent_kinds, ",")),
        ("became of them", listed(found.outcomes, ",")),
        ("good streams", f"{found.good:,}"),
        ("… answered once, to their sender", f"{found.good_answered_once:,}"),
        ("… with the answer of a direct decode", f"{found.answers_as_direct:,}; {most}"),
        (
            "lines printed again after a kill",
            f"{found.repeated_lines}, with the same id and answer",
        ),
        ("left in spools", f"{found.left_in_spools}"),
        ("killed", "; ".join(f"{name}: {said}" for name, said in found.kills.items())),
        ("server's memory, MB", listed(found.server_rss_mb, ".0f")),
        ("end ÷ after the first 1,000 (bar: 1.2)", f"{found.rss_ratio:.2f}"),
        ("time", f"{found.seconds:.0f} s, {found.streams_per_second:.0f} streams/s"),
        ("round trip, ms", listed(found.round_trip_ms, ".0f")),
    ]
    cores, cpu = found.environment["cores"], found.environment["cpu"]
    return f"""# A fleet against one server

`python benchmarks/fleet.py --bundle BUNDLE --images DIR`, whose head says what it does. {model};
server and devices on {cores} cores of {cpu}, where much other work ran (load
{found.others_load} before the start): counts and memory hold, times do not. The memory after the
first 1,000 is that of the server that was started again.

| | |
| --- | --- |
""" + "".join(f"| {name} | {said} |\n" for name, said in rows)


def main() -> None:
    if sys.argv[1:2] == ["devices"]:
        run_devices(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, help="bundle to serve")
    parser.add_argument("--images", type=Path, required=True, help="folder of at least 50 images")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="folder of results")
    arguments = parser.parse_args()
    images = list_images(arguments.images)
    if len(images) < EACH:
        parser.error(f"at least {EACH} images are needed")
    with tempfile.TemporaryDirectory() as name:
        found = run(arguments.bundle.resolve(), images, Path(name))
    with new_file(arguments.output / "fleet.json", force=True) as path:
        path.write_text(json.dumps(asdict(found), indent=2) + "\n")
    text = page(found, open_bundle(arguments.bundle).name)
    with new_file(arguments.output / "fleet.md", force=True) as path:
        path.write_text(text)
    print(text)
    bars = found.good_answered_once == found.answers_as_direct == found.good
    sys.exit(not (bars and not found.left_in_spools and found.rss_ratio <= 1.2))


if __name__ == "__main__":
    main()
