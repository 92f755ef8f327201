"""Where a run stands, on disk: a file from which it goes on as if nothing had happened."""

import os
from pathlib import Path
from typing import Any

import torch

from splitrun.errors import TrainingError
from splitrun.files import new_file

VERSION = 1
NAME = "checkpoint.pt"


def save_checkpoint(run: Path, state: dict[str, Any]) -> None:
    """Write the state of a run, whole or not at all.

    Args:
        run: The run's folder.
        state: Tensors, numbers, words, and lists and dictionaries of them.

    Raises:
        OutputError: It cannot be written.
    """
    with new_file(run / NAME) as temporary:
        torch.save({"version": VERSION, **state}, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut leaves the new name with old content


def load_checkpoint(run: Path, identity: str) -> dict[str, Any]:
    """Read the state of a run.

    Args:
        run: The run's folder.
        identity: Of what is trained, with what and on what; a run goes on with nothing else.

    Raises:
        TrainingError: There is none, it cannot be read, or it is of something else.
    """
    path = run / NAME
    if not path.is_file():
        raise TrainingError(
            f"{run} holds no {NAME} to go on from.", next_step="Leave --resume out to begin anew."
        )
    try:
        # Tensors and plain values alone: nothing in the file is run.
        state = torch.load(path, map_location="cpu", weights_only=True)
        version, found = state["version"], state["identity"]
    except Exception as error:  # torch raises many kinds at damaged files
        raise TrainingError(
            f"Cannot read {path}: it is damaged.", next_step="Begin anew in another folder."
        ) from error
    if version != VERSION:
        raise TrainingError(f"{path} is of another version of splitzoo ({version}).")
    if found != identity:
        raise other_run(run)
    return state


def other_run(run: Path) -> TrainingError:
    """Return the error that a run is of something else than what it is to go on with."""
    return TrainingError(
        f"{run} was begun with another recipe, data set, teacher, seed or number of processes.",
        next_step="Give the same ones, or begin anew in another folder. A finished run goes on "
        "where its recipe has gained a stage at the end.",
    )
