"""Training images: varied at random, in a random order, and both the same each time.

The seed of each image's variation is drawn with the order, so it depends neither on the number of
workers nor on what was interrupted.
"""

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from splitrun.errors import ImageError
from splitrun.preprocessing import Preprocessing, read_rgb

from ..datasets import Boxes, Sample
from ..metrics import UNLABELLED
from ..outputs import read_class_map
from ..spec import ModelSpec
from .recipe import Augmentation

Key = tuple[int, int]
"""Index of a sample and seed of its variation."""


@dataclass(frozen=True)
class Order:
    """Which images each step takes, shuffled anew in each epoch.

    Attributes:
        count: Of images.
        batch_size: Over all processes. The images that are left over at the end of an epoch are
            left out; each epoch leaves out others.
        seed: Of order and variation.
        rank: Of this process.
        processes: How many share each batch.
    """

    count: int
    batch_size: int
    seed: int
    rank: int = 0
    processes: int = 1

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return max(self.count // self.batch_size, 1)

    def batches(self, epoch: int, begin: int = 0) -> Iterator[list[Key]]:
        """Give this process's share of each batch of an epoch, from step ``begin`` on."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(self.count)
        seeds = random.integers(1 << 62, size=self.count)
        for step in range(begin, self.steps):
            places = range(step * self.batch_size, min((step + 1) * self.batch_size, self.count))
            yield [(int(order[i]), int(seeds[i])) for i in places[self.rank :: self.processes]]


class TrainingImages(torch.utils.data.Dataset):
    """Images and targets as the network is trained on them.

    Args:
        samples: Of the data set.
        spec: Of the model: task and preprocessing.
        augmentation: How images are varied.
    """

    def __init__(
        self, samples: Sequence[Sample], spec: ModelSpec, augmentation: Augmentation
    ) -> None:
        self.samples, self.spec = samples, spec
        self._vary = {
            "image-classification": _VaryImage,
            "object-detection": _VaryBoxes,
            "semantic-segmentation": _VaryMask,
        }[spec.task](spec.preprocessing, augmentation)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> tuple[Tensor | ImageError, Any]:
        """Return an image (3, H, W) float32 and its target; or the error that it cannot be read.

        Raised in a process that reads images, it would arrive as another.
        """
        index, seed = key
        sample = self.samples[index]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                return self._vary(read_rgb(sample.path), sample.target)
            except ImageError as error:
                return error, None


def training_loader(
    images: TrainingImages, order: Order, epoch: int, begin: int, workers: int
) -> DataLoader:
    """Return the batches of one epoch, from step ``begin`` on.

    Each is images (N, 3, H, W) float32 and, by task, class indexes (N,) int64; a list of ``boxes``,
    ``labels`` and ``area``; or class maps (N, H, W) int64.
    """
    return _Loader(images, workers, batch_sampler=list(order.batches(epoch, begin)))


class _Loader(DataLoader):
    """A loader whose processes leave Ctrl-C to the one that trains, which ends them.

    A forked process has that one's handlers, and would print what interrupted it.
    """

    def __init__(self, images: torch.utils.data.Dataset, workers: int, **batches: Any) -> None:
        super().__init__(
            images,
            num_workers=workers,
            collate_fn=_collate,
            # Forked workers know this process's libraries; started anew, each would load torch.
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_leave_signals,
            **batches,
        )

    def __iter__(self) -> Any:
        # Until they have their own handlers, signals wait.
        before = _mask(signal.SIG_BLOCK, _SIGNALS)
        try:
            return super().__iter__()
        finally:
            _mask(signal.SIG_SETMASK, before)


_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM})


def _mask(how: int, signals: Iterable[int]) -> set[Any]:
    return signal.pthread_sigmask(how, signals) if hasattr(signal, "pthread_sigmask") else set()


def _leave_signals(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _mask(signal.SIG_UNBLOCK, _SIGNALS)


class EvaluationImages(torch.utils.data.Dataset):
    """Images as evaluation reads them: (3, H, W) float32."""

    def __init__(self, samples: Sequence[Sample], spec: ModelSpec) -> None:
        self.samples, self._preprocessing = samples, spec.preprocessing

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor | ImageError, int]:
        """Return an image, or the error that it cannot be read, and its index."""
        try:
            return torch.from_numpy(self._preprocessing.load(self.samples[index].path)[0]), index
        except ImageError as error:
            return error, index


def evaluation_loader(images: EvaluationImages, batch_size: int, workers: int) -> DataLoader:
    """Return batches of images (N, 3, H, W) float32 and their indexes."""
    return _Loader(images, workers, batch_size=batch_size)


def _collate(items: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    images, targets = zip(*items, strict=True)
    broken = next((one for one in images if isinstance(one, ImageError)), None)
    if broken is not None:
        return broken, None
    if isinstance(targets[0], dict):
        return torch.stack(images), list(targets)
    return torch.stack(images), torch.as_tensor(np.stack(targets)).long()


class _VaryImage:
    """A part of the image, resized or as it is, perhaps mirrored, its colours changed."""

    def __init__(self, preprocessing: Preprocessing, how: Augmentation) -> None:
        self._preprocessing, self._how = preprocessing, how
        size = (how.size, how.size) if how.size else preprocessing.crop
        kind = v2.InterpolationMode(preprocessing.interpolation)
        steps: list[Any] = []
        if how.crop == "resized":
            shares = (float(how.scale[0]), float(how.scale[1]))
            steps.append(v2.RandomResizedCrop(size, scale=shares, interpolation=kind))
        elif how.crop == "patch":
            steps.append(v2.Resize(preprocessing.resize, interpolation=kind))
            steps.append(v2.RandomCrop(size, pad_if_needed=True))
        steps.append(v2.RandomHorizontalFlip(how.flip))
        if how.jitter:
            steps.append(v2.ColorJitter(how.jitter, how.jitter, how.jitter))
        self._steps = v2.Compose(steps)

    def __call__(self, image: Image.Image, label: int) -> tuple[Tensor, int]:
        varied = self._steps(image)
        if self._how.crop == "none":
            pixels = self._preprocessing.pixels(varied)
        else:
            pixels = np.asarray(varied)
        return torch.from_numpy(self._preprocessing.normalise(pixels)[0]), label


class _VaryBoxes:
    """The whole image, as in evaluation, perhaps mirrored with its boxes."""

    def __init__(self, preprocessing: Preprocessing, how: Augmentation) -> None:
        self._preprocessing, self._how = preprocessing, how

    def __call__(self, image: Image.Image, target: Boxes) -> tuple[Tensor, dict[str, Tensor]]:
        # A crowd is no object to learn from.
        kept = ~target.crowd
        scaled = self._preprocessing.pixels(image)
        height, width = scaled.shape[:2]
        ratio = np.array((width / image.width, height / image.height) * 2, np.float32)
        boxes = target.boxes[kept] * ratio
        if torch.rand(()) < self._how.flip:
            scaled = np.ascontiguousarray(scaled[:, ::-1])
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        values = self._preprocessing.padded(self._preprocessing.normalise(scaled))
        return torch.from_numpy(values[0]), {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(target.labels[kept]),
            "area": torch.tensor((height, width)),
        }


class _VaryMask:
    """A part of the image, scaled at random, perhaps mirrored, and its class map."""

    def __init__(self, preprocessing: Preprocessing, how: Augmentation) -> None:
        self._preprocessing, self._how = preprocessing, how

    def __call__(self, image: Image.Image, target: Any) -> tuple[Tensor, NDArray[np.int64]]:
        truth = read_class_map(target)
        shortest, longest = self._how.scale
        if longest <= 1:  # the default, which is for classification
            shortest = longest = self._preprocessing.resize
        side = shortest + float(torch.rand(())) * (longest - shortest)
        ratio = side / min(image.size)
        size = (max(round(image.width * ratio), 1), max(round(image.height * ratio), 1))
        resample = Image.Resampling[self._preprocessing.interpolation.upper()]
        pixels = np.asarray(image.resize(size, resample))
        classes = np.asarray(truth.resize(size, Image.Resampling.NEAREST))
        if torch.rand(()) < self._how.flip:
            pixels, classes = pixels[:, ::-1], classes[:, ::-1]
        height, width = self._preprocessing.crop
        top = int(torch.randint(max(pixels.shape[0] - height, 0) + 1, ()))
        left = int(torch.randint(max(pixels.shape[1] - width, 0) + 1, ()))
        window = np.s_[top : top + height, left : left + width]
        values = self._preprocessing.normalise(np.ascontiguousarray(pixels[window]))
        canvas = np.full((height, width), UNLABELLED, np.int64)
        part = classes[window]
        canvas[: part.shape[0], : part.shape[1]] = part
        return torch.from_numpy(self._preprocessing.padded(values)[0]), canvas
