"""The images of a training run: which are trained on, which are validated on, what is left out."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from splitrun.errors import DatasetError
from splitrun.image_files import Unread, count_unread

from ...progress import Progress
from ..datasets import Dataset, digest, labels_of, read_dataset, read_unlabelled
from ..spec import ModelSpec
from .inventory import Inventory, take_inventory
from .plan import Plan
from .readable import find_unreadable
from .student import with_classes_of_teacher

_MOST_LISTED = 20


@dataclass(frozen=True)
class RunData:
    """What a run is trained and validated on.

    Attributes:
        spec: Spec of the model, with the classes of the data where it has none of its own.
        training: Images to train on.
        validation: Images to validate on: others, or a part of the training images.
        unread: Files that are left out, and why.
        held_out: Whether the validation images are a part of the training images.
    """

    spec: ModelSpec
    training: Dataset
    validation: Dataset
    unread: Sequence[Unread]
    held_out: bool

    @cached_property
    def inventory(self) -> Inventory:
        """The images that are used, by split and name."""
        second = "train" if self.held_out else "val"
        return take_inventory((("train", self.training), (second, self.validation)))

    @cached_property
    def sha256(self) -> str:
        """Digest of the names and sizes of the images."""
        return digest(self.training.samples, self.validation.samples)


def read_run_data(plan: Plan, accelerator: Any, progress: Progress) -> RunData:
    """Read the data set of a plan; each of several processes finds the same.

    Raises:
        DatasetError: It is missing, has another form, or images that cannot be read.
        RecipeError: The recipe is for another task's data set.
        TrainingError: There are more processes than images in a batch.
    """
    plan.check_dataset()
    spec, held_out = plan.spec, plan.recipe.held_out
    unlabelled = plan.recipe.dataset == "unlabelled"
    if unlabelled and not spec.dataset:
        spec = with_classes_of_teacher(spec, plan.recipe, plan.teacher)
    # A model without a data set of its own gets the classes of the data.
    known = tuple(labels_of(spec)) if spec.dataset else ()
    if unlabelled:
        training = replace(read_unlabelled(plan.data), labels=known)
    else:
        training = read_dataset(spec.task, plan.data, "train", known)
    labels = training.labels
    if not spec.dataset:
        classes = {"dataset": "custom", "num_classes": len(labels), "labels": labels}
        spec = spec.model_copy(update=classes)
    if held_out:
        training, validation = _parted(training, held_out)
    else:
        validation = read_dataset(spec.task, plan.data, "val", known or labels)
    for line in dict.fromkeys((*training.left_out(), *validation.left_out())):
        progress.note(line)
    samples = (*training.samples, *validation.samples)
    # The first process looks for all.
    found = find_unreadable(samples, spec, progress) if accelerator.is_main_process else {}
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        (found,) = broadcast_object_list([found])
    if found:
        _tell_unreadable(found, len(samples), progress, skip=plan.skip_unreadable)
    unread = [
        *(*training.unread, *validation.unread),
        *(Unread(path.name, why) for path, why in found.items()),
    ]
    training, validation = (_without(one, found) for one in (training, validation))
    plan.check_batches(len(training.samples), accelerator.num_processes)
    return RunData(spec, training, validation, unread, bool(held_out))


def _tell_unreadable(
    found: dict[Path, str], images: int, progress: Progress, *, skip: bool
) -> None:
    listed = [f"  {path}: {why}" for path, why in list(found.items())[:_MOST_LISTED]]
    listed += [f"  and {len(found) - _MOST_LISTED} more"] * (len(found) > _MOST_LISTED)
    by_reason = count_unread(Unread(path.name, why) for path, why in found.items())
    counted = f"{len(found):,} of {images:,} images cannot be read"
    counted += f" ({'; '.join(map(str, by_reason))})"
    if not skip:
        raise DatasetError(
            "\n".join([f"{counted}:", *listed]),
            next_step="Mend or remove them, or leave them out: --skip-unreadable.",
        )
    progress.note("\n".join([f"{counted}, and are left out:", *listed]))


def _without(dataset: Dataset, unreadable: dict[Path, str]) -> Dataset:
    samples = [sample for sample in dataset.samples if sample.path not in unreadable]
    if not samples:
        raise DatasetError("No image of train or of val can be read.")
    return replace(dataset, samples=samples)


def _parted(dataset: Dataset, held_out: float) -> tuple[Dataset, Dataset]:
    """Part images in two: those to train on, and those held out, whose names' digests are least."""

    def digest(sample: Any) -> bytes:
        return hashlib.sha256(sample.name.encode()).digest()

    count = max(1, round(held_out * len(dataset.samples)))
    chosen = {sample.name for sample in sorted(dataset.samples, key=digest)[:count]}
    parts: tuple[list[Any], list[Any]] = ([], [])
    for sample in dataset.samples:
        parts[sample.name in chosen].append(sample)
    if not all(parts):
        raise DatasetError(f"Of {len(dataset.samples)} images, none can be held out: give more.")
    # What is not read is told once.
    return replace(dataset, samples=parts[0]), Dataset(parts[1], dataset.labels)
