"""Samples measured one by one, here or in several processes; results come in the samples' order."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from splitrun.errors import ImageError, ReportError, UsageError

from ..zoo.datasets import Sample
from .accuracy_report import ImageResult
from .subjects import Subject

_Result = TypeVar("_Result")
Measured = Iterator[tuple[Sample, ImageResult | ImageError]]
"""Samples, each with its result, or why its image cannot be used."""

_AHEAD = 4
"""Samples that each reader or process may be ahead."""


def measure_here(subject: Subject, samples: Sequence[Sample], workers: int) -> Measured:
    """Measure samples, whose images so many threads read."""

    def read(sample: Sample) -> NDArray[np.float32] | ImageError:
        return _read(subject, sample)

    if workers < 1:
        for sample in samples:
            yield sample, _measure(subject, sample, read(sample))
        return
    with ThreadPoolExecutor(workers) as pool:
        for sample, image in _in_order(pool, read, samples, workers):
            yield sample, _measure(subject, sample, image)


def measure_apart(
    subject: Subject, samples: Sequence[Sample], processes: int, threads: int
) -> Measured:
    """Measure samples in so many processes, each with so many threads, and its own subject.

    Raises:
        UsageError: The subject cannot be opened again.
        ReportError: A process ended.
    """
    if subject.reopen is None:
        raise UsageError(
            f"{subject.spec.name} is in the memory of this process alone, so that others cannot "
            "measure it.",
            next_step="Save it, and name its folder; or take one process.",
        )
    context = multiprocessing.get_context("spawn")  # a fork would share the threads of engines
    opening = (subject.reopen, threads)
    processes = max(min(processes, len(samples)), 1)
    try:
        with ProcessPoolExecutor(processes, context, _open, opening) as pool:
            yield from _in_order(pool, _measure_opened, samples, processes)
    except BrokenProcessPool as error:
        raise ReportError(
            "A process that measured images ended before its time.",
            next_step="With too little memory, start fewer: --processes 1",
        ) from error


def _in_order(
    pool: Executor, function: Callable[[Sample], _Result], samples: Sequence[Sample], workers: int
) -> Iterator[tuple[Sample, _Result]]:
    """Give samples in order with what a function of them returns, computed a few samples ahead."""
    waiting: deque[tuple[Sample, Future[_Result]]] = deque()
    try:
        for sample in samples:
            waiting.append((sample, pool.submit(function, sample)))
            if len(waiting) > workers * _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _read(subject: Subject, sample: Sample) -> NDArray[np.float32] | ImageError:
    try:
        return subject.read(sample)
    except ImageError as error:
        return error


def _measure(
    subject: Subject, sample: Sample, image: NDArray[np.float32] | ImageError
) -> ImageResult | ImageError:
    if isinstance(image, ImageError):
        return image
    rate, result = subject.measure(sample, image)
    return ImageResult(rate=rate, result=result)


_opened: list[Any] = []
"""The subject of this process, one of several."""


def _open(reopen: Callable[[], Subject], threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one stops it
    torch.set_num_threads(threads)
    _opened[:] = [reopen()]


def _measure_opened(sample: Sample) -> ImageResult | ImageError:
    (subject,) = _opened
    return _measure(subject, sample, _read(subject, sample))
