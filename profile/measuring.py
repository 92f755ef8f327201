"""Samples measured one by one, here or in several processes; results come in the samples' order."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from splitrun.errors import ImageError, ReportError, SplitzooError, UsageError
from splitrun.worker_processes import begin_worker, starting_workers

from ..zoo.datasets import Sample
from .accuracy_report import ImageResult
from .subjects import Subject

_Result = TypeVar("_Result")
Measured = Iterator[tuple[Sample, ImageResult | ImageError]]
"""Samples, each with its result, or why its image cannot be used."""

_AHEAD = 4
"""Samples that each reader or process may be ahead."""


def reopening(subject: Subject) -> Callable[[], Subject]:
    """Return what opens a subject in another process.

    Raises:
        UsageError: It is in the memory of this process alone.
    """
    if subject.reopen is None:
        raise UsageError(
            f"{subject.spec.name} is in the memory of this process alone, so that others cannot "
            "measure it.",
            next_step="Save it, and name its folder; or take one process.",
        )
    return subject.reopen


def measure_here(subject: Subject, samples: Sequence[Sample], workers: int) -> Measured:
    """Measure samples, whose images so many threads read."""

    def read(sample: Sample) -> NDArray[np.float32] | ImageError:
        return _read(subject, sample)

    if workers < 1:
        for sample in samples:
            yield sample, _measure(subject, sample, read(sample))
        return
    with ThreadPoolExecutor(workers) as pool:

        def submit(sample: Sample) -> Future[NDArray[np.float32] | ImageError]:
            return pool.submit(read, sample)

        try:
            for sample, image in _in_order(submit, samples, workers):
                yield sample, _measure(subject, sample, image)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def measure_apart(
    subject: Subject, samples: Sequence[Sample], processes: int, threads: int
) -> Measured:
    """Measure samples in so many processes, each with so many threads, and its own subject.

    Args:
        subject: Subject that can be opened again.
        samples: Samples to measure.
        processes: Number of processes; each reads its images itself.
        threads: Number of threads of PyTorch in each.

    Raises:
        UsageError: The subject is in the memory of this process alone.
        ReportError: A process ended, or opened another model than ``subject``.
        SplitzooError: What a process raised.
    """
    context = multiprocessing.get_context("spawn")  # a fork would share the threads of engines
    opening = (reopening(subject), threads, _identity(subject))
    processes = max(min(processes, len(samples)), 1)
    others = multiprocessing.active_children()
    try:
        with ProcessPoolExecutor(processes, context, _open, opening) as pool:

            def submit(sample: Sample) -> Future[ImageResult | ImageError]:
                with starting_workers():
                    return pool.submit(_measure_opened, sample)

            try:
                yield from _in_order(submit, samples, processes)
            except BaseException:  # what they are at is not waited for
                for process in set(multiprocessing.active_children()) - set(others):
                    process.kill()
                raise
    except BrokenProcessPool as error:
        raise ReportError(
            "A process that measured images ended before its time.",
            next_step="It may have had too little memory: each holds the model. Start fewer.",
        ) from error


def _in_order(
    submit: Callable[[Sample], Future[_Result]], samples: Sequence[Sample], workers: int
) -> Iterator[tuple[Sample, _Result]]:
    """Give samples in order, each with its result, which is computed a few samples ahead."""
    waiting: deque[tuple[Sample, Future[_Result]]] = deque()
    for sample in samples:
        waiting.append((sample, submit(sample)))
        if len(waiting) > workers * _AHEAD:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


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


def _identity(subject: Subject) -> tuple[str, str]:
    return subject.facts.model_id, subject.predictions


_opened: list[Subject | SplitzooError] = []
"""The subject of this process, one of several, or why it has none."""


def _open(reopen: Callable[[], Subject], threads: int, identity: tuple[str, str]) -> None:
    begin_worker()
    torch.set_num_threads(threads)
    try:
        subject = reopen()
        if _identity(subject) != identity:
            raise ReportError(
                f"{subject.spec.name} was changed while it was measured: other weights or "
                "predictions are there now.",
                next_step="Measure again.",
            )
    except SplitzooError as error:  # raised with the first sample, since the pool loses it here
        _opened[:] = [error]
    else:
        _opened[:] = [subject]


def _measure_opened(sample: Sample) -> ImageResult | ImageError:
    (subject,) = _opened
    if isinstance(subject, SplitzooError):
        raise subject
    return _measure(subject, sample, _read(subject, sample))
