"""The parts of a model that a stage trains, and their optimiser."""

import torch
from torch import nn

from splitrun.errors import RecipeError

from ..split_model import SplitModel
from .recipe import Optimizer, Stage


def is_frozen(name: str, stage: Stage) -> bool:
    """Return whether a stage freezes a part or parameter, given by its path in the model."""
    return any(f"{name}.".startswith(f"{part}.") for part in stage.frozen)


def freeze(student: SplitModel, stage: Stage) -> None:
    """Let gradients reach only the parts and parameters that the stage trains.

    Raises:
        RecipeError: The model lacks a part or parameter that is to be frozen.
    """
    parameters = {name for name, _ in student.named_parameters()}
    for part in set(stage.frozen) - parameters:
        try:
            student.get_submodule(part)
        except AttributeError as error:
            raise RecipeError(f"{part} is to be frozen, but {error}.") from error
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(not is_frozen(name, stage))


def set_modes(student: SplitModel, stage: Stage) -> None:
    """Set training mode; frozen parts get evaluation mode."""
    student.train()
    for name, module in student.named_modules():
        if is_frozen(name, stage):
            module.eval()


def build_optimizer(student: SplitModel, settings: Optimizer) -> torch.optim.Optimizer:
    """Build the optimiser of the parameters that gradients reach.

    Raises:
        RecipeError: No parameter is trained, or a part with a learning rate of its own is not.
    """
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    if not trained:
        raise RecipeError("All parts are frozen in this stage: there is nothing to train.")
    for part in settings.rates:
        if not any(name.startswith(f"{part}.") for name in trained):
            raise RecipeError(f"optimizer.rates: {part} is no part that this stage trains.")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        own = (rate for part, rate in settings.rates.items() if name.startswith(f"{part}."))
        decays = settings.decay_all or parameter.ndim > 1
        key = (next(own, settings.learning_rate), settings.weight_decay * decays)
        groups.setdefault(key, []).append(parameter)
    listed = [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(listed, lr=settings.learning_rate, momentum=settings.momentum)
    kind = torch.optim.Adam if settings.kind == "adam" else torch.optim.AdamW
    return kind(listed, lr=settings.learning_rate)


def clipped_parameters(objective: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the loss: all but quantiles, which have an auxiliary loss."""
    return [p for name, p in objective.named_parameters() if not name.endswith(".quantiles")]
