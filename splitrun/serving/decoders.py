"""Entropy decoding beside the engine: in threads of the server, or in processes of its own.

Decoding holds Python's lock, so threads decode on one core, whatever their number; what they give
lies ready in memory. Processes decode on as many cores as there are, and hand the tensors through a
pipe. ``benchmarks/serving.py`` measures both.
"""

import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from ..bundle import Bundle
from ..errors import BundleError
from ..halves import StreamReader, Tensors
from ..worker_processes import begin_worker, starting_workers

Payload = tuple[bytes, int, int]
"""A stream's payload, and its latent's height and width."""

_THREADS = 2


class Decoders(Protocol):
    """Workers that decode payloads."""

    def submit(self, payload: Payload) -> "Future[tuple[Tensors, float]]":
        """Decode a payload into the edge graph's inputs, and say in how many seconds."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class DecodingThreads:
    """Decoders that are threads."""

    def __init__(self, reader: StreamReader) -> None:
        self._reader = reader
        self._pool = ThreadPoolExecutor(_THREADS, "decoder")

    def submit(self, payload: Payload) -> "Future[tuple[Tensors, float]]":
        """Decode a payload; see :class:`Decoders`."""
        return self._pool.submit(_decode, self._reader, payload)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class DecodingProcesses:
    """Decoders that are processes, each with the tables of the bundle."""

    def __init__(self, bundle: Bundle, count: int, *, stand_in: bool = False) -> None:
        self._count, self._opening = count, (bundle, stand_in)
        try:
            for begun in self._start():
                begun.result()
        except BrokenProcessPool as error:
            raise BundleError("The processes that decode do not start.") from error

    def submit(self, payload: Payload) -> "Future[tuple[Tensors, float]]":
        """Decode a payload; see :class:`Decoders`."""
        try:
            return self._pool.submit(_decode_here, payload)
        except BrokenProcessPool:
            # One was killed, perhaps for its memory: what it was at is lost, and others begin.
            self._start()
            return self._pool.submit(_decode_here, payload)

    def _start(self) -> list[Future[int]]:
        """Start all processes, each with a task."""
        # Forked, a process would hold locks of threads that it has not.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self._count, context, _open_reader, self._opening)
        with starting_workers():
            return [self._pool.submit(os.getpid) for _ in range(self._count)]

    def close(self) -> None:
        """End the processes."""
        # Waited for: the end of Python would close their pipes under the thread that ends them.
        self._pool.shutdown(wait=True, cancel_futures=True)


_readers: list[StreamReader] = []


def _open_reader(bundle: Bundle, stand_in: bool) -> None:
    begin_worker()
    _readers.append(StreamReader(bundle, 1, stand_in=stand_in))


def _decode_here(payload: Payload) -> tuple[Tensors, float]:
    return _decode(_readers[0], payload)


def _decode(reader: StreamReader, payload: Payload) -> tuple[Tensors, float]:
    began = time.perf_counter()
    tensors = reader.decode_payload(*payload)
    return tensors, time.perf_counter() - began
