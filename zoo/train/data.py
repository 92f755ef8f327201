"""Training images: in a random order and randomly varied, both decided by the seed alone.

The seed of each image's augmentation is drawn with the order, so it depends neither on the number
of workers nor on an interruption.
"""

from collections.abc import Iterator, Sequence
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
from splitrun.image_reading import read_rgb
from splitrun.worker_processes import leave_signals, starting_workers

from ..datasets import Boxes, Sample
from ..metrics import UNLABELLED
from ..outputs import read_class_map
from ..spec import ModelSpec
from .recipe import Augmentation

SampleKey = tuple[int, int]
"""Index of a sample, and the seed of its augmentation."""


@dataclass(frozen=True)
class BatchOrder:
    """Which images each step takes, shuffled anew in each epoch.

    Attributes:
        count: Number of images.
        batch_size: Images in a batch, over all processes. An epoch leaves out the images that do
            not fill a batch, each epoch others.
        seed: Seed for order and augmentation.
        rank: Number of this process.
        processes: Number of processes that share each batch.
    """

    count: int
    batch_size: int
    seed: int
    rank: int = 0
    processes: int = 1

    @property
    def steps(self) -> int:
        """Number of batches in an epoch."""
        return max(self.count // self.batch_size, 1)

    def batches(self, epoch: int, begin: int = 0, *, epochs: int = 1) -> Iterator[list[SampleKey]]:
        """Yield this process's share of each batch of some epochs, from a step of the first on."""
        for number in range(epoch, epoch + epochs):
            yield from self._epoch(number, begin)
            begin = 0

    def _epoch(self, epoch: int, begin: int) -> Iterator[list[SampleKey]]:
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(self.count)
        seeds = random.integers(1 << 62, size=self.count)
        for step in range(begin, self.steps):
            batch = range(step * self.batch_size, min((step + 1) * self.batch_size, self.count))
            yield [(int(order[i]), int(seeds[i])) for i in batch[self.rank :: self.processes]]


class TrainingImages(torch.utils.data.Dataset):
    """Images and targets as the network is trained on them.

    Args:
        samples: Samples of the data set.
        spec: Spec of the model: task and preprocessing.
        augmentation: How images are varied.
    """

    def __init__(
        self, samples: Sequence[Sample], spec: ModelSpec, augmentation: Augmentation
    ) -> None:
        self.samples = samples
        augment = {
            "image-classification": _augment_image,
            "object-detection": _augment_boxes,
            "semantic-segmentation": _augment_mask,
        }[spec.task]
        self._augment = augment(spec, augmentation)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor | ImageError, Any]:
        """Return an image (3, H, W) float32 and its target, or the error that it cannot be read.

        An error raised in a worker would arrive as another kind.
        """
        index, seed = key
        sample = self.samples[index]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                return self._augment(read_rgb(sample.path), sample.target)
            except ImageError as error:
                return error, None


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


class Loader(DataLoader):
    """Loads batches: images (N, 3, H, W) float32, and their targets or, in evaluation, indexes.

    Targets are, by task: class indexes (N,) int64; a list of ``boxes``, ``labels`` and ``area``; or
    class maps (N, H, W) int64.

    The workers leave Ctrl-C to the training process, which ends them: a forked worker inherits that
    process's signal handlers, and would print that it was interrupted.
    """

    def __init__(self, images: torch.utils.data.Dataset, workers: int, **batches: Any) -> None:
        super().__init__(
            images,
            num_workers=workers,
            collate_fn=_collate,
            # Forked workers have the libraries loaded; spawned ones would each load torch.
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_begin_worker,
            # Begun once for all passes: a new process for each would read its first batch alone.
            persistent_workers=workers > 0,
            **batches,
        )

    def __iter__(self) -> Any:
        with starting_workers():
            return super().__iter__()


def _begin_worker(_number: int) -> None:
    leave_signals()


def _collate(items: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    images, targets = zip(*items, strict=True)
    broken = next((image for image in images if isinstance(image, ImageError)), None)
    if broken is not None:
        return broken, None
    if isinstance(targets[0], dict):
        return torch.stack(images), list(targets)
    return torch.stack(images), torch.as_tensor(np.stack(targets)).long()


def _augment_image(spec: ModelSpec, augmentation: Augmentation) -> Any:
    """Return the augmentation of classification: crop, mirror, change colours."""
    preprocessing = spec.preprocessing
    size = (augmentation.size,) * 2 if augmentation.size else preprocessing.crop
    interpolation = v2.InterpolationMode(preprocessing.interpolation)
    transforms: list[Any] = []
    if augmentation.crop == "resized":
        transforms.append(
            v2.RandomResizedCrop(size, scale=augmentation.scale, interpolation=interpolation)
        )
    elif augmentation.crop == "patch":
        transforms.append(v2.Resize(preprocessing.resize, interpolation=interpolation))
        transforms.append(v2.RandomCrop(size, pad_if_needed=True))
    transforms.append(v2.RandomHorizontalFlip(augmentation.flip))
    if augmentation.jitter:
        transforms.append(v2.ColorJitter(*(augmentation.jitter,) * 3))
    transform = v2.Compose(transforms)
    to_pixels = preprocessing.pixels if augmentation.crop == "none" else np.asarray

    def augment(image: Image.Image, label: int) -> tuple[Tensor, int]:
        pixels = to_pixels(transform(image))
        return torch.from_numpy(preprocessing.normalise(pixels)[0]), label

    return augment


def _augment_boxes(spec: ModelSpec, augmentation: Augmentation) -> Any:
    """Return the augmentation of detection: mirror the whole image and its boxes."""
    preprocessing = spec.preprocessing

    def augment(image: Image.Image, target: Boxes) -> tuple[Tensor, dict[str, Tensor]]:
        kept = ~target.crowd  # a crowd is not an object to learn
        pixels = preprocessing.pixels(image)
        height, width = pixels.shape[:2]
        ratio = np.array((width / image.width, height / image.height) * 2, np.float32)
        boxes = target.boxes[kept] * ratio
        if torch.rand(()) < augmentation.flip:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
            boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        values = preprocessing.padded(preprocessing.normalise(pixels))
        return torch.from_numpy(values[0]), {
            "boxes": torch.from_numpy(boxes),
            "labels": torch.from_numpy(target.labels[kept]),
            "area": torch.tensor((height, width)),
        }

    return augment


def _augment_mask(spec: ModelSpec, augmentation: Augmentation) -> Any:
    """Return the augmentation of segmentation: scale, mirror and crop image and class map."""
    preprocessing = spec.preprocessing
    shortest, longest = augmentation.scale
    if longest <= 1:  # the default, which is for classification
        shortest = longest = preprocessing.resize
    height, width = preprocessing.crop

    def augment(image: Image.Image, target: Any) -> tuple[Tensor, NDArray[np.int64]]:
        truth = read_class_map(target, spec.num_classes)
        ratio = (shortest + float(torch.rand(())) * (longest - shortest)) / min(image.size)
        size = (max(round(image.width * ratio), 1), max(round(image.height * ratio), 1))
        resample = Image.Resampling[preprocessing.interpolation.upper()]
        pixels = np.asarray(image.resize(size, resample))
        classes = np.asarray(truth.resize(size, Image.Resampling.NEAREST))
        if torch.rand(()) < augmentation.flip:
            pixels, classes = pixels[:, ::-1], classes[:, ::-1]
        top = int(torch.randint(max(pixels.shape[0] - height, 0) + 1, ()))
        left = int(torch.randint(max(pixels.shape[1] - width, 0) + 1, ()))
        window = np.s_[top : top + height, left : left + width]
        values = preprocessing.normalise(np.ascontiguousarray(pixels[window]))
        canvas = np.full((height, width), UNLABELLED, np.int64)
        part = classes[window]
        canvas[: part.shape[0], : part.shape[1]] = part
        return torch.from_numpy(preprocessing.padded(values)[0]), canvas

    return augment


def check_read(images: Any) -> None:
    """Raise the error that a loader gave in place of a batch, if it is one: ``ImageError``."""
    if isinstance(images, ImageError):
        raise images
