"""The model at the start of training: random, taken from its teacher, or from another model."""

from pathlib import Path

from splitrun.errors import RecipeError, TrainingError

from ..parts import build
from ..pretrained import copy_weights, whole_spec
from ..resolve import ModelSource
from ..spec import ModelSpec
from ..split_model import SplitModel
from .recipe import Recipe, Start


def load_teacher(recipe: Recipe, teacher: str | Path = "") -> SplitModel | None:
    """Load the network that a recipe's students learn from.

    Args:
        recipe: That names it.
        teacher: A name or folder that takes the place of the recipe's.

    Raises:
        RecipeError: It is no whole network.
        SplitzooError: It cannot be loaded; the error says what to do.
    """
    if not recipe.teacher:
        return None
    found = ModelSource.of(str(teacher or recipe.teacher)).load()
    if not whole_spec(found.spec):
        raise RecipeError(
            f"{found.spec.name} cannot teach: it is cut, and a teacher is a whole network.",
            next_step="A whole network is one in front of which the image is coded, such as "
            "resnet50-png.",
        )
    for one in found.parameters():
        one.requires_grad_(False)
    return found.eval()


def build_student(
    recipe: Recipe,
    spec: ModelSpec,
    teacher: SplitModel | None,
    *,
    seed: int,
    start: str | Path = "",
) -> SplitModel:
    """Build the model that is to be trained.

    The parts that it shares with its teacher's backbone are the teacher's, then those that the
    recipe takes from another model are that one's; the others are random.

    Args:
        recipe: Of the training.
        spec: Of the model.
        teacher: Its network.
        seed: Of the random parts.
        start: A name or folder that takes the place of the recipe's ``start.model``.

    Raises:
        SpecError: Teacher and student are not of the same network.
        TrainingError: They take images of another mean and deviation.
    """
    student = build(spec, seed=seed)
    if teacher is not None:
        _check_input(student, teacher)
        whole = teacher.decoder.get_submodule("tail").state_dict()
        if spec.cut is not None:
            copy_weights(student.decoder.get_submodule("tail"), whole, spec.name, teacher.spec.name)
        if spec.bottleneck.kind in ("entropy-bottleneck", "feature-codec"):
            copy_weights(student.encoder, whole, spec.name, teacher.spec.name)
        elif spec.cut is None:
            copy_weights(student.decoder.get_submodule("tail"), whole, spec.name, teacher.spec.name)
    if recipe.start is not None:
        _start(student, recipe.start, start)
    elif start:
        raise RecipeError("The recipe starts from no other model: leave --start out.")
    return student


def _start(student: SplitModel, start: Start, given: str | Path) -> None:
    name = str(given or start.source(student.spec.name))
    source = ModelSource.of(name).load()
    for ours, theirs in start.parts.items():
        try:
            part, state = student.get_submodule(ours), source.get_submodule(theirs).state_dict()
        except AttributeError as error:
            raise RecipeError(f"start.parts: {ours} or {theirs} is no part: {error}.") from error
        copy_weights(part, state, student.spec.name, name)


def _check_input(student: SplitModel, teacher: SplitModel) -> None:
    """Refuse a teacher that takes images normalised otherwise than the student does."""
    given, wanted = student.spec.preprocessing, teacher.spec.bottleneck
    ours, theirs = student.spec.labels, teacher.spec.labels
    if ours and theirs and ours != theirs:
        raise TrainingError(
            f"{teacher.spec.name} knows other classes ({', '.join(theirs[:4])} …) than the "
            f"images have ({', '.join(ours[:4])} …)."
        )
    if student.spec.cut is None:
        return
    if (given.mean, given.std) != (getattr(wanted, "mean", None), getattr(wanted, "std", None)):
        raise TrainingError(
            f"{teacher.spec.name} takes images of another mean and deviation than "
            f"{student.spec.name} does."
        )
