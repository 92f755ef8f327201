"""Which parts of a model a stage trains, in which mode they run, and what updates them."""

import torch
from torch import nn

from splitrun.errors import RecipeError

from ..split_model import SplitModel
from .recipe import Optimizer, Stage


def is_frozen(name: str, stage: Stage) -> bool:
    """Say whether a part or parameter, by its path in the model, stays as it is."""
    return any(name == one or name.startswith(f"{one}.") for one in stage.frozen)


def freeze(student: SplitModel, stage: Stage) -> None:
    """Let gradients reach the parts that the stage trains, and no others.

    Raises:
        RecipeError: The model has no such part.
    """
    for part in stage.frozen:
        try:
            student.get_submodule(part)
        except AttributeError as error:
            raise RecipeError(f"{part} is to be frozen, but {error}.") from error
    for name, one in student.named_parameters():
        one.requires_grad_(not is_frozen(name, stage))


def set_modes(student: SplitModel, stage: Stage) -> None:
    """Set training mode, and evaluation mode in the parts that are frozen."""
    student.train()
    for part in stage.frozen:
        student.get_submodule(part).eval()


def build_optimizer(student: SplitModel, settings: Optimizer) -> torch.optim.Optimizer:
    """Build what updates the parameters that gradients reach.

    Raises:
        RecipeError: There are none; or a part is given a rate of its own, and there is none such.
    """
    named = [(name, one) for name, one in student.named_parameters() if one.requires_grad]
    if not named:
        raise RecipeError("All parts are frozen in this stage: there is nothing to train.")
    for part in settings.rates:
        if not any(name.startswith(f"{part}.") for name, _ in named):
            raise RecipeError(f"optimizer.rates: {part} is no part that this stage trains.")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, one in named:
        rate = next(
            (rate for part, rate in settings.rates.items() if name.startswith(f"{part}.")),
            settings.learning_rate,
        )
        decays = settings.decay_all or one.ndim > 1
        groups.setdefault((rate, settings.weight_decay * decays), []).append(one)
    listed = [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(listed, lr=settings.learning_rate, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.kind == "adam" else torch.optim.AdamW
    return kind(listed, lr=settings.learning_rate)


def of_loss(objective: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that the loss is of; those of the auxiliary one are quantiles."""
    named = objective.named_parameters()
    return [one for name, one in named if not name.endswith(".quantiles")]
