"""The networks of a training run: the teacher, and the student as it is before training."""

from pathlib import Path

from torch import nn

from splitrun.errors import RecipeError, TrainingError

from ..bottlenecks.factorized_prior import TABLE_BUFFERS
from ..bottlenecks.variable_rate import VariableRate
from ..fixed_rate import fixed_rate
from ..models import is_name
from ..parts import build
from ..pretrained import copy_weights
from ..resolve import ModelSource
from ..spec import ModelSpec
from ..split_model import SplitModel
from .recipe import Recipe
from .recipe_files import recipes
from .trained_parts import is_frozen


def load_teacher(recipe: Recipe, teacher: str | Path = "") -> SplitModel | None:
    """Load the network that a recipe's students learn from, or ``teacher`` in its place.

    Raises:
        RecipeError: It is not a whole network, or a recipe has to train it first.
        SplitzooError: It cannot be loaded; the error says what to do.
    """
    if not recipe.teacher:
        return None
    wanted = str(teacher or recipe.teacher)
    training = [stem for stem, one in recipes().items() if wanted in one.names()]
    if training and not is_name(wanted):
        raise RecipeError(
            f"The teacher, {wanted}, does not come with the package.",
            next_step=f"Train it, and give its folder: splitzoo zoo train {training[0]} -o RUN; "
            "--teacher RUN/model",
        )
    model = ModelSource.of(wanted).load()
    if model.spec.cut is not None or model.spec.method != "input-compression":
        raise RecipeError(
            f"{model.spec.name} cannot teach: it is cut, and a teacher is a whole network.",
            next_step="Use a network with an image codec in front, such as resnet50-png.",
        )
    return model.requires_grad_(False).eval()


def with_classes_of_teacher(spec: ModelSpec, recipe: Recipe, teacher: str | Path) -> ModelSpec:
    """Return the spec of a student with the classes that its teacher knows."""
    theirs = ModelSource.of(str(teacher or recipe.teacher)).spec()
    fields = ("dataset", "num_classes", "labels")
    return spec.model_copy(update={name: getattr(theirs, name) for name in fields})


def build_student(
    recipe: Recipe,
    spec: ModelSpec,
    teacher: SplitModel | None,
    *,
    seed: int,
    start: str | Path = "",
) -> SplitModel:
    """Build the model that is to be trained.

    Parts that it shares with the teacher's backbone get the teacher's weights, parts that the
    recipe takes from another model get that model's; all others are random.

    Args:
        recipe: Recipe of the training.
        spec: Spec of the model.
        teacher: Teacher of the model, if it has one.
        seed: Seed for the random parts.
        start: Name or folder of a model in place of ``recipe.start.model``.

    Raises:
        RecipeError: ``start`` is given, and the recipe starts from no model; or a part is missing.
        SpecError: Teacher and student are not the same network; or a model of variable rate, which
            the recipe starts from, has no level of the student's β.
        TrainingError: Their images are normalised differently, or they have other classes.
    """
    if start and recipe.start is None:
        raise RecipeError("The recipe starts from no other model: leave --start out.")
    student = build(spec, seed=seed)
    if teacher is not None:
        _check_input(spec, teacher.spec)
        theirs = teacher.decoder.get_submodule("tail")
        # That of a dense task holds the backbone in `body`.
        backbone = getattr(theirs, "body", theirs)
        parts = [(student.decoder.get_submodule("tail"), theirs)]
        parts += [(part, backbone) for part in layers_of_backbone(student)]
        for part, other in parts:
            copy_weights(part, other.state_dict(), spec.name, teacher.spec.name)
    if recipe.start is not None:
        name = str(start or recipe.start.source(spec.name))
        source = ModelSource.of(name).load()
        if isinstance(source.bottleneck, VariableRate) and spec.beta is not None:
            source = fixed_rate(source, spec.beta)
        for ours, theirs in recipe.start.parts.items():
            try:
                part, other = student.get_submodule(ours), source.get_submodule(theirs)
            except AttributeError as error:
                raise RecipeError(f"start.parts: no part {ours} or {theirs}: {error}.") from error
            # Tables are made when the training ends, and may be longer or shorter here.
            weights = {
                key: tensor
                for key, tensor in other.state_dict().items()
                if not key.endswith(TABLE_BUFFERS)
            }
            copy_weights(part, weights, spec.name, name)
    return student


def layers_of_backbone(student: SplitModel) -> list[nn.Module]:
    """Return the encoder's part that is the backbone's own, if it has one."""
    if student.spec.bottleneck.kind in ("entropy-bottleneck", "feature-codec"):
        return [student.encoder]
    return [part for name, part in student.encoder.named_children() if name == "head"]


def kept_tail(recipe: Recipe, teacher: SplitModel | None) -> str:
    """Return the name of the published network whose tail the stages leave as it is, or nothing."""
    kept = all(is_frozen("decoder.tail", stage) for stage in recipe.stages)
    published = teacher and teacher.training_record is None and is_name(teacher.spec.name)
    return teacher.spec.name if teacher and kept and published else ""


def _check_input(student: ModelSpec, teacher: ModelSpec) -> None:
    """Check that a teacher has the student's classes and takes images as the student does."""
    if student.labels and teacher.labels and student.labels != teacher.labels:
        raise TrainingError(
            f"{teacher.name} knows other classes ({', '.join(teacher.labels[:4])} …) than the "
            f"images have ({', '.join(student.labels[:4])} …)."
        )
    given, wanted = student.preprocessing, teacher.bottleneck
    normalised = (getattr(wanted, "mean", None), getattr(wanted, "std", None))
    if student.cut is not None and (given.mean, given.std) != normalised:
        raise TrainingError(
            f"{teacher.name} takes images of another mean and deviation than {student.name} does."
        )
