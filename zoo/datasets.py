"""Labelled images on disk: folders of classes, COCO 2017 and PASCAL VOC 2012. No torch."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from splitrun.errors import DatasetError, DependencyError
from splitrun.image_files import (
    Unread,
    count_unread,
    find_images,
    find_some_images,
    is_ignored,
)
from splitrun.text import is_plain, visible

from .kinds import Task
from .spec import ModelSpec

Split = Literal["train", "val"]

_MOST_CATEGORIES = (1 << 16) - 1
_NO_CLASS = "in the folder of no class"


@dataclass(frozen=True, eq=False)
class Boxes:
    """Objects in one image.

    Attributes:
        boxes: (B, 4) float32, x0, y0, x1, y1 in pixels of the upright image.
        labels: (B,) int64, COCO's category numbers.
        crowd: (B,) bool: whether it is a crowd, which a detector may find or miss.
        area: (B,) float32, area inside the object's outline, pixels.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    area: NDArray[np.float32]


UNKNOWN = -1
"""Target of an image whose class nobody says."""


@dataclass(frozen=True)
class Sample:
    """An image and its label.

    Attributes:
        path: Path of the image.
        name: Path below the data set's folder, with ``/``; it identifies the image.
        target: Class index, or ``UNKNOWN``; or :class:`Boxes`; or the path of an image of class
            indexes, 255 for unlabelled pixels.
    """

    path: Path
    name: str
    target: int | Boxes | Path


@dataclass(frozen=True)
class Dataset:
    """Samples in the order of their names, the classes' labels, and what gave no sample.

    Attributes:
        unread: Files in the folder that are not read, and why.
        empty: Names of the classes' folders that hold no image.
    """

    samples: Sequence[Sample]
    labels: tuple[str, ...]
    unread: Sequence[Unread] = ()
    empty: Sequence[str] = ()

    def left_out(self) -> list[str]:
        """Say in words what gave no sample."""
        counts = [f"not read: {count}" for count in count_unread(self.unread)]
        return counts + [f"no image in the folder of a class: {name}" for name in self.empty]


def labels_of(spec: ModelSpec) -> list[str]:
    """Return the label of each of a model's class indexes: its own, or its data set's.

    ImageNet's come with timm, COCO's and VOC's with torchvision; classes of other data sets are
    numbered.
    """
    if spec.labels:
        return list(spec.labels)
    labels: list[str] = []
    if spec.dataset == "imagenet-1k":
        info = _imagenet()
        labels = [info.index_to_description(index) for index in range(info.num_classes())]
    elif spec.dataset == "coco-2017":
        from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

        labels = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    elif spec.dataset == "pascal-voc-2012":
        from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

        labels = DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"]
    if len(labels) == spec.num_classes:
        return list(labels)
    return [f"class {index}" for index in range(spec.num_classes)]


def _imagenet() -> Any:
    from .deprecations import quiet_torchscript

    with quiet_torchscript():
        from timm.data.imagenet_info import ImageNetInfo

    return ImageNetInfo("imagenet-1k")


def digest(*parts: Sequence[Sample]) -> str:
    """Return the SHA-256 of the names and sizes of images: enough to tell data sets apart."""
    content = hashlib.sha256()
    for samples in parts:
        for sample in samples:
            size = sample.path.stat().st_size if sample.path.is_file() else 0
            content.update(f"{sample.name} {size}\n".encode())
    return content.hexdigest()


def read_dataset(
    task: Task, folder: str | Path, split: Split, labels: Sequence[str] = ()
) -> Dataset:
    """Find the images of a data set and their targets.

    Args:
        task: ``image-classification``: ``folder`` holds a folder per class, or ``train`` and
            ``val`` with one each. ``object-detection``: ``folder`` is COCO 2017's, with
            ``train2017``, ``val2017`` and ``annotations``. ``semantic-segmentation``: ``folder`` is
            ``VOC2012``, or holds ``VOCdevkit/VOC2012``.
        folder: Folder of the data set.
        split: Part of the data set, if the folder has both.
        labels: Labels of a model's classes, in the order of their indexes. Empty: the names of the
            folders, or of COCO's categories behind the background's.

    Raises:
        DatasetError: The folder is missing or empty, has another form, or other classes.
        ImageError: A folder of it cannot be read.
        DependencyError: COCO's annotations need pycocotools.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(
            f"{folder} is not a folder.", next_step="Give the data set's folder with --data."
        )
    readers = {
        "image-classification": _read_folders,
        "object-detection": _read_coco,
        "semantic-segmentation": _read_voc,
    }
    found = readers[task](folder, split, tuple(labels))
    if not found.samples:
        raise DatasetError(
            f"{folder} holds no images for {split}.", next_step="\n".join(found.left_out())
        )
    for name in (*found.labels, *(sample.name for sample in found.samples)):
        if not is_plain(name):  # no report, config or card could hold it
            raise DatasetError(
                f"{folder} holds a name with control characters, or not in UTF-8: {name!a}.",
                next_step="Rename the folder or the file.",
            )
    return found


def read_unlabelled(folder: str | Path) -> Dataset:
    """Find all images below a folder, of which no class is known.

    Raises:
        ImageError: The folder does not exist, cannot be read, or holds no image.
    """
    folder = Path(folder)
    found = find_some_images(folder)
    samples = [Sample(path, path.relative_to(folder).as_posix(), UNKNOWN) for path in found.images]
    return Dataset(samples, (), found.unread)


def _read_folders(folder: Path, split: Split, labels: tuple[str, ...]) -> Dataset:
    if (folder / split).is_dir():
        folder = folder / split
    entries = sorted(path for path in folder.iterdir() if not is_ignored(path.name))
    names = [path.name for path in entries if path.is_dir()]
    if not names:
        raise DatasetError(
            f"{folder} has no folders of classes.",
            next_step="Put the images of each class into a folder named after it.",
        )
    indexes = _class_indexes(folder, names, labels or tuple(names))
    found = {name: find_images(folder / name) for name in names}
    samples = [
        Sample(path, path.relative_to(folder).as_posix(), indexes[name])
        for name in names
        for path in found[name].images
    ]
    strays = [path.name for path in entries if not path.is_dir()]
    unread = [Unread(visible(name, keep=""), _NO_CLASS) for name in strays]
    unread += [
        replace(file, name=f"{name}/{file.name}") for name in names for file in found[name].unread
    ]
    empty = [name for name in names if not found[name].images]
    return Dataset(samples, labels or tuple(names), unread, empty)


def _class_indexes(folder: Path, names: list[str], labels: tuple[str, ...]) -> dict[str, int]:
    """Return the class index of each folder: by label, WordNet id of ImageNet, or order."""
    known = {label: index for index, label in enumerate(labels)}
    if known.keys() >= set(names):
        return {name: known[name] for name in names}
    wnids = {name: index for index, name in enumerate(_imagenet().label_names())}
    if len(labels) == len(wnids) and wnids.keys() >= set(names):
        return {name: wnids[name] for name in names}
    numbered = all(label == f"class {index}" for index, label in enumerate(labels))
    if numbered and len(names) == len(labels):
        return {name: index for index, name in enumerate(names)}
    foreign = [name for name in names if name not in known]
    raise DatasetError(
        f"{folder} has classes that the model does not know: {', '.join(foreign[:5])}"
        f"{' …' * (len(foreign) > 5)}.",
        next_step=f"Its classes are {', '.join(labels[:8])}{' …' * (len(labels) > 8)}.",
    )


def _read_coco(folder: Path, split: Split, labels: tuple[str, ...]) -> Dataset:
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise DependencyError(
            "Reading COCO's annotations needs pycocotools, which is not installed.",
            next_step="pip install 'splitzoo[train]'",
        ) from error
    import contextlib
    import io

    file = folder / "annotations" / f"instances_{split}2017.json"
    images = folder / f"{split}2017"
    if not file.is_file() or not images.is_dir():
        raise DatasetError(
            f"{folder} is not COCO 2017: it needs {file.relative_to(folder)} and {images.name}/."
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(file)
            labels = _coco_labels(coco, labels)
            samples = [_coco_sample(coco, images, number) for number in sorted(coco.getImgIds())]
    except (AssertionError, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise DatasetError(f"{file} holds no annotations that can be read: {error}.") from error
    if split == "train":
        # As in torchvision's reference training: an image without objects teaches nothing.
        samples = [s for s in samples if isinstance(s.target, Boxes) and len(s.target.boxes)]
    return Dataset(samples, labels)


def _coco_labels(coco: Any, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the labels of class indexes, which are the numbers of categories; 0 is background.

    Raises:
        ValueError: There is a number that the model's labels do not have, or none could have.
    """
    names = {int(one["id"]): str(one["name"]) for one in coco.loadCats(coco.getCatIds())}
    most = len(labels) - 1 if labels else _MOST_CATEGORIES
    if wrong := [number for number in names if not 1 <= number <= most]:
        known = f"the model knows 1 to {most}" if labels else f"they are 1 to {most}"
        raise ValueError(f"category {wrong[0]} is named {names[wrong[0]]!r}, but {known}")
    # torchvision's words for the background, and for numbers that COCO left out.
    numbered = (names.get(number, "N/A") for number in range(1, max(names, default=0) + 1))
    return labels or ("__background__", *numbered)


def _coco_sample(coco: Any, images: Path, number: int) -> Sample:
    name = str(coco.loadImgs(number)[0]["file_name"])
    if Path(name).name != name:
        raise ValueError(f"the image {name!r} lies outside {images.name}/")
    objects = [
        item for item in coco.loadAnns(coco.getAnnIds(imgIds=number)) if min(item["bbox"][2:]) > 0
    ]
    boxes = np.array([item["bbox"] for item in objects], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    target = Boxes(
        boxes,
        np.array([item["category_id"] for item in objects], np.int64),
        np.array([item.get("iscrowd", 0) for item in objects], bool),
        np.array([item["area"] for item in objects], np.float32),
    )
    return Sample(images / name, name, target)


def _read_voc(folder: Path, split: Split, labels: tuple[str, ...]) -> Dataset:
    inner = folder / "VOCdevkit" / "VOC2012"
    folder = inner if inner.is_dir() else folder
    file = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        names = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"{folder} is not PASCAL VOC 2012: {file.relative_to(folder)} cannot be read."
        ) from error
    if any(Path(name).name != name for name in names):
        raise DatasetError(f"{file} names images outside its folder.")
    images, maps = folder / "JPEGImages", folder / "SegmentationClass"
    samples = [
        Sample(images / f"{name}.jpg", f"{name}.jpg", maps / f"{name}.png")
        for name in sorted(names)
    ]
    return Dataset(samples, labels)
