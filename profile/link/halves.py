"""The two processes of ``profile link``, joined by a socket; they import splitrun alone.

    python -m splitzoo.profile.link.halves edge SETUP     prints its port
    python -m splitzoo.profile.link.halves device SETUP   prints a line of JSON for each image

Before each image goes its way's number and its size, 4 bytes each; a line of JSON comes back.
"""

import json
import queue
import socket
import struct
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitrun.bundle import open_bundle
from splitrun.coding.pixels import PixelsCoder
from splitrun.halves import Device, Edge
from splitrun.image_reading import read_rgb
from splitrun.sending.links import Link, Pace

_HEAD = struct.Struct("<II")
_MOST_BYTES = 1 << 28
STAGES = ("preprocess", "device graph", "coding", "air", "queue", "decode", "edge graph")
SPLIT, WHOLE = "split", "whole network on the device"


@dataclass(frozen=True)
class Way:
    """A way from image to answer.

    Attributes:
        name: ``"split"``, the whole network on the device, or an image codec before the whole
            network on the edge.
        quality: Quality of the image codec.
    """

    name: str
    quality: int = 0


@dataclass(frozen=True)
class Setup:
    """What both processes are given, as JSON.

    Attributes:
        bundle: Folder of the split bundle.
        whole: Folder of the bundle of a whole network behind an image codec; empty takes both
            halves of the split one, one after the other.
        images: Paths of the images.
        ways: Ways to take, in order.
        link: Link to be as slow as.
        rtt_ms: Time that an empty message takes there and back.
        every_ms: Time between two images; 0 begins one when the last is answered.
        beta: β that the split model encodes at; None: the bundle's.
        warmup: Images that are sent first and not counted.
        threads: Threads for each engine; 0 lets it choose.
        trust: Whether to run graphs of any operators.
        port: Port of the edge, for the device.
    """

    bundle: str
    whole: str
    images: list[str]
    ways: list[Way]
    link: Link
    rtt_ms: float
    every_ms: float
    beta: float | None
    warmup: int
    threads: int
    trust: bool
    port: int = 0

    def to_json(self) -> str:
        """Write it."""
        return json.dumps(asdict(self))

    @classmethod
    def of_json(cls, text: str) -> "Setup":
        """Read what :meth:`to_json` wrote."""
        said = json.loads(text)
        said["ways"] = [Way(**way) for way in said["ways"]]
        said["link"] = Link(**said["link"])
        return cls(**said)


class WholeNetwork:
    """A whole network that takes pixels: of an image codec's bundle, or both halves of a split one.

    Args:
        bundle: Folder of the split bundle, whose halves are taken where there is no other.
        whole: Folder of the other one, or empty.
    """

    def __init__(self, bundle: str, whole: str, threads: int = 0, *, trust: bool = False) -> None:
        opened = open_bundle(whole or bundle, trust=trust)
        self._preprocessing = opened.preprocessing
        self._device = Device(opened, threads, stand_in=True)
        self._edge = Edge(opened, threads, tail=next(iter(opened.edge.tails)), stand_in=True)
        self._is_split = not whole

    def pixels(self, image: str | Path) -> NDArray[np.uint8]:
        """Return what the network sees of an image: (3, H, W) uint8."""
        pixels = self._preprocessing.pixels(read_rgb(image))
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def answer(self, pixels: NDArray[np.uint8]) -> str:
        """Run the network on pixels, (3, H, W) uint8, and return its first word."""
        tensor = self._preprocessing.normalise(pixels.transpose(1, 2, 0))
        if self._preprocessing.fit == "pad":
            tensor = self._preprocessing.padded(tensor)
        if self._is_split:
            return first_word(self._edge, self._edge.decode(self._device.encode(tensor)[0]))
        tensors = self._device.wire_tensors(tensor)
        return first_word(self._edge, self._edge.graph(tensors))


def first_word(edge: Edge, outputs: Any) -> str:
    """Return the label that an edge would name first; empty where a detector finds nothing."""
    prediction = edge.prediction(outputs, top=1)
    found = [*prediction.top, *prediction.detections, *prediction.shares]
    return found[0].label if found else ""


def _edge(setup: Setup) -> None:
    bundle = open_bundle(setup.bundle, trust=setup.trust)
    edge = Edge(bundle, setup.threads, tail=next(iter(bundle.edge.tails)), stand_in=True)
    network = WholeNetwork(setup.bundle, setup.whole, setup.threads, trust=setup.trust)
    half_s = setup.rtt_ms / 2e3
    arrived: queue.Queue[tuple[float, int, bytes] | None] = queue.Queue()
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def read() -> None:
            with connection.makefile("rb") as file:
                while len(head := file.read(_HEAD.size)) == _HEAD.size:
                    number, size = _HEAD.unpack(head)
                    content = file.read(min(size, _MOST_BYTES))
                    time.sleep(half_s)
                    arrived.put((time.perf_counter(), number, content))
            arrived.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (message := arrived.get()) is not None:
            came, number, content = message
            began = time.perf_counter()
            way = setup.ways[number]
            if way.name == WHOLE:
                word, decoded = content.decode(), began
            elif way.name == SPLIT:
                tensors = edge.decompress(content)
                decoded = time.perf_counter()
                word = first_word(edge, edge.graph(tensors))
            else:
                height, width = struct.unpack_from("<HH", content)
                (pixels,) = PixelsCoder(way.name, way.quality).decode(content[4:], height, width)
                decoded = time.perf_counter()
                word = network.answer(pixels)
            ended = time.perf_counter()
            said = {"queue": began - came, "decode": decoded - began, "edge graph": ended - decoded}
            time.sleep(half_s)
            connection.sendall(json.dumps(said | {"word": word}).encode() + b"\n")


def _device(setup: Setup) -> None:
    bundle = open_bundle(setup.bundle, trust=setup.trust)
    device = Device(bundle, setup.threads, stand_in=True)
    network = WholeNetwork(setup.bundle, setup.whole, setup.threads, trust=setup.trust)
    with socket.create_connection(("127.0.0.1", setup.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = connection.makefile("rb")
        for number, way in enumerate(setup.ways):
            pace, started = Pace(setup.link), time.perf_counter()
            order = [*setup.images[: setup.warmup], *setup.images]
            for place, image in enumerate(order):
                due = started + place * setup.every_ms / 1e3
                if setup.every_ms and (wait := due - time.perf_counter()) > 0:
                    time.sleep(wait)
                began = time.perf_counter()
                waited = began - due if setup.every_ms else 0.0
                content, marks = _encode(way, image, bundle, device, network, setup.beta)
                _send(connection, number, content, pace)
                said = json.loads(answers.readline())
                total = time.perf_counter() - began + waited
                word = said.pop("word")
                stages = dict(zip(STAGES, np.diff([began, *marks]).tolist(), strict=False))
                stages |= {name: float(value) for name, value in said.items()}
                stages["queue"] += waited
                stages["air"] = total - sum(stages.values())
                if place >= setup.warmup:
                    told = {"way": number, "image": image, "bytes": len(content), "word": word}
                    print(json.dumps(told | {"total": total, "stages": stages}), flush=True)


def _encode(
    way: Way,
    image: str,
    bundle: Any,
    device: Device,
    network: WholeNetwork,
    beta: float | None,
) -> tuple[bytes, list[float]]:
    """Return what is sent, and when preprocessing, device graph and coding ended, s."""
    if way.name == SPLIT:
        tensor = bundle.preprocessing.load(image)
        loaded = time.perf_counter()
        wire = device.wire_tensors(tensor)
        ran = time.perf_counter()
        content = bytes(device.compress(*(part[0] for part in wire), beta=beta))
    else:
        pixels = network.pixels(image)
        loaded = time.perf_counter()
        if way.name == WHOLE:
            content = network.answer(pixels).encode()
            ran = time.perf_counter()
        else:
            ran = loaded
            size = struct.pack("<HH", *pixels.shape[1:])
            content = size + PixelsCoder(way.name, way.quality).encode(pixels)
    return content, [loaded, ran, time.perf_counter()]


def _send(connection: socket.socket, number: int, content: bytes, pace: Pace) -> None:
    connection.sendall(_HEAD.pack(number, len(content)))
    link = pace.link
    assert link
    pace.keep(link.bytes_on_air(len(content)) - len(content), link.frames(len(content)))
    for piece in pace.pieces(content):
        pace.keep(len(piece))  # it arrives when the link has carried it
        connection.sendall(piece)


if __name__ == "__main__":
    {"edge": _edge, "device": _device}[sys.argv[1]](Setup.of_json(sys.argv[2]))
