"""From a checkpoint to a saved model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from splitrun.errors import CheckpointError, OutputError, SplitzooError, UnknownNameError
from splitrun.files import check_free, sha256_file
from splitrun.text import visible

from ...progress import SILENT, Progress
from ..catalog import build, save
from ..config import CONFIG_NAME, read_config
from ..models import find_spec, registered
from ..spec import ModelSpec
from ..split_model import SplitModel
from .checkpoint import Checkpoint, read_checkpoint, require_file
from .keys import LeftOut, map_tensors, prefixes

SUFFIXES = (".pt", ".pth")
_WIDEST = 1 << 15
"""No table of 16 bits reaches further, and none of a trained model nearly as far."""


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint was converted to.

    Attributes:
        checkpoint: Path of the checkpoint.
        sha256: SHA-256 of the checkpoint.
        name: Name of the model.
        folder: Folder of the saved model.
        tensors: Number of the checkpoint's tensors that are in the model.
        left_out: Tensors that are not in the model, with reasons.
        beside: Names of what else the checkpoint held, such as the optimizer's state.
    """

    checkpoint: str
    sha256: str
    name: str
    folder: str
    tensors: int
    left_out: tuple[LeftOut, ...]
    beside: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one checkpoint among many.

    Attributes:
        checkpoint: Path of the checkpoint.
        status: "skipped" where the file name is no experiment of sc2-benchmark, or where the
            checkpoint was converted before.
        reason: Reason why it was skipped or failed.
        conversion: Result, where it was converted now.
    """

    checkpoint: str
    status: Literal["converted", "skipped", "failed"]
    reason: str = ""
    conversion: Conversion | None = None


def recognise(path: Path, name: str | None = None) -> ModelSpec:
    """Return the spec of the model that a checkpoint is of.

    Without a name, the file must be named after its experiment, as the released ones are.

    Raises:
        UnknownNameError: No model or experiment has that name.
        CheckpointError: Nothing is trained for this model.
    """
    if name is not None:
        spec = find_spec(name)
    else:
        try:
            spec = registered().get(path.stem)
        except UnknownNameError as error:
            raise UnknownNameError(
                "experiment of sc2-benchmark",
                path.stem,
                error.matches,
                next_step="Say which model the checkpoint is of: --name NAME",
            ) from None
    prefixes(spec)
    return spec


def convert(
    path: Path,
    folder: Path,
    *,
    name: str | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> Conversion:
    """Convert a checkpoint into a folder that ``zoo.load`` reads.

    The model is ``name``; by default, what the file's name says. The folder is new or empty, or,
    with ``force``, what it holds is replaced.

    Raises:
        UnknownNameError: The file's name, or ``name``, is that of no model.
        CheckpointError: The file cannot be read, asks for more than tensors, or does not fit the
            model.
        OutputError: The folder is taken or cannot be written; nothing is left behind.
    """
    check_free(folder, force=force)
    require_file(path)
    spec = recognise(path, name)
    progress.step("reading")
    checkpoint = read_checkpoint(path)
    progress.step(f"building {spec.name}")
    model = build(spec)
    mapped, left_out = map_tensors(spec, checkpoint.tensors, model.state_dict())
    _fill(model, mapped, checkpoint)
    progress.step("saving")
    model.origin = _origin(path, checkpoint.sha256)
    save(model, folder, force=force)
    return Conversion(
        checkpoint=str(path),
        sha256=checkpoint.sha256,
        name=spec.name,
        folder=str(folder),
        tensors=len(mapped),
        left_out=left_out,
        beside=checkpoint.beside,
    )


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder and those below it.

    Raises:
        CheckpointError: There are none, or no such folder.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder.", next_step="Leave --all out to convert one checkpoint."
        )
    found = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES)
    if not found:
        raise CheckpointError(f"There are no checkpoints ({', '.join(SUFFIXES)}) in {folder}.")
    return found


def convert_all(paths: Iterable[Path], output: Path, *, force: bool = False) -> Iterator[Outcome]:
    """Convert checkpoints into ``output/<name of the model>/``; go on after one that fails.

    What an earlier, interrupted run converted is not converted again; a model of another checkpoint
    is replaced with ``force``.

    Yields:
        What became of each, in order.
    """
    for path in paths:
        yield _convert_one(path, output, force)


def _convert_one(path: Path, output: Path, force: bool) -> Outcome:
    try:
        spec = recognise(path)
    except SplitzooError as error:
        return Outcome(str(path), "skipped", error.message)
    folder = output / spec.name
    try:
        if (folder / CONFIG_NAME).is_file():
            if read_config(folder).origin == _origin(path, sha256_file(path)):
                return Outcome(str(path), "skipped", f"converted before, to {folder}")
            if not force:
                raise OutputError(folder, "it holds a model of another checkpoint")
        conversion = convert(path, folder, force=force)
        return Outcome(str(path), "converted", conversion=conversion)
    except SplitzooError as error:
        return Outcome(str(path), "failed", error.message)
    except OSError as error:
        return Outcome(str(path), "failed", f"{(error.strerror or str(error)).lower()}")


def _origin(path: Path, sha256: str) -> str:
    name = visible(path.name, keep="")
    return f"checkpoint of sc2-benchmark {name}, SHA-256 {sha256}"


def _fill(model: SplitModel, mapped: dict[str, torch.Tensor], checkpoint: Checkpoint) -> None:
    """Load the weights and make tables of them."""
    for name, tensor in mapped.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{checkpoint.path} is damaged: not all of {name} are numbers.")
        # Tables are as wide as these say, and nothing else bounds them.
        if name.endswith("quantiles") and not (tensor.abs() <= _WIDEST).all():
            raise CheckpointError(
                f"{checkpoint.path} is damaged: the quantiles of its densities reach beyond "
                f"±{_WIDEST:,}."
            )
    model.load_state_dict(model.state_dict() | mapped)
    try:
        model.update()
        _ = model.codec
    except (SplitzooError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.path} is damaged: no entropy tables can be made of its densities "
            f"({str(error).partition(chr(10))[0]})."
        ) from error
