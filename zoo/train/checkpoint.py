"""Checkpoints: files from which an interrupted run continues as if nothing had happened."""

import os
from pathlib import Path
from typing import Any

import torch

from splitrun.errors import TrainingError
from splitrun.files import new_file

NAME = "checkpoint.pt"
START = "start"
"""Name, among what decides a run, of the weights that it starts with."""


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """Write the state of a run, whole or not at all; OutputError where it cannot be written.

    The state is tensors, numbers and strings, and lists and dictionaries of them.
    """
    with new_file(run / NAME, force=True) as temporary:
        torch.save(state, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut leaves the new name with old content


def load_checkpoint(run: Path, identity: dict[str, str]) -> dict[str, Any]:
    """Read the state of a run; ``identity``, what decides it, must be the checkpoint's.

    Raises:
        TrainingError: There is no checkpoint, it cannot be read, or it is of another run.
    """
    path = run / NAME
    if not path.is_file():
        raise TrainingError(
            f"{run} has no {NAME} to continue from.", next_step="Leave --resume out to start anew."
        )
    try:
        # Only tensors and plain values: nothing in the file is executed.
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = dict(state["identity"])
    except Exception as error:  # torch raises many kinds at damaged files
        raise TrainingError(
            f"Cannot read {path}: it is damaged.", next_step="Start anew in another folder."
        ) from error
    other = [name for name, value in identity.items() if found.get(name) != value]
    if other:
        # Another seed or teacher gives other weights to start with.
        raise other_run(run, *(name for name in other if name != START or other == [START]))
    return state


def other_run(run: Path, *what: str) -> TrainingError:
    """Return the error that a run was started with something else than it is to continue with."""
    return TrainingError(
        f"{run} was started with another {', another '.join(what)}.",
        next_step="Use the same, or start anew in another folder. A finished run continues if its "
        "recipe has gained a stage at the end.",
    )
