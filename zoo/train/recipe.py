"""Recipes: how models are trained, as readable YAML files. Imports no torch.

One file serves all models that differ in β or channels alone. The files of this package hold the
training of the SC2 paper (TMLR 2023), Appendices C and D, as sc2-benchmark's configurations have
it, and that of the small family trained on images of flowers.
"""

import functools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from splitrun.errors import RecipeError, UnknownNameError
from splitrun.registry import close_matches

from ..bottleneck_specs import Part
from ..models import find_spec, registered
from ..spec import ModelSpec

FOLDER = Path(__file__).with_name("recipes")
MAX_RECIPE_BYTES = 1 << 20

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,120}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]


def _as_tuple(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


Modules = Annotated[tuple[Module, ...], BeforeValidator(_as_tuple), Field(max_length=100)]


class TaskLoss(Part):
    """The task's own loss: cross entropy; for detectors, torchvision's four losses, summed.

    Attributes:
        auxiliary: Weight of the loss of a segmentation network's auxiliary head.
        label_smoothing: Of the cross entropy.
    """

    kind: Literal["task"]
    weight: Weight = 1.0
    auxiliary: Weight = 0.5
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __str__(self) -> str:
        return "the task's loss"


class FeatureLoss(Part):
    """Squared error between student's and teacher's features, summed over elements and layers.

    Attributes:
        layers: Of the backbone, as timm names them; by default each layer that ends a stage, from
            the cut on.
        reduction: ``sum`` over the images of a batch, or their ``mean``.
    """

    kind: Literal["features"]
    weight: Weight = 1.0
    layers: Modules = ()
    reduction: Literal["sum", "mean"] = "sum"

    def __str__(self) -> str:
        return f"squared error to the teacher's {', '.join(self.layers) or 'features'}"


class Distillation(Part):
    """Cross entropy and divergence from the teacher's answers: Eq. 5 and 6 of the SC2 paper.

    Attributes:
        alpha: Share of the cross entropy.
        temperature: That softens both answers.
    """

    kind: Literal["distillation"]
    weight: Weight = 1.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    temperature: Positive = 1.0

    def __str__(self) -> str:
        return f"distillation (alpha {self.alpha:g}, temperature {self.temperature:g})"


class RateLoss(Part):
    """Bits of the latent by its learned density: the second term of Eq. 8 of the SC2 paper.

    Attributes:
        weight: None stands for the model's β.
        reduction: ``sum`` over the images of a batch, or their ``mean``.
    """

    kind: Literal["rate"]
    weight: Weight | None = None
    reduction: Literal["sum", "mean"] = "sum"

    def __str__(self) -> str:
        return "β · bits" if self.weight is None else f"{self.weight:g} · bits"


AnyLoss = Annotated[TaskLoss | FeatureLoss | Distillation | RateLoss, Field(discriminator="kind")]


class Optimizer(Part):
    """What updates the weights.

    Attributes:
        rates: Learning rates of parts that have another one, by their paths in the model.
        decay_all: Weight decay acts on biases and norms too, as PyTorch's optimisers do.
    """

    kind: Literal["adam", "adamw", "sgd"]
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Weight = 0.0
    rates: dict[Module, Positive] = Field(default={})
    decay_all: bool = True

    def __str__(self) -> str:
        parts = [self.kind.replace("adam", "Adam").replace("sgd", "SGD").replace("mw", "mW")]
        parts += [f"momentum {self.momentum:g}"] if self.momentum else []
        parts += [f"weight decay {self.weight_decay:g}"] if self.weight_decay else []
        return ", ".join(parts)


class Schedule(Part):
    """How the learning rate goes on from its first value.

    Attributes:
        kind: ``steps``: multiplied by ``factor`` after the epochs of ``milestones``; ``cosine``: to
            zero; ``polynomial``: Eq. 7 of the SC2 paper, to zero.
        warmup: Epochs over which it rises to its first value.
    """

    kind: Literal["steps", "cosine", "polynomial"] = "steps"
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = ()
    factor: Positive = 0.1
    power: Positive = 0.9
    warmup: Weight = 0.0

    def at(self, epoch: float, epochs: float) -> float:
        """Return the factor on the learning rate after ``epoch`` of ``epochs`` epochs."""
        if epoch < self.warmup:
            return (epoch + 1e-3) / self.warmup
        if self.kind == "steps":
            return self.factor ** sum(epoch >= one for one in self.milestones)
        passed = min((epoch - self.warmup) / max(epochs - self.warmup, 1e-9), 1.0)
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * passed))
        return (1 - passed) ** self.power

    def __str__(self) -> str:
        if self.kind == "steps":
            return f"cut after {', '.join(f'{one:g}' for one in self.milestones)}" * bool(
                self.milestones
            )
        return {"cosine": "falling as a cosine", "polynomial": "falling as a polynomial"}[self.kind]


class Augmentation(Part):
    """How training images are varied.

    Attributes:
        crop: ``resized``: a random part, of ``scale`` of the area, resized; ``patch``: a random
            part of the image as evaluation scales it; ``none``: as in evaluation.
        size: Height and width of the images that the network is trained on, pixels; None for
            those of the model's input.
        scale: Smallest and largest share of the area; for segmentation, shortest and longest
            shorter side, pixels.
        jitter: Of brightness, contrast and saturation, as shares.
    """

    crop: Literal["resized", "patch", "none"] = "resized"
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale goes from {self.scale[0]} down to {self.scale[1]}")
        return self


class Stage(Part):
    """One stage of training; the next begins with the weights that it ends with.

    Attributes:
        frozen: Parts, by their paths in the model, that stay as they are. They run as in
            evaluation: a frozen coder rounds, a frozen batch norm keeps its statistics.
        select: Whose weights are kept: those of the ``last`` epoch, or of the ``best`` on the
            validation images.
        validate_every: So many epochs are between two looks at the validation images; the last is
            always looked at.
        clip_norm: Bound of the gradient's norm.
    """

    losses: Annotated[tuple[AnyLoss, ...], Field(min_length=1, max_length=16)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=1, le=1 << 16)]
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    frozen: Modules = ()
    select: Literal["best", "last"] = "best"
    validate_every: Annotated[int, Field(ge=1)] = 1
    clip_norm: Positive | None = None

    def validates(self, epoch: int) -> bool:
        """Say whether the weights after an epoch, from 1, are looked at."""
        return epoch % self.validate_every == 0 or epoch == self.epochs

    def for_epochs(self, epochs: int) -> "Stage":
        """Return the stage with another number of epochs, its schedule scaled with it."""
        ratio = epochs / self.epochs
        schedule = self.schedule.model_copy(
            update={
                "milestones": tuple(one * ratio for one in self.schedule.milestones),
                "warmup": self.schedule.warmup * ratio,
            }
        )
        return self.model_copy(update={"epochs": epochs, "schedule": schedule})

    @property
    def objective(self) -> str:
        """What is lowered, in words."""
        words = [str(one) for one in self.losses]
        return " + ".join(words)

    @property
    def learning(self) -> str:
        """Optimiser and schedule, in words."""
        words = [str(self.optimizer), str(self.schedule)]
        return ", ".join(one for one in words if one)


class Start(Part):
    """Parts that begin with the weights of another model.

    Attributes:
        model: Its name; ``{beta}`` and ``{prior}`` stand for those in this model's.
        parts: Paths in this model to paths in that one.
    """

    model: str = Field(max_length=200)
    parts: dict[Module, Module]

    def source(self, name: str) -> str:
        """Return the name of the model that the one of this name starts from."""
        found = re.search(r"-((?P<prior>fp|shp|mshp)-)?beta(?P<beta>[0-9.]+(e-?[0-9]+)?)", name)
        words = found.groupdict("") if found else {}
        text = self.model
        for key in ("beta", "prior"):
            text = text.replace(f"{{{key}}}", words.get(key) or "")
        return text


class Variant(Part):
    """A model that no method's name describes: one that is like another, but for some fields.

    Attributes:
        like: A name that ``zoo.get_spec`` takes.
        beta: Weight of the rate.
        bottleneck: Fields of the bottleneck that differ.
        preprocessing: Fields of the preprocessing that differ.
    """

    name: Name
    like: str = Field(max_length=200)
    beta: Weight | None = None
    bottleneck: dict[str, Any] = Field(default={})
    preprocessing: dict[str, Any] = Field(default={})


class Recipe(Part):
    """How some models are trained.

    Attributes:
        about: One sentence.
        models: Names, or variants, of the models.
        dataset: ``image-folder``: ``train`` and ``val``, each with a folder per class; ``coco``:
            the folders and annotations of COCO 2017; ``voc``: PASCAL VOC 2012.
        teacher: The network that the students begin with and learn from: a name or a folder of a
            model that is not cut. Empty: everything begins at random.
        start: Weights that take the place of the teacher's.
    """

    about: str = Field(max_length=2000)
    models: Annotated[tuple[Name | Variant, ...], Field(min_length=1, max_length=1000)]
    dataset: Literal["image-folder", "coco", "voc"] = "image-folder"
    teacher: str = Field(default="", max_length=500)
    start: Start | None = None
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        taught = any(
            isinstance(one, FeatureLoss | Distillation)
            for stage in self.stages
            for one in stage.losses
        )
        if taught and not self.teacher:
            raise ValueError("a loss compares with a teacher, and none is named")
        return self

    def names(self) -> list[str]:
        """Return the names of the models."""
        return [one if isinstance(one, str) else one.name for one in self.models]

    def spec(self, name: str = "") -> ModelSpec:
        """Return the spec of one of the models.

        Args:
            name: Of the model; may be left out where there is one.

        Raises:
            RecipeError: No model is named, and there are several; or a variant makes no sense.
            UnknownNameError: The recipe has no such model.
        """
        names = self.names()
        if not name and len(names) > 1:
            raise RecipeError(
                f"The recipe is for {len(names)} models.",
                next_step=f"Name one with --model: {', '.join(names)}",
            )
        name = name or names[0]
        if name not in names:
            raise UnknownNameError("model of this recipe", name, close_matches(name, names))
        chosen = self.models[names.index(name)]
        return find_spec(chosen) if isinstance(chosen, str) else _variant_spec(chosen)


def _variant_spec(variant: Variant) -> ModelSpec:
    like = find_spec(variant.like)
    try:
        return ModelSpec.model_validate(
            {
                **like.model_dump(),
                "name": variant.name,
                "beta": like.beta if variant.beta is None else variant.beta,
                "bottleneck": {**like.bottleneck.model_dump(), **variant.bottleneck},
                "preprocessing": {**like.model_dump()["preprocessing"], **variant.preprocessing},
                # The folder of a classifier's images says their classes.
                "dataset": "" if like.task == "image-classification" else like.dataset,
                "reference": "",
                "base_model": "",
            }
        )
    except (TypeError, ValueError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise RecipeError(
            f"The model {variant.name} cannot be like {variant.like}: {first}."
        ) from error


def read_recipe(path: Path) -> Recipe:
    """Read a recipe's file.

    Raises:
        RecipeError: It is missing, no YAML, or no recipe.
    """
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise RecipeError(f"{path} is larger than 1 MiB: it is no recipe.")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(one, yaml.AliasEvent) for one in yaml.parse(text, yaml.SafeLoader)):
            # An alias of an alias of an alias fills any memory.
            raise RecipeError(f"{path} uses YAML's aliases (& and *): write the text out.")
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise RecipeError(
            f"Cannot read {path}: {reason}.", next_step="Recipes by name: splitzoo zoo recipe"
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = str(getattr(error, "problem_mark", "")).strip().partition("\n")[0]
        raise RecipeError(f"{path} is no YAML: {where or error}.") from error
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(one) for one in first["loc"]) or "the document"
        raise RecipeError(
            f"{path} is no recipe: {where}: {first['msg']}.",
            next_step="An example to begin with: splitzoo zoo recipe "
            "splittable_resnet50-fp-beta0.16",
        ) from error


@functools.cache
def recipes() -> dict[str, Recipe]:
    """Return the recipes of this package by the names of their files, without ``.yaml``."""
    return {path.stem: read_recipe(path) for path in sorted(FOLDER.glob("*.yaml"))}


def find_recipe(name: str | Path, model: str = "") -> tuple[str, Recipe, ModelSpec]:
    """Return a recipe and the model that it is to train.

    Args:
        name: Of a model or experiment that a recipe of this package trains; of such a recipe; or
            the path of a YAML file.
        model: The one to train, where the recipe has several.

    Returns:
        The recipe's own name, the recipe, and the model's spec.

    Raises:
        UnknownNameError: There is no recipe of that name, or the recipe has no such model.
        RecipeError: The file is no recipe, or several models could be meant.
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        recipe = read_recipe(Path(name))
        return Path(name).stem, recipe, recipe.spec(model)
    if text in recipes():
        return text, recipes()[text], recipes()[text].spec(model)
    canonical = registered().get(text).name if text in registered() else text
    for stem, recipe in recipes().items():
        if canonical in recipe.names():
            return stem, recipe, recipe.spec(canonical)
    known = [*recipes(), *_trained_names()]
    if canonical in registered():
        raise RecipeError(
            f"{canonical} is not trained: it is made of published parts.",
            next_step="What is trained: splitzoo zoo recipe",
        )
    raise UnknownNameError(
        "recipe", text, close_matches(text, known), next_step="See: splitzoo zoo recipe"
    )


def stages_of(name: str) -> tuple[Stage, ...]:
    """Return the stages in which a model of a recipe of this package is trained; or none."""
    return next((recipe.stages for recipe in recipes().values() if name in recipe.names()), ())


def _trained_names() -> Iterator[str]:
    for recipe in recipes().values():
        yield from recipe.names()
