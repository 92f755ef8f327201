"""Measure one model of a trained family: through its real bitstream, image by image."""

import functools
import shlex
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitzoo import zoo
from splitzoo.profile.evaluate import evaluate
from splitzoo.profile.subjects import ModelSubject
from splitzoo.zoo.datasets import Sample, labels_of, read_dataset
from splitzoo.zoo.split_model import SplitModel


class _Remembered(ModelSubject):
    """A model that many are compared with: each image is sent through it once."""

    def __init__(self, model: SplitModel) -> None:
        super().__init__(model)
        self._found: dict[Path, Any] = {}

    def measure(self, sample: Sample, image: NDArray[np.float32]) -> Any:
        if sample.path not in self._found:
            self._found[sample.path] = super().measure(sample, image)
        return self._found[sample.path]


@functools.cache
def _remembered(name: str) -> ModelSubject:
    return _Remembered(zoo.load(name))


def measure(
    model: SplitModel, source: str, folder: Path, path: Path, *, threads: int, against: str = ""
) -> None:
    """Evaluate a model, write its report and print a line; an interrupted evaluation goes on.

    Args:
        model: Model to evaluate.
        source: Name of the model, or of its folder, for the report and its command.
        folder: Folder of labelled images.
        path: File of the report.
        threads: Number of threads of PyTorch.
        against: Name of a model to compare with, image by image.
    """
    began = time.monotonic()
    model.source = source  # no folder of the machine that measured
    dataset = read_dataset(model.spec.task, folder, "val", labels_of(model.spec))
    data = folder.name if folder.is_absolute() else str(folder)
    words = ["splitzoo", "profile", "accuracy", source, "--data", data]
    beta = getattr(model.spec.bottleneck, "beta", None)
    words += [] if beta is None else ["--beta", f"{beta:g}"]
    words += ["--against", against] if against else []
    keep = path.with_suffix(".partial")
    report, _ = evaluate(
        ModelSubject(model),
        dataset,
        folder,
        threads=threads,
        keep=keep,
        against=_remembered(against) if against else None,
        command=shlex.join([*words, "-o", path.name]),
    )
    report.save(path, force=True)
    keep.unlink()
    print(
        f"{path.stem:56} {report.score:7.2%} {report.stream_bytes.mean:9,.0f} bytes "
        f"{report.encoder.encoder_bits:12,} bits {time.monotonic() - began:5.0f} s",
        flush=True,
    )
