"""Write and read saved models: ``config.json`` and ``model.safetensors``; no pickles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from splitrun.coding.coder import Array
from splitrun.coding.hyperprior import ContextHyperpriorCoder
from splitrun.coding.integer_hyperprior import IntegerContextHyperpriorCoder
from splitrun.errors import ModelFolderError, SpecError
from splitrun.files import new_folder, sha256_file

from .bottlenecks.factorized_prior import TABLE_BUFFERS
from .calibration.record import Calibration
from .config import CONFIG_NAME, WEIGHTS_NAME, ModelConfig, SharedTail, read_config
from .conversion.keys import list_differences
from .models import find_spec, is_name
from .parts import build
from .pretrained import copy_weights
from .split_model import SplitModel, hash_tensors

_CALIBRATED = "calibrated."
"""Prefix of the names of tables that were fitted to images."""

HalfStored = Literal["none", "edge", "both"]
_HALVED: dict[HalfStored, tuple[str, ...]] = {
    "none": (),
    "edge": ("decoder.",),
    "both": ("encoder.", "decoder."),
}
"""Beginnings of the names of tensors that are stored as float16."""
_TAIL = "decoder.tail."


def save_folder(
    model: SplitModel, folder: Path, *, half: HalfStored = "none", force: bool = False
) -> Path:
    """Write a model's folder whole or not at all; see :func:`splitzoo.zoo.save`."""
    _ = model.codec  # makes the tables of a model that was just trained
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if model.tail_of and name.startswith(_TAIL):
            continue
        tensor = tensor.detach().contiguous().cpu()
        halved = name.startswith(_HALVED[half]) and _may_be_half(name, tensor.dtype)
        state[name] = _half(name, tensor) if halved else tensor
    if model.calibration is not None:
        state |= {
            f"{_CALIBRATED}{name}": torch.from_numpy(np.array(array))
            for name, array in model.calibration.arrays.items()
        }
    with new_folder(folder, force=force) as temporary:
        weights = temporary / WEIGHTS_NAME
        weights.write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))
        config = ModelConfig(
            spec=model.spec,
            weights_sha256=sha256_file(weights),
            random_seed=model.random_seed,
            origin=model.origin,
            tail=_shared_tail(model),
            training=model.training_record,
            calibration=model.calibration.record if model.calibration else None,
        )
        (temporary / CONFIG_NAME).write_text(
            config.model_dump_json(indent=2) + "\n", encoding="utf-8"
        )
    return folder


def load_folder(folder: Path) -> SplitModel:
    """Load a model that :func:`save_folder` wrote.

    Raises:
        ModelFolderError: A file is missing or changed, or the weights do not fit the spec; every
            missing, unexpected and re-shaped tensor is named.
    """
    config = read_config(folder)
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise ModelFolderError(f"{folder} has no {WEIGHTS_NAME}.", next_step="Copy it there too.")
    try:
        found = sha256_file(path)
        if found != config.weights_sha256:
            raise ModelFolderError(
                f"{path} was changed or damaged: its SHA-256 is {found[:12]}…, "
                f"{CONFIG_NAME} says {config.weights_sha256[:12]}….",
                next_step="Copy the folder again from where it came.",
            )
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise ModelFolderError(f"Cannot read {path}: {error}.") from error
    try:
        model = build(config.spec)
    except SpecError as error:
        raise ModelFolderError(
            f"{folder / CONFIG_NAME} describes a model that cannot be built: {error.message}"
        ) from error
    expected = model.state_dict()
    if config.tail is not None:
        expected = {name: t for name, t in expected.items() if not name.startswith(_TAIL)}
    calibrated = {} if config.calibration is None else _take_calibrated(path, state)
    for name in state.keys() & expected.keys():
        if state[name].dtype == torch.float16 and _may_be_half(name, expected[name].dtype):
            state[name] = state[name].float()
    _check_tensors(path, expected, state)
    if config.tail is not None:
        state |= _load_tail(path, config.tail, model)
    model.load_state_dict(state)
    model.tail_of = config.tail.model if config.tail else ""
    model.random_seed = config.random_seed
    model.origin = config.origin
    model.training_record = config.training
    if config.calibration is not None:
        calibration = Calibration(calibrated, config.calibration)
        _check_coder(path, model, calibration)
        model.calibration = calibration
    # Hostile tables raise now, not at the first image.
    channels = model.eval().codec.coder.channels
    if channels not in {tensor.shape[0] for tensor in config.spec.wire}:
        raise ModelFolderError(
            f"{path} holds entropy tables of {channels} channels; the latent has "
            f"{config.spec.latent_shape[0]}."
        )
    return model


def _tail_tensors(model: SplitModel) -> dict[str, Tensor]:
    return dict(model.decoder.get_submodule("tail").state_dict())


def _shared_tail(model: SplitModel) -> SharedTail | None:
    if not model.tail_of:
        return None
    return SharedTail(model=model.tail_of, sha256=hash_tensors(_tail_tensors(model)).hexdigest())


def _load_tail(path: Path, tail: SharedTail, model: SplitModel) -> dict[str, Tensor]:
    """Return the tensors of a tail that another model holds, by their names in this one.

    Raises:
        ModelFolderError: That model is no such network, or its weights are others now.
        SplitzooError: It cannot be loaded; the error says what to do.
    """
    from .resolve import ModelSource, is_assembled  # which load folders

    # A config may be hostile: no folder, no repository, and no model whose tail is another's.
    if not is_name(tail.model) or not is_assembled(find_spec(tail.model)):
        raise ModelFolderError(
            f"{path.parent} leaves its tail to {tail.model}, which is no published network."
        )
    whole = ModelSource(name=tail.model).load()
    try:
        copy_weights(
            model.decoder.get_submodule("tail"),
            whole.decoder.get_submodule("tail").state_dict(),
            model.spec.name,
            tail.model,
        )
    except SpecError as error:
        raise ModelFolderError(f"{path.parent} leaves its tail to {tail.model}: {error}") from error
    found = _tail_tensors(model)
    if hash_tensors(found).hexdigest() != tail.sha256:
        raise ModelFolderError(
            f"{path.parent} was trained with other weights of {tail.model} than those here.",
            next_step=f"Get the weights of {tail.model} that it was saved with.",
        )
    return {f"{_TAIL}{name}": tensor for name, tensor in found.items()}


def _take_calibrated(path: Path, state: dict[str, Tensor]) -> dict[str, Array]:
    """Take the fitted tables out of the tensors."""
    names = [name for name in sorted(state) if name.startswith(_CALIBRATED)]
    for name in names:
        if state[name].dtype not in (torch.int32, torch.float32):
            raise ModelFolderError(f"{path}: {name} is {state[name].dtype}, not int32 or float32.")
    return {name.removeprefix(_CALIBRATED): state.pop(name).numpy() for name in names}


def _check_coder(path: Path, model: SplitModel, calibration: Calibration) -> None:
    """Raise where fitted tables are not for what this model sends."""
    own, found = model.bottleneck.entropy_coder(), calibration.coder()
    same = all(
        getattr(own, name) == getattr(found, name)
        for name in ("num_inputs", "num_outputs", "channels", "betas")
    )
    latent = getattr(getattr(found, "tables", None), "channels", None)
    wanted = model.spec.latent_shape[0]
    side = isinstance(found, ContextHyperpriorCoder | IntegerContextHyperpriorCoder)
    if not same or (side and latent != wanted):
        raise ModelFolderError(
            f"{path} holds fitted tables of kind {found.kind}, which are not for what "
            f"{model.spec.name} sends."
        )


def _may_be_half(name: str, dtype: torch.dtype) -> bool:
    """Say whether a tensor may be stored as float16.

    Entropy models may not, and variances of batch norms may be too small for it.
    """
    layers = name.startswith(_HALVED["both"]) and ".running_" not in name
    return layers and dtype == torch.float32


def _half(name: str, tensor: Tensor) -> Tensor:
    half = tensor.half()
    if not half.isfinite().all():
        raise SpecError(
            f"{name} holds numbers that float16 cannot: up to {float(tensor.abs().max()):g}.",
            next_step="Save the model without half.",
        )
    return half


def _check_tensors(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    # Entropy tables are as long as they are; their contents are checked when read.
    def fits(name: str) -> bool:
        have, want = found[name], expected[name]
        table = name.rpartition(".")[2] in TABLE_BUFFERS
        return have.dtype == want.dtype and (table or have.shape == want.shape)

    differences = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of another shape or type": sorted(
            name for name in expected.keys() & found.keys() if not fits(name)
        ),
    }
    if named := list_differences(differences):
        raise ModelFolderError(
            f"{path} does not fit its config:{named}",
            next_step="Copy the folder again from where it came, or save the model again.",
        )
