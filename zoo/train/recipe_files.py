"""Files of recipes: reading one, those of the package, and the one that a name means. No torch."""

import functools
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from splitrun.errors import RecipeError, UnknownNameError
from splitrun.registry import close_matches
from splitrun.text import check_texts

from ..models import registered
from ..spec import ModelSpec
from .recipe import Recipe, Stage

FOLDER = Path(__file__).with_name("recipes")
MAX_RECIPE_BYTES = 1 << 20
YAML_SUFFIXES = (".yaml", ".yml")


def _check_lines(data: Any) -> None:
    """Check the texts of a recipe; those of several lines are read as one."""
    about = data.get("about") if isinstance(data, dict) else None
    if isinstance(about, str):
        data["about"] = " ".join(about.split())
    check_texts(data)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a YAML file.

    Raises:
        RecipeError: The file is missing, is not YAML, or is not a recipe.
    """
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise RecipeError(f"{path} is not a recipe: it is larger than 1 MiB.")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            # An alias of an alias of an alias fills any memory.
            raise RecipeError(f"{path} uses YAML aliases (& and *): write the text out.")
        data = yaml.safe_load(text)
        _check_lines(data)
    except (OSError, UnicodeDecodeError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise RecipeError(
            f"Cannot read {path}: {reason}.", next_step="List recipes: splitzoo zoo recipe"
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = str(getattr(error, "problem_mark", "")).strip().partition("\n")[0]
        raise RecipeError(f"{path} is not YAML: {where or error}.") from error
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise RecipeError(
            f"{path} is not a recipe: {where}: {first['msg']}.",
            next_step="Print an example: splitzoo zoo recipe splittable_resnet50-fp-beta0.16",
        ) from error


@functools.cache
def recipes() -> dict[str, Recipe]:
    """Return the package's recipes by the names of their files, without ``.yaml``."""
    return {path.stem: read_recipe(path) for path in sorted(FOLDER.glob("*.yaml"))}


def find_recipe(name: str | Path, model: str = "") -> tuple[str, Recipe, ModelSpec]:
    """Return a recipe and the model that it is to train.

    Args:
        name: Name of a recipe of the package, or of a model or experiment that one trains; or the
            path of a YAML file.
        model: Model to train, if the recipe has several.

    Returns:
        The recipe's own name, the recipe, and the model's spec.

    Raises:
        UnknownNameError: There is no recipe of that name, or the recipe has no such model.
        RecipeError: The file is not a recipe, or several models could be meant.
    """
    text = str(name)
    if text.endswith(YAML_SUFFIXES):
        recipe = read_recipe(Path(name))
        return Path(name).stem, recipe, recipe.spec(model)
    if text in recipes():
        return text, recipes()[text], recipes()[text].spec(model)
    canonical = registered().get(text).name if text in registered() else text
    for stem, recipe in recipes().items():
        if canonical in recipe.names():
            return stem, recipe, recipe.spec(canonical)
    if canonical in registered():
        raise RecipeError(
            f"{canonical} has no recipe: it is made of published parts.",
            next_step="List what can be trained: splitzoo zoo recipe",
        )
    known = [*recipes(), *(name for recipe in recipes().values() for name in recipe.names())]
    raise UnknownNameError(
        "recipe", text, close_matches(text, known), next_step="List recipes: splitzoo zoo recipe"
    )


def stages_of(name: str) -> tuple[Stage, ...]:
    """Return the stages of the package's recipe for a model; empty if there is none."""
    return next((recipe.stages for recipe in recipes().values() if name in recipe.names()), ())
