"""What a training run is to do: a recipe, a model, a data set, a folder. Imports no torch."""

import os
from dataclasses import dataclass
from pathlib import Path

from splitrun.errors import DatasetError, RecipeError, TrainingError

from ..spec import ModelSpec
from .recipe import Recipe

LOG_NAME = "log.jsonl"
RECIPE_NAME = "recipe.yaml"
MODEL_NAME = "model"
TRACKERS_NAME = "trackers"
_DATASETS = {
    "image-classification": "image-folder",
    "object-detection": "coco",
    "semantic-segmentation": "voc",
}


_MOST_WORKERS = 8


def default_workers() -> int:
    """Return how many processes read images where nobody says: one per core, but for one core."""
    # Windows and macOS cannot say which cores a process may use.
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max((cores - 1) // processes, 1), _MOST_WORKERS)


@dataclass(frozen=True)
class Plan:
    """What is to be trained, and how.

    Attributes:
        name: Name of the recipe.
        recipe: Recipe with the stages to run.
        spec: Spec of the model.
        data: Folder of the data set.
        run: Folder of the run.
        teacher: Name or folder of a teacher in place of the recipe's.
        start: Name or folder of a model in place of ``recipe.start.model``.
        seed: Seed for weights, order, augmentation and noise.
        workers: Number of processes that read images for each training process.
        mixed_precision: ``no``, ``fp16`` or ``bf16``.
        skip_unreadable: Whether to leave out images that cannot be read, in place of refusing.
        accept_changed_data: Whether an interrupted run may continue with other images.
        trackers: Names of trackers of accelerate, such as ``tensorboard``.
        checkpoint_minutes: Longest time between checkpoints within an epoch.
        command: Command that was given, for the training record.
    """

    name: str
    recipe: Recipe
    spec: ModelSpec
    data: Path
    run: Path
    teacher: str = ""
    start: str = ""
    seed: int = 0
    workers: int = 1
    mixed_precision: str = "no"
    skip_unreadable: bool = False
    accept_changed_data: bool = False
    trackers: tuple[str, ...] = ()
    checkpoint_minutes: float = 10.0
    command: str = ""

    def check_dataset(self) -> None:
        """Check that recipe and folder are for the data set of the model's task.

        Raises:
            RecipeError: The recipe is for another task's data set.
            DatasetError: A folder of images lacks ``train`` or ``val``.
        """
        if self.recipe.dataset == "unlabelled" and self.spec.task == "image-classification":
            return
        wanted = _DATASETS[self.spec.task]
        if self.recipe.dataset != wanted:
            raise RecipeError(
                f"{self.spec.name} is trained on {wanted}, not on {self.recipe.dataset}.",
                next_step=f"Write dataset: {wanted}",
            )
        needed = ("train",) if self.recipe.held_out else ("train", "val")
        for name in needed if wanted == "image-folder" and self.data.is_dir() else ():
            if not (self.data / name).is_dir():
                raise DatasetError(
                    f"{self.data} has no folder {name}.",
                    next_step="Put training images into train/CLASS/, validation images into "
                    "val/CLASS/.",
                )

    def check_batches(self, images: int, processes: int) -> None:
        """Check that every process gets an image of each batch.

        Raises:
            TrainingError: There are more processes than images in a batch.
        """
        smallest = min(images, *(stage.batch_size for stage in self.recipe.stages))
        if smallest < processes:
            raise TrainingError(
                f"{processes} processes cannot share batches of {smallest} images.",
                next_step="Start fewer processes, or use larger batches.",
            )
