"""Streams of one runtime's device half in another's edge half, each runtime in its own process.

A device half makes a stream of each image once. Images go in groups of eight, and each group has
settings of its own: images at a time, threads, and who keeps the stack of the payload, on both
sides. An edge half reads every stream in its group's settings; streams that several devices made
byte by byte alike, it reads once.
"""

import hashlib
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from splitrun.bundle import open_bundle
from splitrun.coding import Codec, ans, constriction_ans, plain_ans
from splitrun.engines import open_session
from splitrun.engines.base import Session
from splitrun.errors import BitstreamError
from splitrun.halves import Device, Edge
from splitzoo.zoo import catalog

Tensors = Sequence[NDArray[Any]]

GROUP = 8
_BATCHES = (1, GROUP)
_THREADS = (1, 2, 4)
_CODERS = {"constriction": constriction_ans, "plain": plain_ans}
_PLAIN_EVERY = 7
"""One group in so many is coded by the plain-Python coder on the device, another on the edge."""


@dataclass(frozen=True)
class Setting:
    """How a half runs a group of images.

    Attributes:
        coder: What keeps the stack: ``"constriction"`` or ``"plain"``.
        threads: Threads of the engine.
        batch: Images at a time.
    """

    coder: str
    threads: int
    batch: int


def device_setting(group: int) -> Setting:
    """Return how device halves run a group, by its number."""
    coder = "plain" if group % _PLAIN_EVERY == 0 else "constriction"
    return Setting(coder, _THREADS[group // 2 % 3], _BATCHES[group % 2])


def edge_setting(group: int) -> Setting:
    """Return how edge halves run a group, by its number; never plain where the device's is."""
    coder = "plain" if group % _PLAIN_EVERY == _PLAIN_EVERY // 2 else "constriction"
    return Setting(coder, _THREADS[group // 12 % 3], _BATCHES[group // 6 % 2])


@dataclass(frozen=True)
class Half:
    """One half of a runtime.

    Attributes:
        runtime: Name of the runtime.
        bundle: Folder of a bundle, or of a model for eager PyTorch.
        eager: Whether PyTorch runs the model itself.
        engine: Engine of ``graph``.
        graph: File that the edge runs in place of the bundle's.
        hint: Precision that the engine computes ``graph`` in.
    """

    runtime: str
    bundle: Path
    eager: bool = False
    engine: str = ""
    graph: Path | None = None
    hint: str = ""


@dataclass(frozen=True)
class Sending:
    """A device half's work.

    Attributes:
        half: The half.
        images: ``.npy`` file of all images, preprocessed.
        output: File to write, of a :class:`Sent`.
    """

    half: Half
    images: Path
    output: Path


@dataclass(frozen=True)
class Sent:
    """What a device half made of each image.

    Attributes:
        streams: The streams.
        latents: Digest of what the edge is to receive.
        integers: Wire tensors that the device rounds, (N, …), by name.
    """

    streams: list[bytes]
    latents: list[bytes]
    integers: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Reading:
    """An edge half's work: the streams of all device halves, by the names of their runtimes."""

    half: Half
    sent: dict[str, Path]


@dataclass(frozen=True)
class Read:
    """What an edge half made of them.

    Attributes:
        runtime: Name of the runtime.
        version: Name and version of the engine.
        read: Number of streams that it read.
        run: Number of latents that its graph ran on.
        lost: Number of images lost, by the device's runtime.
        reason: Why the process gave nothing; empty where it did.
    """

    runtime: str
    version: str = ""
    read: int = 0
    run: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    reason: str = ""


def digest(latent: NDArray[Any]) -> bytes:
    """Return what tells two latents apart, by their bytes."""
    return hashlib.sha256(np.ascontiguousarray(latent).tobytes()).digest()[:12]


class _Half(Protocol):
    """A half in one setting of threads and coder."""

    codec: Codec
    names: Sequence[str]
    version: str

    def send(self, images: NDArray[np.float32]) -> Tensors: ...

    def receive(self, stream: bytes) -> Tensors: ...

    def run(self, batch: Tensors) -> None: ...


class _Eager:
    def __init__(self, half: Half, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self._torch, self._model = torch, catalog.load(str(half.bundle)).eval()
        self.codec = self._model.codec
        self.names = self._model.bottleneck.wire_names
        self.version = f"torch {torch.__version__.partition('+')[0]}"

    def send(self, images: NDArray[np.float32]) -> Tensors:
        return self._model.wire_tensors(images)

    def receive(self, stream: bytes) -> Tensors:
        return self.codec.decompress(stream, self._model.hyper_decode)

    def run(self, batch: Tensors) -> None:
        tensors = (self._torch.from_numpy(np.asarray(tensor)) for tensor in batch)
        with self._torch.no_grad():
            self._model.decoder(self._model.bottleneck.from_wire(*tensors))


class _Exported:
    def __init__(self, half: Half, threads: int) -> None:
        bundle = open_bundle(half.bundle)
        self._device, self._edge = Device(bundle, threads), Edge(bundle, threads)
        self.codec, self._graph = self._device.codec, self._edge.graph
        self.names = [info.name for info in self._device.graph.info.outputs]
        self.version = self._device.graph.engine
        self._lower: Session | None = None
        if half.graph:
            self._lower = open_session(half.engine, half.graph, threads, half.hint)
            self.version = self._lower.version

    def send(self, images: NDArray[np.float32]) -> Tensors:
        return self._device.wire_tensors(images)

    def receive(self, stream: bytes) -> Tensors:
        return tuple(tensor[0] for tensor in self._edge.decompress(stream))

    def run(self, batch: Tensors) -> None:
        if self._lower is None:
            self._graph(batch)
            return
        info = self._graph.info
        given = {one.name: tensor for one, tensor in zip(info.inputs, batch, strict=True)}
        self._lower.run(given, [one.name for one in info.outputs])


def _by_setting(groups: int, setting: Any, half: Half) -> Iterator[tuple[int, Setting, _Half]]:
    """Open the half anew for each coder and number of threads, and give the groups of both."""

    def kind(group: int) -> tuple[str, int]:
        return setting(group).coder, setting(group).threads

    for (coder, threads), numbers in groupby(sorted(range(groups), key=kind), key=kind):
        ans.BACKEND = _CODERS[coder]
        opened = (_Eager if half.eager else _Exported)(half, threads)
        for number in numbers:
            yield number, setting(number), opened


def make_streams(work: Sending) -> str:
    """Make a stream of each image, and write the file; return why not, or nothing."""
    images = np.load(work.images, mmap_mode="r")
    streams: list[bytes] = [b""] * len(images)
    latents = streams.copy()
    integers: dict[str, NDArray[Any]] = {}
    groups = -(-len(images) // GROUP)
    for group, setting, half in _by_setting(groups, device_setting, work.half):
        end = min((group + 1) * GROUP, len(images))
        for first in range(group * GROUP, end, setting.batch):
            batch = np.array(images[first : min(first + setting.batch, end)])
            wire = dict(zip(half.names, half.send(batch), strict=True))
            for name, tensor in wire.items():
                if tensor.dtype.kind in "iu" and name != "indexes":
                    shape = len(images), *tensor.shape[1:]
                    whole = integers.setdefault(name, np.empty(shape, tensor.dtype))
                    whole[first : first + len(batch)] = tensor
            for place, tensors in enumerate(zip(*wire.values(), strict=True), first):
                streams[place] = half.codec.compress(*tensors)
                latents[place] = digest(half.codec.coder.decoded(*tensors)[0])
    with work.output.open("wb") as file:
        pickle.dump(Sent(streams, latents, integers), file)
    return ""


def load_sent(path: Path) -> Sent:
    """Return what :func:`make_streams` wrote."""
    with path.open("rb") as file:
        return pickle.load(file)  # written by a process of ours


def read_streams(work: Reading) -> Read:
    """Read the streams of all device halves, and run the graph on some of what they give."""
    sent = {name: load_sent(path) for name, path in work.sent.items()}
    count = len(next(iter(sent.values())).streams)
    lost, read, run, version = dict.fromkeys(sent, 0), 0, 0, ""
    groups = -(-count // GROUP)
    for group, setting, half in _by_setting(groups, edge_setting, work.half):
        version, batch = half.version, []
        for place in range(group * GROUP, min((group + 1) * GROUP, count)):
            received: dict[bytes, bytes] = {}
            for name, one in sent.items():
                stream = one.streams[place]
                if stream not in received:
                    read += 1
                    try:
                        tensors = half.receive(stream)
                    except BitstreamError:
                        received[stream] = b""
                    else:
                        received[stream] = digest(tensors[0])
                        batch += [tensors] * (len(received) == 1)
                lost[name] += received[stream] != one.latents[place]
        for first in range(0, len(batch) if setting.batch > 1 else min(1, len(batch)), GROUP):
            some = batch[first : first + setting.batch]
            half.run([np.stack(tensors) for tensors in zip(*some, strict=True)])
            run += len(some)
    return Read(work.half.runtime, version, read, run, lost)
