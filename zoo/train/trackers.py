"""Trackers of experiments, such as TensorBoard, through accelerate."""

from collections.abc import Mapping
from typing import Any

from splitrun.errors import DependencyError

from .plan import TRACKERS_NAME, Plan

_EVERY = 10
"""Steps between two values of the loss within an epoch."""


def tracking(plan: Plan) -> dict[str, Any]:
    """Return the arguments of ``Accelerator`` for the plan's trackers.

    Raises:
        DependencyError: The package of a tracker is not installed.
    """
    if not plan.trackers:
        return {}
    from accelerate.tracking import get_available_trackers
    from accelerate.utils import ProjectConfiguration

    for name in plan.trackers:
        if name not in [str(known) for known in get_available_trackers()]:
            raise DependencyError(
                f"The tracker {name} needs its package, which is not installed.",
                next_step=f"pip install {name.replace('_', '-')}",
            )
    folder = ProjectConfiguration(str(plan.run), logging_dir=str(plan.run / TRACKERS_NAME))
    return {"log_with": list(plan.trackers), "project_config": folder}


class Tracked:
    """What a run tells its trackers; nothing where it has none.

    Args:
        accelerator: The run's accelerator, made with :func:`tracking`.
        plan: Plan of the run.
    """

    def __init__(self, accelerator: Any, plan: Plan) -> None:
        self._accelerator = accelerator
        self._on = bool(plan.trackers)
        if self._on:
            config = {"model": plan.spec.name, "recipe": plan.name, "seed": plan.seed}
            accelerator.init_trackers(plan.spec.name, config)

    def step(self, step: int, loss: float, rate: float) -> None:
        """Tell loss and learning rate of every tenth step."""
        if self._on and step % _EVERY == 0:
            values = {"step/loss": loss, "step/learning_rate": rate}
            self._accelerator.log(values, step=step)

    def epoch(self, step: int, line: Mapping[str, Any]) -> None:
        """Tell the numbers of a line of the log, after a step of the run."""
        if self._on:
            self._accelerator.log({f"epoch/{name}": value for name, value in line.items()}, step)

    def end(self) -> None:
        """Close the trackers."""
        if self._on:
            self._accelerator.end_training()
