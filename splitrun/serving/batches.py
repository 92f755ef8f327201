"""Streams that wait are decoded one by one, and run through the edge graph several at once."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from ..errors import BusyError, SplitzooError
from ..halves import Edge, Tensors
from .answers import Answer, answer
from .decoders import Decoders, Payload
from .metrics import Metrics
from .named_models import NamedModel
from .questions import Question

Result = Answer | BaseException


class Waiting:
    """The streams of a server that wait or are in work; used by the thread of its event loop alone.

    Args:
        limit: Most of them.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit, self._count, self._metrics = limit, 0, metrics
        self._seconds_each = 0.01
        self._last = time.monotonic()

    def check_room(self, streams: int = 1) -> None:
        """Raise ``BusyError`` where so many more are too many."""
        if self._count + streams > self._limit:
            seconds = min(max(round(self._count * self._seconds_each), 1), 60)
            raise BusyError(
                f"{self._count} streams wait; at most {self._limit} may.", retry_after=seconds
            )

    def add(self, streams: int) -> None:
        """Count streams that come, or with a minus sign those that were answered."""
        if streams < 0 and self._count:
            now = time.monotonic()
            each = (now - self._last) / -streams
            self._seconds_each += 0.05 * (min(each, 1) - self._seconds_each)
            self._last = now
        elif not self._count:
            self._last = time.monotonic()
        self._count += streams
        self._metrics.queue.set(self._count)


@dataclass
class _Job:
    payload: Payload
    question: Question
    future: "asyncio.Future[Answer]"
    received: float = field(default_factory=time.perf_counter)
    inputs: Tensors = ()
    decode_s: float = 0


class TailRunner:
    """Answers the streams of one tail of a bundle.

    Args:
        model: Model that the tail is of.
        tail: Name of the tail.
        decoders: What decodes; several tails may share them.
        max_delay_ms: Longest time that a stream waits for others, ms.
        waiting: Count of the server's streams.
    """

    def __init__(
        self,
        model: NamedModel,
        tail: str,
        edges: Sequence[Edge],
        decoders: Decoders,
        max_delay_ms: float,
        waiting: Waiting,
        metrics: Metrics,
    ) -> None:
        self._model, self._tail = model, tail
        self._batch = model.batch(tail)
        self._decoders = decoders
        self._delay_s = max_delay_ms / 1000
        self._waiting, self._metrics = waiting, metrics
        labels = model.name, tail
        self._batch_size = metrics.batch_size.labels(*labels)
        self._queue_seconds = metrics.queue_seconds.labels(*labels)
        self._decode_seconds = metrics.decode_seconds.labels(*labels)
        self._graph_seconds = metrics.graph_seconds.labels(*labels)
        self._ready: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, args=(edge,), name=f"edge {tail}", daemon=True)
            for edge in edges
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, payload: Payload, question: Question) -> "asyncio.Future[Answer]":
        """Take a stream's payload; the future gets its answer or error.

        Raises:
            BusyError: Too many wait.
        """
        self._waiting.check_room()
        job = _Job(payload, question, asyncio.get_running_loop().create_future())
        decoding = self._decoders.submit(payload)
        self._waiting.add(1)
        decoding.add_done_callback(partial(self._decoded, job))
        return job.future

    def close(self) -> None:
        """End the threads when what is ready has been answered."""
        for _ in self._threads:
            self._ready.put(None)

    def _decoded(self, job: _Job, decoding: "Future[tuple[Tensors, float]]") -> None:
        if decoding.cancelled():  # the model was closed before its turn came
            self._deliver([(job, BusyError("The server ends.", 503))])
            return
        error = decoding.exception()
        if error is not None:
            self._deliver([(job, error)])
            return
        job.inputs, job.decode_s = decoding.result()
        self._ready.put(job)

    def _run(self, edge: Edge) -> None:
        while (first := self._ready.get()) is not None:
            jobs, until = [first], time.monotonic() + self._delay_s
            while len(jobs) < self._batch:
                try:
                    job = self._ready.get(timeout=max(until - time.monotonic(), 0))
                except queue.Empty:
                    break
                if job is None:
                    self._ready.put(None)
                    break
                jobs.append(job)
            self._deliver(self._answers(edge, jobs))

    def _answers(self, edge: Edge, jobs: list[_Job]) -> list[tuple[_Job, Result]]:
        began = time.perf_counter()
        try:
            outputs = edge.graph.together([job.inputs for job in jobs])
        except Exception as error:  # noqa: BLE001  # told to who waits, whatever it is
            if len(jobs) == 1:
                return [(jobs[0], error)]
            # What one of them broke, the others did not.
            return [pair for job in jobs for pair in self._answers(edge, [job])]
        graph_s = time.perf_counter() - began
        self._batch_size.observe(len(jobs))
        self._graph_seconds.observe(graph_s)
        results: list[tuple[_Job, Result]] = []
        for place, job in enumerate(jobs):
            own = [tensor[place : place + 1] for tensor in outputs]
            queue_s = max(began - job.received - job.decode_s, 0)
            self._queue_seconds.observe(queue_s)
            self._decode_seconds.observe(job.decode_s)
            spent = {"queue": queue_s, "decode": job.decode_s, "graph": graph_s}
            spent["total"] = time.perf_counter() - job.received
            timing_ms = {step: 1e3 * seconds for step, seconds in spent.items()}
            try:
                said: Result = answer(
                    self._model.name,
                    self._model.bundle,
                    edge,
                    self._tail,
                    own,
                    job.question,
                    timing_ms,
                )
            except Exception as error:  # noqa: BLE001  # told to who waits, whatever it is
                said = error
            results.append((job, said))
        return results

    def _deliver(self, results: list[tuple[_Job, Result]]) -> None:
        """Hand results to the event loop, from another thread."""
        loop = results[0][0].future.get_loop()
        call: Callable[[], object] = partial(self._hand_over, results)
        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop was closed: nobody waits
            return

    def _hand_over(self, results: list[tuple[_Job, Result]]) -> None:
        self._waiting.add(-len(results))
        for job, result in results:
            if job.future.done():  # who asked waits no more
                continue
            if isinstance(result, Answer):
                job.future.set_result(result)
            else:
                job.future.set_exception(_told(result))


def _told(error: BaseException) -> Exception:
    if isinstance(error, SplitzooError):
        return error
    told = SplitzooError(f"The server failed: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told
