"""Images that cannot be read, found before training begins. What was read once is remembered."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from platformdirs import user_cache_path

from splitrun.errors import ImageError, OutputError
from splitrun.files import new_file
from splitrun.image_reading import LIMIT_VARIABLE, read_rgb
from splitrun.signals import check_stopped

from ... import __version__
from ...progress import SILENT, Progress
from ..datasets import Boxes, Sample
from ..outputs import read_class_map
from ..spec import ModelSpec

_AT_ONCE = 512
"""Images between two looks at whether the work was stopped."""


def find_unreadable(
    samples: Sequence[Sample], spec: ModelSpec, progress: Progress = SILENT
) -> dict[Path, str]:
    """Read each image and what is said to be on it, as training will.

    The files that could be read are remembered in the user's cache folder by path, size and time of
    change, and not read again. Images are read by one thread per core.

    Returns:
        Why an image cannot be used, by its path.
    """
    keys = [_key(sample) for sample in samples]
    memory = _memory(samples, spec)
    known = np.isin(np.array(keys, np.uint64), _remembered(memory))
    todo = [sample for sample, is_known in zip(samples, known, strict=True) if not is_known]
    found: dict[Path, str] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        groups = (todo[begin : begin + _AT_ONCE] for begin in range(0, len(todo), _AT_ONCE))
        reasons = (
            reason
            for group in groups
            for reason in pool.map(lambda sample: _reason(sample, spec.num_classes), group)
        )
        for sample, reason in zip(
            todo, progress.track(reasons, "images checked", total=len(todo)), strict=True
        ):
            check_stopped()
            if reason:
                found[sample.path] = reason
    good = [key for sample, key in zip(samples, keys, strict=True) if sample.path not in found]
    # A cache that cannot be written costs time, and nothing else.
    with (
        contextlib.suppress(OutputError),
        new_file(memory, force=True) as file,
        file.open("wb") as opened,
    ):
        np.save(opened, np.array(good, np.uint64))
    return found


def _reason(sample: Sample, classes: int) -> str:
    try:
        read_rgb(sample.path)
        if isinstance(sample.target, Path):
            read_class_map(sample.target, classes)
    except ImageError as error:
        if error.path == sample.path:
            return error.reason
        return f"its class map cannot be used ({error.path}: {error.reason})"
    if isinstance(sample.target, Boxes) and (sample.target.labels >= classes).any():
        return f"it has an object of class {sample.target.labels.max()}; the model has {classes}"
    return ""


def _key(sample: Sample) -> int:
    """Return a number for the files of a sample as they are now."""
    content = hashlib.blake2b(digest_size=8)
    for path in (sample.path, *([sample.target] if isinstance(sample.target, Path) else [])):
        with contextlib.suppress(OSError):  # a missing file is told when it is read
            state = path.stat()
            content.update(f"{path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return int.from_bytes(content.digest(), "little")


def _memory(samples: Sequence[Sample], spec: ModelSpec) -> Path:
    """Return the file in which keys of this data set are kept, for these versions and limits."""
    limit = os.environ.get(LIMIT_VARIABLE, "")
    folder = samples[0].path.parents[1].absolute()
    words = (folder, spec.num_classes, limit, __version__, PIL.__version__)
    name = hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()[:16]
    return user_cache_path("splitzoo") / "readable" / f"{name}.npy"


def _remembered(memory: Path) -> np.ndarray:
    try:
        return np.load(memory, allow_pickle=False)
    except (OSError, EOFError, ValueError):  # none, or damaged
        return np.empty(0, np.uint64)
