"""Loads pretrained weights of timm into whole networks and into their parts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from splitrun.errors import WeightsNotFoundError

from ..bottleneck_specs import shape_text
from ..deprecations import quiet_torchscript
from .weight_packages import read_package

with quiet_torchscript():
    import timm

_OWNER = "timm/"


def load_timm_weights(
    module: nn.Module,
    base_model: str,
    *,
    input_size: tuple[int, int] | None = None,
    file: Path | None = None,
    cache_dir: Path | None = None,
) -> None:
    """Load pretrained weights into a network of timm's or a part of one.

    Args:
        module: Network, or a part cut from one; every tensor of it is loaded.
        base_model: Hub name of the weights, such as ``timm/resnet50.tv_in1k``.
        input_size: Height and width that the network was built for, unless those of the
            pretrained weights; timm resamples position embeddings.
        file: Safetensors file with the network's weights, read instead of the Hub.
        cache_dir: Folder of the Hub's files; by default huggingface-hub's.

    Raises:
        WeightsNotFoundError: timm knows no weights of that name, or they have other tensors.
        OSError: The file or the Hub cannot be read; most errors of huggingface-hub are of this
            kind, and pass through unchanged.
    """
    if file is not None and file.suffix != ".safetensors":
        raise WeightsNotFoundError(
            base_model,
            f"{file} is not a safetensors file",
            next_step="Save the weights with safetensors.",
        )
    settings: dict[str, Any] = {} if input_size is None else {"img_size": tuple(input_size)}
    whole = timm.create_model(
        timm_weights_name(base_model),
        pretrained=True,
        pretrained_cfg_overlay=None if file is None else {"file": str(file)},
        cache_dir=cache_dir,
        **settings,
    )
    _load(module, whole.state_dict(), base_model)


def load_package_weights(module: nn.Module, timm_name: str) -> None:
    """Load the weights of a Python package into a network of timm's or a part of one.

    Args:
        module: Network, or a part cut from one; every tensor of it is loaded.
        timm_name: Key of ``WEIGHT_PACKAGES``.

    Raises:
        WeightsNotFoundError: The package is not installed or changed, or has other tensors.
    """
    whole = timm.create_model(timm_name)
    # Strictly: a name or a shape too many or too few is no such network.
    whole.load_state_dict(read_package(timm_name, whole))
    _load(module, whole.state_dict(), timm_name)


def _load(module: nn.Module, theirs: Mapping[str, Tensor], base_model: str) -> None:
    ours = module.state_dict()
    wrong = [name for name in ours if name not in theirs]
    wrong += [
        f"{name} ({shape_text(tensor.shape)} here, {shape_text(theirs[name].shape)} there)"
        for name, tensor in ours.items()
        if name in theirs and tensor.shape != theirs[name].shape
    ]
    if wrong:
        raise WeightsNotFoundError(
            base_model,
            f"they do not fit in {len(wrong)} tensors, among them {wrong[0]}",
            next_step="Build the model for the classes and the architecture of the weights.",
        )
    module.load_state_dict({name: theirs[name] for name in ours})


def timm_weights_name(base_model: str) -> str:
    """Return timm's name, architecture and tag, of weights on the Hub.

    Raises:
        WeightsNotFoundError: timm knows no weights of that name.
    """
    known = timm.list_pretrained()
    name = base_model.removeprefix(_OWNER)
    if base_model.startswith(_OWNER) and name in known:
        return name
    for name in known:
        config = timm.get_pretrained_cfg(name)
        if config is not None and config.hf_hub_id == base_model:
            return name
    raise WeightsNotFoundError(
        base_model or "this backbone",
        "timm knows no such weights",
        next_step=(
            "Names of weights are those of repositories on the Hub: timm/resnet50.tv_in1k."
            if base_model
            else "For graphs and latency, ask for random weights: --random-weights, or "
            "pretrained=False."
        ),
    )
