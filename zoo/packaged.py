"""The small trained models that this package carries. Imports no torch.

They work at once and without a network. A whole network among them, ``NAME-png``, stands for more:
``NAME-jpeg-q50`` is the same behind another codec, ``NAME-s1-jpeg-q90`` cut, with a codec over the
features of its layer ``s1``.
"""

import contextlib
import functools
import re
from pathlib import Path

from .backbones.table import find_backbone
from .bottleneck_specs import FeatureCodecBottleneck, InputCodecBottleneck
from .spec import ModelSpec

FOLDER = Path(__file__).with_name("weights")
WHOLE = "-png"
"""Ending of the names of whole networks; a PNG in front of them loses nothing."""


@functools.cache
def packaged() -> dict[str, ModelSpec]:
    """Return the specs of the models of this package by name."""
    from .config import read_config

    specs = [read_config(path.parent).spec for path in sorted(FOLDER.glob("*/config.json"))]
    return {spec.name: spec for spec in specs}


def packaged_folder(name: str) -> Path | None:
    """Return the folder of a model that this package carries; None for others."""
    return FOLDER / name if name in packaged() else None


def whole_network(name: str) -> str | None:
    """Return the packaged whole network that a name is made of; None where there is none."""
    found = _read(name)
    return found[0] if found else None


_REST = re.compile(
    r"(-(?P<layer>[a-z][A-Za-z0-9_.]*))?"
    r"-(?P<codec>jpeg|webp|avif|heic|bpg|vtm)-q(?P<quality>0|[1-9][0-9]?|100)"
)


def _read(name: str) -> tuple[str, re.Match[str]] | None:
    for whole in packaged():
        stem = whole.removesuffix(WHOLE)
        found = _REST.fullmatch(name.removeprefix(stem))
        if whole.endswith(WHOLE) and name.startswith(stem) and found:
            return whole, found
    return None


def read_name(name: str) -> ModelSpec | None:
    """Return the spec of a packaged whole network with another codec, if that is what a name is."""
    read = _read(name)
    if read is None:
        return None
    whole, found = read
    # No such quality, or no such layer: no such name.
    with contextlib.suppress(ValueError):
        return recoded(packaged()[whole], found["codec"], int(found["quality"]), found["layer"])
    return None


def recoded(whole: ModelSpec, codec: str, quality: int, layer: str | None = None) -> ModelSpec:
    """Return the spec of a whole network with another codec.

    Args:
        whole: Spec of the whole network, with an image codec in front of it.
        codec: Codec of the image or, after a layer, of its features.
        quality: Quality in the codec's own units.
        layer: Layer of the backbone to cut after; None cuts in front of it.

    Raises:
        ValueError: The codec has no such quality, or the backbone no such layer.
    """
    name = whole.name.removesuffix(WHOLE) + (f"-{layer}" if layer else "")
    name = f"{name}-{codec}-q{quality}"
    given = whole.bottleneck
    if not isinstance(given, InputCodecBottleneck):
        raise ValueError(f"{whole.name} is no whole network")
    data = whole.model_dump() | {"name": name}
    if layer is None:
        changed = given.model_dump() | {"codec": codec, "quality": quality}
        return ModelSpec.model_validate(data | {"bottleneck": changed})
    stages = {stage.layer: stage for stage in find_backbone(whole.backbone).stages}
    if layer not in stages:
        raise ValueError(f"{whole.backbone} ends no stage with {layer}: {', '.join(stages)}")
    normalised = data["preprocessing"] | {"mean": given.mean, "std": given.std}  # pyright: ignore
    return ModelSpec.model_validate(
        data
        | {
            "method": "feature-compression",
            "cut": layer,
            "preprocessing": normalised,
            "bottleneck": FeatureCodecBottleneck(
                channels=stages[layer].channels,
                stride=stages[layer].stride,  # pyright: ignore[reportArgumentType]
                codec=codec,  # pyright: ignore[reportArgumentType]
                quality=quality,
            ).model_dump(),
        }
    )
