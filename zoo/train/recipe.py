"""Recipes: how models are trained, as readable YAML files. Imports no torch.

One file serves all models that differ only in β or channels. The package's recipes are those of the
SC2 paper (TMLR 2023), as its repository sc2-benchmark configures them and, where its text says
otherwise, as its text has them; and those of the small family on images of flowers.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from splitrun.errors import RecipeError, UnknownNameError
from splitrun.registry import close_matches

from ..bottleneck_specs import Part, Positive
from ..models import find_spec
from ..spec import ModelSpec

Source = Literal["paper", "repository"]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Module = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,120}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,119}$")]
Modules = Annotated[
    tuple[Module, ...],
    BeforeValidator(lambda value: tuple(value.split()) if isinstance(value, str) else value),
    Field(max_length=100),
]


class TaskLoss(Part):
    """The task's own loss: cross entropy; for detectors, the sum of torchvision's four losses.

    Attributes:
        auxiliary: Weight of the loss of a segmentation network's auxiliary head.
        label_smoothing: Smoothing of the cross entropy's labels.
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
        layers: Layers of the backbone, as timm names them; by default each layer that ends a stage,
            from the cut on.
        reduction: ``sum`` over the images of a batch, or their ``mean``.
    """

    kind: Literal["features"]
    weight: Weight = 1.0
    layers: Modules = ()
    reduction: Literal["sum", "mean"] = "sum"

    def __str__(self) -> str:
        return f"squared error to the teacher's {', '.join(self.layers) or 'features'}"


class Distillation(Part):
    """Cross entropy and divergence from the teacher's logits: Eq. 5 and 6 of the SC2 paper.

    Attributes:
        alpha: Share of the cross entropy.
        temperature: Temperature that softens the logits of both networks.
    """

    kind: Literal["distillation"]
    weight: Weight = 1.0
    alpha: Share = 0.5
    temperature: Positive = 1.0

    def __str__(self) -> str:
        return f"distillation (alpha {self.alpha:g}, temperature {self.temperature:g})"


class RateLoss(Part):
    """Bits of the latent by its learned density: the second term of Eq. 8 of the SC2 paper.

    Attributes:
        weight: Weight of the bits; None stands for the model's β, or where that varies, for the β
            of each image's level, which is drawn at random.
        reduction: ``sum`` over the images of a batch, or their ``mean``.
    """

    kind: Literal["rate"]
    weight: Weight | None = None
    reduction: Literal["sum", "mean"] = "sum"

    def __str__(self) -> str:
        return "β · bits" if self.weight is None else f"{self.weight:g} · bits"


AnyLoss = Annotated[TaskLoss | FeatureLoss | Distillation | RateLoss, Field(discriminator="kind")]


class Optimizer(Part):
    """The optimiser of a stage.

    Attributes:
        rates: Learning rates of parts that have their own, by their paths in the model.
        decay_all: Whether weight decay acts on biases and norms too, as in PyTorch's optimisers.
    """

    kind: Literal["adam", "adamw", "sgd"]
    learning_rate: Positive
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Weight = 0.0
    rates: dict[Module, Positive] = Field(default={})
    decay_all: bool = True

    def __str__(self) -> str:
        parts = [{"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[self.kind]]
        parts += [f"momentum {self.momentum:g}"] if self.momentum else []
        parts += [f"weight decay {self.weight_decay:g}"] if self.weight_decay else []
        return ", ".join(parts)


class Schedule(Part):
    """How the learning rate falls during a stage.

    Attributes:
        kind: ``steps``: multiplied by ``factor`` after the epochs of ``milestones``; ``cosine``: to
            zero; ``polynomial``: to zero by Eq. 7 of the SC2 paper.
        warmup: Epochs in which the rate first rises to its full value.
    """

    kind: Literal["steps", "cosine", "polynomial"] = "steps"
    milestones: tuple[Positive, ...] = ()
    factor: Positive = 0.1
    power: Positive = 0.9
    warmup: Weight = 0.0

    def at(self, epoch: float, epochs: float) -> float:
        """Return the factor on the learning rate after ``epoch`` of ``epochs`` epochs."""
        if epoch < self.warmup:
            return (epoch + 1e-3) / self.warmup
        if self.kind == "steps":
            return self.factor ** sum(epoch >= milestone for milestone in self.milestones)
        passed = min((epoch - self.warmup) / max(epochs - self.warmup, 1e-9), 1.0)
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * passed))
        return (1 - passed) ** self.power

    def __str__(self) -> str:
        if self.kind == "steps":
            milestones = ", ".join(f"{milestone:g}" for milestone in self.milestones)
            return f"cut after {milestones}" if milestones else ""
        return f"falling as a {self.kind}"


class Augmentation(Part):
    """How training images are varied.

    Attributes:
        crop: ``resized``: a random part of the image, ``scale`` of its area, resized; ``patch``: a
            random part of the image as evaluation scales it; ``none``: as in evaluation.
        size: Height and width of training images, pixels; None: those of the model's input.
        scale: Smallest and largest share of the area; for segmentation, smallest and largest
            length of the shorter side, pixels.
        flip: Probability that an image is mirrored.
        jitter: Variation of brightness, contrast and saturation, as shares.
    """

    crop: Literal["resized", "patch", "none"] = "resized"
    size: Annotated[int, Field(ge=16, le=4096)] | None = None
    scale: tuple[Positive, Positive] = (0.08, 1.0)
    flip: Share = 0.5
    jitter: Share = 0.0

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale goes from {self.scale[0]} down to {self.scale[1]}")
        return self


class Stage(Part):
    """One stage of training; the next one begins with the weights that it ends with.

    Attributes:
        parts: Number of parts that a batch is computed in, one after the other, to save memory.
            Losses and gradients are their mean; a batch norm sees one part at a time.
        frozen: Parts that do not change, by their paths in the model. They run as in evaluation: a
            frozen bottleneck rounds, a frozen batch norm keeps its statistics.
        select: Epoch whose weights are kept: the ``last``; the ``best`` on the validation images;
            or ``improved``, the best if it is better than what the stage began with, else that.
        validate_every: Number of epochs between validations; the last epoch is always validated.
        clip_norm: Bound of the gradient's norm.
        integers: Whether a hyperprior's h_s is computed in integers, as entropy coding computes it;
            gradients are those of the floats that the integers are made of.
        rounded: Whether the decoder sees rounded latents in training, gradients passing as if they
            were not, and the density noisy ones. At low rates most symbols are 0, and noise in
            their place hides the rest.
    """

    losses: Annotated[tuple[AnyLoss, ...], Field(min_length=1, max_length=16)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    batch_size: Annotated[int, Field(ge=1, le=1 << 16)]
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    augmentation: Augmentation = Augmentation()
    parts: Annotated[int, Field(ge=1, le=1 << 10)] = 1
    frozen: Modules = ()
    select: Literal["best", "last", "improved"] = "best"
    validate_every: Annotated[int, Field(ge=1)] = 1
    clip_norm: Positive | None = None
    integers: bool = False
    rounded: bool = False

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        if self.batch_size % self.parts:
            raise ValueError(f"a batch of {self.batch_size} has no {self.parts} equal parts")
        return self

    def validates(self, epoch: int) -> bool:
        """Return whether the weights are validated after an epoch, counted from 1."""
        return epoch % self.validate_every == 0 or epoch == self.epochs

    def with_epochs(self, epochs: int) -> "Stage":
        """Return the stage with another number of epochs, its schedule scaled with it."""
        ratio = epochs / self.epochs
        milestones = tuple(milestone * ratio for milestone in self.schedule.milestones)
        scaled = {"milestones": milestones, "warmup": self.schedule.warmup * ratio}
        schedule = self.schedule.model_copy(update=scaled)
        return self.model_copy(update={"epochs": epochs, "schedule": schedule})

    @property
    def objective(self) -> str:
        """What is lowered, in words."""
        return " + ".join(str(loss) for loss in self.losses)

    @property
    def learning(self) -> str:
        """Optimiser and schedule, in words."""
        return ", ".join(filter(None, (str(self.optimizer), str(self.schedule))))


class Start(Part):
    """Parts that begin with the weights of another model.

    Attributes:
        model: Name of the other model; ``{beta}`` and ``{prior}`` stand for those in the trained
            model's name.
        parts: Paths in the trained model, each with its path in the other one.
    """

    model: str = Field(max_length=200)
    parts: dict[Module, Module]

    def source(self, name: str) -> str:
        """Return the name of the model that the model ``name`` starts from."""
        found = re.search(r"-((?P<prior>fp|shp|mshp)-)?beta(?P<beta>[0-9.]+(e-?[0-9]+)?)", name)
        words = found.groupdict("") if found else {}
        return re.sub(r"\{(beta|prior)\}", lambda field: words.get(field[1], ""), self.model)


class Variant(Part):
    """A model of the recipe's own: like a registered one, but for some fields.

    Attributes:
        like: Name that ``zoo.get_spec`` takes.
        beta: Weight of the rate.
        bottleneck: Fields of the bottleneck that differ.
        preprocessing: Fields of the preprocessing that differ.
    """

    name: Name
    like: str = Field(max_length=200)
    beta: Weight | None = None
    bottleneck: dict[str, Any] = Field(default={})
    preprocessing: dict[str, Any] = Field(default={})

    def spec(self) -> ModelSpec:
        """Return the spec of the variant.

        Raises:
            RecipeError: Its fields do not make a model.
        """
        like = find_spec(self.like)
        fields = like.model_dump()
        try:
            return ModelSpec.model_validate(
                {
                    **fields,
                    "name": self.name,
                    "beta": like.beta if self.beta is None else self.beta,
                    "bottleneck": {**fields["bottleneck"], **self.bottleneck},
                    "preprocessing": {**fields["preprocessing"], **self.preprocessing},
                    # Its classes are those of the data: folders, or categories of boxes.
                    "dataset": like.dataset if like.task == "semantic-segmentation" else "",
                    "reference": "",
                    "base_model": "",
                }
            )
        except (TypeError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise RecipeError(
                f"The model {self.name} cannot be like {self.like}: {reason}."
            ) from error


class Recipe(Part):
    """How a group of models is trained.

    Attributes:
        about: Description in one sentence.
        sources: Sources whose values ``stages`` has: the SC2 paper's text, its repository
            sc2-benchmark, or both; none where they are of one's own.
        models: Names, or variants, of the models.
        dataset: ``image-folder``: ``train`` and ``val``, each with a folder per class; ``coco``:
            the folders and annotations of COCO 2017; ``voc``: PASCAL VOC 2012; ``unlabelled``: any
            folder of images, for students that only imitate a classifier. Their scores are the
            agreement with the teacher on the images that are held out.
        teacher: Network that the students begin with and learn from: name or folder of a model that
            is not cut. Empty: all weights begin at random.
        start: Weights that take the place of the teacher's.
        components: Number of training images from whose features residual bottlenecks get the
            linear transforms that they begin with; 0 leaves them at random.
        held_out: Share of the training images that is not trained on. Stages are validated with it
            in place of the validation images, which then nothing was chosen by.
        paper_stages: Stages as the paper's text has them, where it differs from ``stages``.
    """

    about: str = Field(max_length=2000)
    sources: tuple[Source, ...] = ()
    models: Annotated[tuple[Name | Variant, ...], Field(min_length=1, max_length=1000)]
    dataset: Literal["image-folder", "coco", "voc", "unlabelled"] = "image-folder"
    teacher: str = Field(default="", max_length=500)
    start: Start | None = None
    components: Annotated[int, Field(ge=0, le=100_000)] = 0
    held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=16)]
    paper_stages: Annotated[tuple[Stage, ...], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _check_teacher(self) -> Self:
        losses = [loss for stage in self.stages + self.paper_stages for loss in stage.losses]
        if not self.teacher and any(isinstance(o, FeatureLoss | Distillation) for o in losses):
            raise ValueError("a loss compares with a teacher, but the recipe names none")
        if self.components and (self.start or not self.teacher):
            raise ValueError("components are those of a teacher's features, and no start's")
        if self.dataset == "unlabelled":
            for loss in losses:
                hard = isinstance(loss, Distillation) and loss.alpha
                if isinstance(loss, TaskLoss) or hard:
                    raise ValueError(f"unlabelled images have no classes for {loss}")
            if not (self.held_out and self.teacher):
                raise ValueError("unlabelled images need a teacher, and a share that is held_out")
        if self.paper_stages and "paper" in self.sources:
            raise ValueError("stages are the paper's, and paper_stages say otherwise")
        return self

    def names(self) -> list[str]:
        """Return the names of the models."""
        return [model if isinstance(model, str) else model.name for model in self.models]

    def spec(self, name: str = "") -> ModelSpec:
        """Return the spec of one of the models.

        Args:
            name: Name of the model; may be left out if there is only one.

        Raises:
            RecipeError: No model is named, and there are several; or a variant makes no sense.
            UnknownNameError: The recipe has no such model.
        """
        names = self.names()
        if not name and len(names) > 1:
            raise RecipeError(
                f"The recipe is for {len(names)} models.",
                next_step=f"Choose one with --model: {', '.join(names)}",
            )
        name = name or names[0]
        if name not in names:
            raise UnknownNameError("model of this recipe", name, close_matches(name, names))
        model = self.models[names.index(name)]
        return find_spec(model) if isinstance(model, str) else model.spec()

    def of_source(self, source: Source) -> "Recipe":
        """Return the recipe with the values of one source.

        Raises:
            RecipeError: That source has none.
        """
        if source in self.sources:
            return self.model_copy(update={"sources": (source,), "paper_stages": ()})
        if source == "paper" and self.paper_stages:
            changes = {"sources": ("paper",), "stages": self.paper_stages, "paper_stages": ()}
            return self.model_copy(update=changes)
        raise RecipeError(
            f"The {source} says nothing of how {', '.join(self.names()[:2])} … are trained.",
            next_step="Leave --source out.",
        )

    def with_epochs(self, epochs: Sequence[int]) -> "Recipe":
        """Return the recipe with other numbers of epochs.

        Args:
            epochs: One number for all stages, or one for each; empty: no change.

        Raises:
            RecipeError: There are more or fewer numbers than stages.
        """
        if not epochs:
            return self
        numbers = list(epochs) * (len(self.stages) if len(epochs) == 1 else 1)
        if len(numbers) != len(self.stages):
            raise RecipeError(
                f"There are {len(numbers)} numbers of epochs for {len(self.stages)} stages.",
                next_step="Give --epochs once for all stages, or once for each.",
            )
        stages = zip(self.stages, numbers, strict=True)
        return self.model_copy(update={"stages": tuple(s.with_epochs(n) for s, n in stages)})

    def to_yaml(self, name: str = "") -> str:
        """Return the recipe as YAML, for one of its models alone where that is named."""
        # JSON first, so that YAML sees only plain lists and strings.
        data = json.loads(self.model_dump_json(exclude_defaults=True))
        if name:
            data["models"] = [data["models"][self.names().index(name)]]
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
