"""The bundles that a server runs by itself, read again when they are replaced."""

import asyncio
import logging
from collections.abc import Sequence

from ..bundle import Bundle
from ..errors import RequestError, SplitzooError
from ..halves import Edge
from ..machine import cores
from ..record import EdgeRecord
from .answers import Answer
from .batches import TailRunner, Waiting
from .decoders import DecodingProcesses, DecodingThreads
from .metrics import Metrics
from .named_models import ModelList, NamedModel, Source
from .questions import Question
from .settings import Settings

_LOG = logging.getLogger(__name__)


class ServedModel(NamedModel):
    """A bundle with what runs it here.

    Attributes:
        runners: What answers, by tail.
    """

    def __init__(
        self, source: Source, settings: Settings, waiting: Waiting, metrics: Metrics
    ) -> None:
        """Open, load and try a bundle.

        Raises:
            SplitzooError: It cannot be opened, or does not answer the stream recorded in it.
        """
        super().__init__(source, settings)
        bundle = self.bundle
        edges = {name: _open_edges(bundle, name, settings) for name in self.tails}
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
                self, name, opened, self._decoders, settings.max_delay_ms, waiting, metrics
            )
            for name, opened in edges.items()
        }
        self._working = 0
        self._retired = False

    async def answer(self, stream: bytes, tail: str | None, question: Question) -> Answer:
        """Answer one stream; see :meth:`NamedModel.answer`."""
        runner = self.runners[self.tail_name(tail)]
        payload = self.codec.unframe(stream)
        self._working += 1
        try:
            return await runner.submit(payload, question)
        finally:
            self._working -= 1
            if self._retired and not self._working:
                self.close()

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


class Models(ModelList[ServedModel]):
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
        super().__init__([self._open(source) for source in sources])
        self._failed: set[tuple[int, object]] = set()

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
