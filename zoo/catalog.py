"""Look up, build, load and save models by name or folder."""

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import SpecError, UnknownNameError, WeightsNotFoundError
from . import entropic_student  # noqa: F401  # registers its models
from .models import MODELS, ModelEntry
from .spec import ModelSpec

if TYPE_CHECKING:
    from .split_model import SplitModel

DEFAULT_MODEL = "splittable_resnet50-fp-beta0.08"
"""What the commands take when no model is named."""


def list_models(
    pattern: str = "*", *, task: str | None = None, method: str | None = None
) -> list[str]:
    """Return the names of registered models.

    Args:
        pattern: Shell-style, such as ``"*resnet50*"``; a word without wildcards matches anywhere.
        task: Keep the models of this task.
        method: Keep the models of this method.
    """
    if not any(character in pattern for character in "*?["):
        pattern = f"*{pattern}*"
    return [
        entry.spec.name
        for entry in MODELS
        if fnmatch.fnmatchcase(entry.spec.name, pattern)
        and task in (None, entry.spec.task)
        and method in (None, entry.spec.method)
    ]


def get_spec(name_or_folder: str | Path) -> ModelSpec:
    """Return the spec of a registered name or of a saved model's folder.

    Raises:
        UnknownNameError: No model has that name.
        ModelFolderError: The folder holds no readable ``config.json``.
    """
    folder = as_folder(name_or_folder)
    if folder is not None:
        from .store import read_config

        return read_config(folder).spec
    return MODELS.get(str(name_or_folder)).spec


def build(spec: ModelSpec, *, seed: int = 0) -> "SplitModel":
    """Build a model with seeded random weights, in evaluation mode and with its tables made.

    torch's global random state is left as it was.

    Raises:
        UnknownNameError: No family has the spec's method.
        SpecError: The family cannot build this spec.
    """
    import torch

    builder = _builder(spec)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            model = builder(spec)
        except (RuntimeError, ValueError, AttributeError, TypeError, OSError) as error:
            raise SpecError(f"{spec.name} cannot be built: {error}") from error
    model.eval()
    model.make_tables()
    model.random_seed = seed
    return model


def load(name_or_folder: str | Path, *, pretrained: bool = True, seed: int = 0) -> "SplitModel":
    """Load a model, in evaluation mode.

    Args:
        name_or_folder: A registered name or alias, or a folder that :func:`save` wrote.
        pretrained: False gives seeded random weights: for graphs and latency, not for answers.
        seed: Of the random weights.

    Raises:
        UnknownNameError: No model has that name.
        WeightsNotFoundError: The model is registered but no trained weights can be had.
        ModelFolderError: The folder is not a saved model, or was damaged or changed.
    """
    folder = as_folder(name_or_folder)
    if folder is not None or not pretrained:
        if not pretrained:
            model = build(get_spec(name_or_folder), seed=seed)
        else:
            from .store import load_folder

            model = load_folder(Path(name_or_folder), build)
        model.source = str(name_or_folder)
        return model
    name = MODELS.get(str(name_or_folder)).spec.name
    raise WeightsNotFoundError(
        name,
        "none are published or packaged yet",
        next_step=(
            "Give the folder of a model saved with zoo.save in place of the name, or, for graphs "
            "and latency, ask for random weights:\n"
            "  on the command line:  --random-weights\n"
            f'  in Python:            zoo.load("{name}", pretrained=False)'
        ),
    )


def save(model: "SplitModel", folder: str | Path) -> Path:
    """Write a model's folder: ``config.json`` and ``model.safetensors``, entropy tables inside.

    Returns:
        The folder.

    Raises:
        OutputError: The folder is not empty or cannot be written; nothing is left behind.
    """
    from .store import save_folder

    return save_folder(model, Path(folder))


def as_folder(name_or_folder: str | Path) -> Path | None:
    """Return the path if a folder is meant rather than a registered name.

    Raises:
        UnknownNameError: A path is meant, and no folder is there.
    """
    text = str(name_or_folder)
    path = Path(name_or_folder)
    if isinstance(name_or_folder, str) and text in MODELS:
        return None
    if path.is_dir():
        return path
    if isinstance(name_or_folder, Path) or "/" in text or "\\" in text:
        raise UnknownNameError(
            "model folder", text, next_step="Give a folder that holds config.json, or a name."
        )
    return None


def _builder(spec: ModelSpec):
    def family(one: ModelSpec) -> tuple[str, str, str]:
        return one.task, one.method, one.bottleneck.kind

    for entry in MODELS:
        if family(entry.spec) == family(spec):
            return entry.build
    methods = sorted({entry.spec.method for entry in MODELS})
    raise UnknownNameError("method", f"{spec.method} ({spec.task})", methods)


__all__ = [
    "DEFAULT_MODEL",
    "ModelEntry",
    "as_folder",
    "build",
    "get_spec",
    "list_models",
    "load",
    "save",
]
