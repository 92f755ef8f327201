"""Accuracy and bytes over a data set, image by image, through the real bitstream.

Section 3.1 of the SC2 paper (TMLR 2023): accuracy after the bottleneck was quantised, bytes per
image, encoder size.
"""

import contextlib
import datetime
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import torch
from pydantic import ValidationError

from splitrun.errors import DatasetError, ImageError, ReportError
from splitrun.image_files import Unread
from splitrun.images.codecs import IMAGE_CODECS
from splitrun.machine import machine
from splitrun.signals import check_stopped
from splitrun.text import visible

from .. import __version__
from ..progress import SILENT, Progress
from ..zoo.datasets import Dataset, digest, labels_of
from ..zoo.metrics import ClassResult, scores
from ..zoo.spec import ModelSpec
from .accuracy_report import AccuracyReport, DataFacts, ImageResult
from .measuring import measure_apart, measure_here, reopening
from .paired import PairedScores, pair
from .rate import COUNTED_BY_SC2BENCH, UNCOUNTED_BY_SC2BENCH, summarise
from .report import Distribution, skipped_parts
from .subjects import Subject


def evaluate(
    subject: Subject,
    dataset: Dataset,
    data: Path,
    *,
    workers: int = 1,
    threads: int = 1,
    processes: int = 1,
    keep: Path | None = None,
    against: Subject | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> tuple[AccuracyReport, list[ImageResult]]:
    """Measure accuracy and bytes over a data set, through the real bitstream.

    Args:
        subject: Model, bundle, or predictions.
        dataset: Images and what is on them.
        data: Folder of the data set, for the report.
        workers: Threads that read images, where one process measures.
        threads: Number of threads of PyTorch. With another number, sums are taken in another
            order, and now and then a symbol is rounded the other way: bytes are reproducible for
            the same number only.
        processes: Number of processes that share the images, with so many threads each. Results
            are those of one process.
        keep: File for results as they come; an evaluation of the same subject and data that finds
            it goes on from there. The caller removes it once the report is saved.
        against: Classifier to compare with, image by image.
        command: Command line that the report names as its origin.
        progress: Progress to report to.

    Returns:
        The report, and the result of each image in the data set's order.

    Raises:
        DatasetError: No image could be used, or the data set has a class that the model lacks.
        ReportError: A model that is no classifier is to be compared; or one of several processes
            ended, or found another model.
        UsageError: Several processes are to open a model that is in this one's memory alone.
    """
    if processes > 1:  # said before an image is measured
        for one in filter(None, (subject, against)):
            reopening(one)
    spec, facts = subject.spec, subject.facts
    samples = subject.samples(dataset.samples)
    data_sha256 = digest(samples)
    words = (
        facts.subject,
        facts.runtime,
        facts.model_id,
        subject.predictions,
        spec.model_dump_json(),
    )
    content = "\n".join((*words, data_sha256))
    store = _Store(keep, hashlib.sha256(content.encode()).hexdigest())
    done = store.read()
    with_prediction = {sample.name for sample in samples}
    unread = [
        Unread(sample.name, "it has no prediction")
        for sample in dataset.samples
        if sample.name not in with_prediction
    ]
    missing = [sample for sample in samples if sample.name not in done]
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with store.open(list(done.values())):
            if processes > 1:
                measured = measure_apart(subject, missing, processes, threads)
            else:
                measured = measure_here(subject, missing, workers)
            for sample, image in progress.track(
                measured, "images", total=len(samples), done=len(done)
            ):
                check_stopped()
                if isinstance(image, ImageError):
                    unread.append(Unread(sample.name, image.reason))
                    continue
                done[sample.name] = image
                store.add(image)
    finally:
        torch.set_num_threads(threads_before)
    images = [done[sample.name] for sample in samples if sample.name in done]
    if not images:
        raise DatasetError(f"None of {len(samples)} images could be used: {unread[-1].reason}.")
    paired = None
    if against is not None:
        used = replace(dataset, samples=[one for one in samples if one.name in done])
        others: dict[str, Any] = {"workers": workers, "threads": threads, "processes": processes}
        their_report, theirs = evaluate(against, used, data, progress=progress, **others)
        paired = _pair(images, theirs, their_report)
    rates = [image.rate for image in images]
    height, width = spec.preprocessing.crop
    left_out = []
    if facts.subject == "model" and spec.bottleneck.kind not in COUNTED_BY_SC2BENCH:
        left_out = [UNCOUNTED_BY_SC2BENCH]
    elif summarise(rates, "sc2bench_bytes") is None:
        left_out = ["bytes as sc2bench counts"]
    described: dict[str, Any] = vars(facts)
    report = AccuracyReport(
        spec=spec,
        **described,
        data=DataFacts(
            folder=visible(data.resolve().name, keep=""),
            images=len(images),
            classes=len(dataset.labels or labels_of(spec)),
            sha256=data_sha256,
            empty_classes=tuple(dataset.empty),
        ),
        scores=scores(spec.task, [image.result for image in images], spec.num_classes),
        paired=paired,
        payload_bytes=Distribution.of([rate.payload_bytes for rate in rates]),
        stream_bytes=Distribution.of([rate.stream_bytes for rate in rates]),
        bits_per_pixel=Distribution.of(
            [8 * rate.stream_bytes / (height * width) for rate in rates]
        ),
        estimated_bits=summarise(rates, "estimated_bits"),
        sc2bench_bytes=summarise(rates, "sc2bench_bytes"),
        **skipped_parts([*unread, *dataset.unread]),
        not_measured=left_out,
        environment=machine() | {"splitzoo": __version__} | _programs(spec),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        command=command,
    )
    return report, images


def _pair(
    ours: Sequence[ImageResult], theirs: Sequence[ImageResult], report: AccuracyReport
) -> PairedScores:
    results = [[image.result for image in images] for images in (ours, theirs)]
    if not all(isinstance(one, ClassResult) for side in results for one in side):
        raise ReportError("Only classifiers are compared image by image.")
    right = [[one.correct for one in side] for side in results]  # pyright: ignore[reportAttributeAccessIssue]
    return pair(*right, against=report.spec.name, model_id=report.model_id)


def _programs(spec: ModelSpec) -> dict[str, str]:
    """Return the programs that code the images of a model, and their versions."""
    codec = getattr(spec.bottleneck, "codec", "")
    return IMAGE_CODECS.get(codec).versions() if codec in IMAGE_CODECS else {}


class _Store:
    """Results on disk as they come: one line of JSON each, after one that identifies the work."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path, self._header = path, {"of": identity}
        self._file: IO[str] | None = None

    def read(self) -> dict[str, ImageResult]:
        """Return the results that an interrupted evaluation of the same left."""
        found: dict[str, ImageResult] = {}
        if self._path is None or not self._path.is_file():
            return found
        try:
            header, *lines = self._path.read_text(encoding="utf-8").splitlines()
            if json.loads(header) != self._header:
                return found
            for line in lines:
                image = ImageResult.model_validate_json(line)
                found[image.rate.image] = image
        except (UnicodeDecodeError, ValidationError, ValueError):
            pass  # the last line, cut while it was written; those before it are whole
        except OSError as error:
            raise ReportError(f"Cannot read {self._path}: {error}.") from error
        return found

    @contextlib.contextmanager
    def open(self, kept: Iterable[ImageResult]) -> Iterator[None]:
        """Write the file anew, with the results that were kept, and hold it open for more."""
        if self._path is None:
            yield
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("w", encoding="utf-8") as self._file:
            self._file.write(json.dumps(self._header) + "\n")
            for image in kept:
                self.add(image)
            yield

    def add(self, image: ImageResult) -> None:
        """Write a result."""
        if self._file is not None:
            self._file.write(image.model_dump_json() + "\n")
            self._file.flush()
