"""How good a split model's answers are, and at how many bytes: image by image, as sent.

Section 3.1 of the SC2 paper (TMLR 2023): accuracy after the bottleneck was quantised, bytes per
image, encoder size.
"""

import datetime
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from splitrun.errors import DatasetError, ImageError, ReportError
from splitrun.machine import machine
from splitrun.signals import check_stopped

from .. import __version__
from ..progress import SILENT, Progress
from ..zoo.datasets import Dataset, Sample, digest
from ..zoo.labels import labels_of
from ..zoo.metrics import scores
from .accuracy_report import AccuracyReport, DataFacts, ImageResult
from .rate import COUNTED_BY_SC2BENCH
from .report import Distribution, SkippedImage
from .subjects import Subject

_READ_AHEAD = 4
"""Images that each reader may be ahead of the model."""


def evaluate(
    subject: Subject,
    dataset: Dataset,
    data: Path,
    *,
    workers: int = 1,
    threads: int = 1,
    keep: Path | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> tuple[AccuracyReport, list[ImageResult]]:
    """Measure accuracy and bytes over a data set, through the real bitstream.

    Args:
        subject: A model, a bundle, or answers.
        dataset: Images and what is on them.
        data: Its folder, for the report.
        workers: Threads that read images.
        threads: Of PyTorch. Another number adds in another order: now and then a symbol is rounded
            otherwise, so that bytes are the same for the same number alone.
        keep: A file in which results are kept as they come; an evaluation of the same subject and
            data that finds it goes on from there. Whoever has saved the report removes it.
        command: That makes this report again.
        progress: Told of each image.

    Returns:
        The report, and what is known of each image, in the data set's order.

    Raises:
        DatasetError: No image could be used, or the data set has a class that the model has not.
    """
    spec = subject.spec
    samples = subject.samples(dataset.samples)
    data_sha256 = digest(samples)
    facts = subject.facts
    words = (facts.subject, facts.runtime, facts.model_id, facts.answers, spec.model_dump_json())
    content = "\n".join((*words, data_sha256))
    store = _Store(keep, hashlib.sha256(content.encode()).hexdigest())
    done = store.read()
    skipped: list[SkippedImage] = []
    wanted = [one for one in samples if one.name not in done]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with store:
            images_read = _read_ahead(subject, wanted, workers)
            known = len(samples) - len(wanted)
            for sample, image in progress.track(
                images_read, "images", total=len(samples), done=known
            ):
                check_stopped()
                if isinstance(image, ImageError):
                    skipped.append(SkippedImage(image=sample.name, reason=image.reason))
                    continue
                rate, result = subject.measure(sample, image)
                found = ImageResult(rate=rate, result=result)
                done[sample.name] = found
                store.add(found)
    finally:
        torch.set_num_threads(before)
    images = [done[one.name] for one in samples if one.name in done]
    if not images:
        raise DatasetError(f"None of {len(samples)} images could be used: {skipped[0].reason}.")
    results = [one.result for one in images]
    height, width = spec.preprocessing.crop
    rates = [one.rate for one in images]

    def over(name: str) -> Distribution | None:
        values = [getattr(one, name) for one in rates]
        return None if None in values else Distribution.of(values)

    left_out = [] if over("sc2bench_bytes") else ["bytes as sc2bench counts"]
    if subject.facts.subject == "model" and spec.bottleneck.kind not in COUNTED_BY_SC2BENCH:
        left_out = ["bytes as sc2bench counts (what it sends for this kind has another form)"]
    report = AccuracyReport(
        spec=spec,
        subject=subject.facts.subject,  # pyright: ignore[reportArgumentType]
        runtime=subject.facts.runtime,
        source=subject.facts.source,
        weights=subject.facts.weights,  # pyright: ignore[reportArgumentType]
        seed=subject.facts.seed,
        model_id=subject.facts.model_id,
        data=DataFacts(
            folder=data.resolve().name,
            images=len(images),
            classes=len(dataset.labels or labels_of(spec)),
            sha256=data_sha256,
        ),
        scores=scores(spec.task, results, spec.num_classes),
        payload_bytes=Distribution.of([one.payload_bytes for one in rates]),
        stream_bytes=Distribution.of([one.stream_bytes for one in rates]),
        bits_per_pixel=Distribution.of([8 * one.stream_bytes / (height * width) for one in rates]),
        estimated_bits=over("estimated_bits"),
        sc2bench_bytes=over("sc2bench_bytes"),
        encoder=subject.facts.encoder,
        calibrated=subject.facts.calibrated,
        skipped=skipped,
        not_measured=left_out,
        environment=machine() | {"splitzoo": __version__},
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        command=command,
    )
    return report, images


def _read_ahead(
    subject: Subject, samples: Sequence[Sample], workers: int
) -> Iterator[tuple[Sample, NDArray[np.float32] | ImageError]]:
    """Give samples with their images, in order, read by threads a few images ahead."""

    def read(sample: Sample) -> NDArray[np.float32] | ImageError:
        try:
            return subject.read(sample)
        except ImageError as error:
            return error

    if workers < 1:
        for one in samples:
            yield one, read(one)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[tuple[Sample, Future]] = []
        try:
            for one in samples:
                waiting.append((one, pool.submit(read, one)))
                if len(waiting) > workers * _READ_AHEAD:
                    sample, future = waiting.pop(0)
                    yield sample, future.result()
            for sample, future in waiting:
                yield sample, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


class _Store:
    """Results on disk as they come: one line of JSON each, after one that says of what."""

    def __init__(self, path: Path | None, identity: str) -> None:
        self._path, self._identity = path, identity
        self._file: Any = None

    def read(self) -> dict[str, ImageResult]:
        """Return the results of an evaluation of the same that was interrupted."""
        if self._path is None or not self._path.is_file():
            return {}
        found: dict[str, ImageResult] = {}
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
            if not lines or json.loads(lines[0]) != {"of": self._identity}:
                return {}
            for line in lines[1:]:
                one = ImageResult.model_validate_json(line)
                found[one.rate.image] = one
        except (UnicodeDecodeError, ValidationError, ValueError):
            pass  # the last line, cut while it was written; what is before it is whole
        except OSError as error:
            raise ReportError(f"Cannot read {self._path}: {error}.") from error
        return found

    def __enter__(self) -> "_Store":
        if self._path is not None:
            kept = self.read()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8")
            self._file.write(json.dumps({"of": self._identity}) + "\n")
            for one in kept.values():
                self.add(one)
        return self

    def add(self, one: ImageResult) -> None:
        """Write a result."""
        if self._file is not None:
            self._file.write(one.model_dump_json() + "\n")
            self._file.flush()

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()
