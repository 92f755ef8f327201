"""The bundles that are served, by name and by the id in their streams; read again when replaced."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..bundle import Bundle, open_bundle
from ..bundle_layout import MANIFEST_NAME
from ..coding.stream import read_stream
from ..errors import ForeignStreamError, RequestError, SplitzooError, UnknownNameError
from ..halves import Edge, check_code
from ..machine import cores
from ..record import EdgeRecord
from .answers import Answer, Question
from .batches import TailRunner, Waiting
from .decoders import DecodingProcesses, DecodingThreads
from .metrics import Metrics
from .settings import Settings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A bundle to serve.

    Attributes:
        folder: Folder of the bundle.
        name: Name to serve it under; None takes its model's.
        trust: Whether its graphs are run whatever they hold.
    """

    folder: Path
    name: str | None = None
    trust: bool = False

    def mark(self) -> tuple[int, ...] | None:
        """Return what differs when the bundle is replaced; None where there is none."""
        try:
            found = (self.folder / MANIFEST_NAME).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class ServedModel:
    """A bundle with what runs it.

    Attributes:
        name: Name that it is served under.
        bundle: The bundle.
        runners: What answers, by tail.
        description: What ``/v1/models`` says of it.
    """

    def __init__(
        self, source: Source, settings: Settings, waiting: Waiting, metrics: Metrics
    ) -> None:
        """Open, load and try a bundle.

        Raises:
            SplitzooError: It cannot be opened, or does not answer the stream recorded in it.
        """
        self.bundle = bundle = open_bundle(source.folder, trust=source.trust)
        if not source.trust:
            check_code(bundle)
        self.name = source.name or bundle.name
        edges = {name: _open_edges(bundle, name, settings) for name in bundle.edge.tails}
        for name, opened in edges.items():
            record = EdgeRecord.load(bundle, name).stream
            for edge in opened:
                edge.predict(record)  # warm, and able to answer
        self.codec = next(iter(edges.values()))[0].codec
        self._decoders = (
            DecodingProcesses(bundle, settings.decoders, stand_in=settings.stand_in)
            if settings.decoders
            else DecodingThreads(next(iter(edges.values()))[0])
        )
        self.runners = {
            name: TailRunner(
                self.name, bundle, name, opened, self._decoders, settings, waiting, metrics
            )
            for name, opened in edges.items()
        }
        self.description = self._describe()
        self._working = 0
        self._retired = False

    @property
    def stream_id(self) -> str:
        """Id in the streams, 8 hexadecimal digits."""
        return self.bundle.manifest.coding.stream_id

    def runner(self, tail: str | None) -> TailRunner:
        """Return what answers for a tail.

        Raises:
            RequestError: None is named, and there are several.
            UnknownNameError: There is no such tail.
        """
        if tail is None:
            if len(self.runners) > 1:
                names = ", ".join(self.runners)
                raise RequestError(
                    f"{self.name} has several tails.", next_step=f"Name one with ?tail=: {names}."
                )
            return next(iter(self.runners.values()))
        if tail not in self.runners:
            names = ", ".join(self.runners)
            raise UnknownNameError("tail", tail, next_step=f"{self.name} has: {names}.")
        return self.runners[tail]

    def tail_label(self, tail: str | None) -> str:
        """Return the name of a tail for counters; empty where it is none."""
        if tail is None and len(self.runners) == 1:
            return next(iter(self.runners))
        return tail if tail in self.runners else ""

    async def answer(self, stream: bytes, tail: str | None, question: Question) -> Answer:
        """Answer one stream.

        Raises:
            BitstreamError: It is damaged, hostile or of another model.
            SplitzooError: What :meth:`runner` raises, or the bundle failed.
        """
        runner = self.runner(tail)
        payload = self.codec.unframe(stream)
        self._working += 1
        try:
            return await runner.submit(payload, question)
        finally:
            self._working -= 1
            if self._retired and not self._working:
                self.close()

    def _describe(self) -> dict[str, Any]:
        manifest = self.bundle.manifest
        height, width = manifest.preprocessing.crop
        return {
            "name": self.name,
            "stream_id": self.stream_id,
            "target": manifest.target,
            "precision": manifest.precision,
            "weights": manifest.provenance.weights,
            "tails": {
                name: {
                    "task": manifest.task_of(manifest.edge.tails[name]),
                    "engine": runner.edge.graph.engine,
                    "classes": len(self.bundle.labels(manifest.edge.tails[name])),
                    "batch": runner.batch,
                }
                for name, runner in self.runners.items()
            },
            "input": {"height": height, "width": width, "latent": list(manifest.coding.shape)},
        }

    def retire(self) -> None:
        """Close when all that it is at work on is answered."""
        self._retired = True
        if not self._working:
            self.close()

    def close(self) -> None:
        """End its threads and processes."""
        for runner in self.runners.values():
            runner.close()
        self._decoders.close()


class Models:
    """All models of a server.

    Args:
        sources: Bundles to serve.

    Raises:
        SplitzooError: One cannot be served, or two have one name.
    """

    def __init__(self, sources: Sequence[Source], settings: Settings, metrics: Metrics) -> None:
        self._settings, self._metrics = settings, metrics
        self.waiting = Waiting(settings.max_queue, metrics)
        self._marks = [source.mark() for source in sources]
        self._sources = list(sources)
        self._served = [self._open(source) for source in sources]
        self._failed: set[tuple[int, object]] = set()
        names = [model.name for model in self._served]
        for name in names:
            if names.count(name) > 1:
                raise RequestError(
                    f"Two bundles have the name {name}.",
                    next_step="Give one another: splitrun serve NAME=BUNDLE …",
                )

    def __iter__(self):
        return iter(self._served)

    def named(self, name: str) -> ServedModel:
        """Return the model of a name or id.

        Raises:
            UnknownNameError: There is none.
        """
        for model in self._served:
            if name == model.name:
                return model
        for model in self._served:
            if name == model.stream_id:
                return model
        names = ", ".join(model.name for model in self._served)
        raise UnknownNameError("model", name[:200], next_step=f"Here are: {names}.")

    def of_stream(self, stream: bytes) -> ServedModel:
        """Return the model that a stream is of; of several bundles of it, the first.

        Raises:
            BitstreamError: The stream is damaged, or of none.
        """
        stream_id = read_stream(stream).stream_id.hex()
        for model in self._served:
            if model.stream_id == stream_id:
                return model
        served = ", ".join(f"{model.stream_id} ({model.name})" for model in self._served)
        raise ForeignStreamError(
            f"The stream is of model {stream_id}; here are {served}.",
            next_step="Send it to the server of the bundle that wrote it.",
        )

    async def watch(self) -> None:
        """Look at the folders now and then, and read those again that were replaced."""
        while self._settings.watch_s:
            await asyncio.sleep(self._settings.watch_s)
            await self.reload(changed_only=True)

    async def reload(self, *, changed_only: bool = False) -> None:
        """Read bundles again; those that cannot be read stay as they are.

        Args:
            changed_only: Leave out those whose manifest is the same file as before.
        """
        for place, source in enumerate(self._sources):
            mark = source.mark()
            if changed_only and mark in (None, self._marks[place]):
                continue
            try:
                model = await asyncio.to_thread(self._open, source)
                others = [*self._served[:place], *self._served[place + 1 :]]
                if model.name in {other.name for other in others}:
                    model.close()
                    raise RequestError(f"Another bundle has the name {model.name} already.")
            except (SplitzooError, OSError) as error:
                # While files are still being copied, it is tried again, and said once.
                if (place, mark) not in self._failed:
                    self._failed.add((place, mark))
                    self._metrics.reloads.labels("failed").inc()
                    said = str(error).replace("\n", " ")
                    _LOG.error("%s stays as it was: %s", self._served[place].name, said)
                continue
            old, self._served[place] = self._served[place], model
            self._marks[place] = mark
            self._failed.clear()
            old.retire()
            self._metrics.reloads.labels("read").inc()
            _LOG.info("%s was read again: model %s", model.name, model.stream_id)

    def close(self) -> None:
        """End all of them."""
        for model in self._served:
            model.close()

    def _open(self, source: Source) -> ServedModel:
        return ServedModel(source, self._settings, self.waiting, self._metrics)


def _open_edges(bundle: Bundle, tail: str, settings: Settings) -> list[Edge]:
    """Open a tail as often as it is to run at once; an engine that threads may share, once."""
    shared = bundle.tail(tail).graph.engine == "onnxruntime"
    count = settings.instances or (cores() if shared else 1)
    # Each run has one thread where there are several, which then do not wait for one another.
    threads = settings.threads or (1 if count > 1 else 0)

    def opened() -> Edge:
        return Edge(bundle, threads, tail=tail, stand_in=settings.stand_in)

    return [opened()] * count if shared else [opened() for _ in range(count)]
