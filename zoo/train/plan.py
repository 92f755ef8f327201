"""What a training run is to do: a recipe, a model, a data set, a folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from splitrun.errors import DatasetError, RecipeError, TrainingError

from ..datasets import Dataset
from ..labels import labels_of
from ..spec import ModelSpec
from .recipe import Recipe

LOG_NAME = "log.jsonl"
RECIPE_NAME = "recipe.yaml"
MODEL_NAME = "model"
_DATASETS = {
    "image-classification": "image-folder",
    "object-detection": "coco",
    "semantic-segmentation": "voc",
}


@dataclass(frozen=True)
class Plan:
    """What is to be trained, and how.

    Attributes:
        name: Of the recipe.
        recipe: With its stages as they are to be run.
        spec: Of the model.
        data: Folder of the data set.
        run: Folder of the run.
        teacher: A name or folder in place of the recipe's.
        start: Likewise, of ``recipe.start.model``.
        seed: Of weights, order, variation and noise.
        workers: Processes that read images, beside each training process.
        mixed_precision: ``no``, ``fp16`` or ``bf16``.
        checkpoint_minutes: At most so long between checkpoints within an epoch.
        command: That was given, for the record.
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
    checkpoint_minutes: float = 10.0
    command: str = ""


def with_epochs(recipe: Recipe, epochs: Sequence[int]) -> Recipe:
    """Return a recipe whose stages have other numbers of epochs.

    Args:
        recipe: To change.
        epochs: One number for all stages, or one for each.

    Raises:
        RecipeError: There are more or fewer than stages.
    """
    if not epochs:
        return recipe
    numbers = list(epochs) * len(recipe.stages) if len(epochs) == 1 else list(epochs)
    if len(numbers) != len(recipe.stages):
        raise RecipeError(
            f"{len(numbers)} numbers of epochs for {len(recipe.stages)} stages.",
            next_step="Give --epochs once for all stages, or once for each.",
        )
    stages = tuple(
        stage.for_epochs(number) for stage, number in zip(recipe.stages, numbers, strict=True)
    )
    return recipe.model_copy(update={"stages": stages})


def recipe_text(recipe: Recipe, spec: ModelSpec) -> str:
    """Return a recipe as YAML, with the one model that it is followed for."""
    # Written as JSON first, so that YAML sees plain lists and words.
    data = json.loads(recipe.model_dump_json(exclude_defaults=True))
    data["models"] = [
        one for one in data["models"] if (one if isinstance(one, str) else one["name"]) == spec.name
    ]
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)


def check_same_data(plan: Plan) -> None:
    """Refuse a recipe for another kind of data set, and one folder for both parts.

    Raises:
        RecipeError: The recipe is for another task's data set.
        DatasetError: There are no two folders.
    """
    wanted = _DATASETS[plan.spec.task]
    if plan.recipe.dataset != wanted:
        raise RecipeError(
            f"{plan.spec.name} is trained on {wanted}, not on {plan.recipe.dataset}.",
            next_step=f"Write dataset: {wanted}",
        )
    if wanted == "image-folder" and plan.data.is_dir():
        for name in ("train", "val"):
            if not (plan.data / name).is_dir():
                raise DatasetError(
                    f"{plan.data} has no folder {name}.",
                    next_step="Put the images to learn from into train/CLASS/, others into "
                    "val/CLASS/.",
                )


def check_large_enough(recipe: Recipe, images: int, processes: int) -> None:
    """Refuse more processes than there are images in a batch.

    Raises:
        TrainingError: There are.
    """
    smallest = min(images, *(stage.batch_size for stage in recipe.stages))
    if smallest < processes:
        raise TrainingError(
            f"{processes} processes cannot share batches of {smallest} images.",
            next_step="Start fewer processes, or give larger batches.",
        )


def known_labels(spec: ModelSpec) -> tuple[str, ...]:
    """Return the labels that a model must be trained with; none where the folder says them."""
    return tuple(labels_of(spec)) if spec.dataset else ()


def with_classes(spec: ModelSpec, dataset: Dataset) -> ModelSpec:
    """Return the spec of a model that has the data set's classes, where it has none of its own."""
    if spec.dataset:
        return spec
    return spec.model_copy(
        update={
            "dataset": "custom",
            "num_classes": len(dataset.labels),
            "labels": dataset.labels,
        }
    )
