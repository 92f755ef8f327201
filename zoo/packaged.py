"""The small trained models that this package carries. Imports no torch.

They work at once and without a network. A whole network among them, ``NAME-png``, stands for more:
``NAME-jpeg-q50`` is the same behind another codec, ``NAME-s1-jpeg-q90`` cut, with a codec over the
features of its layer ``s1``.
"""

import functools
import re
from pathlib import Path

from splitrun.coding.features import FEATURE_CODECS
from splitrun.errors import SplitzooError, UnknownNameError
from splitrun.registry import close_matches

from .backbones.table import find_backbone, find_cut
from .bottleneck_specs import HIGHEST_QUALITY, FeatureCodecBottleneck, InputCodecBottleneck
from .name_parts import CODEC, LAYER, QUALITY, check_choice, whole_number
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
    try:
        return found[0] if (found := _read(name)) and read_name(name) else None
    except (SplitzooError, ValueError):
        return None


_CODECS = ("jpeg", "webp", "avif", "heic", "bpg", "vtm")
_REST = re.compile(f"(-{LAYER})?-{CODEC}-{QUALITY}")


def _read(name: str) -> tuple[str, re.Match[str]] | None:
    for whole in packaged():
        stem = whole.removesuffix(WHOLE)
        found = _REST.fullmatch(name.removeprefix(stem))
        if whole.endswith(WHOLE) and name.startswith(stem) and found:
            return whole, found
    return None


def read_name(name: str) -> ModelSpec | None:
    """Return the spec of a packaged whole network with another codec, if that is what a name is.

    Raises:
        UnknownNameError: There is no such layer or codec, or no such model of these data.
        SpecError: The network cannot be cut there.
        ValueError: The codec has no such quality.
    """
    read = _read(name)
    if read is None:
        wholes = [known for known in packaged() if known.endswith(WHOLE)]
        if name.startswith(tuple(f"{whole.partition('-')[0]}-" for whole in wholes)):
            raise UnknownNameError(
                "model",
                name,
                close_matches(name, packaged()),
                next_step="Carried are: splitzoo zoo list --pretrained",
            )
        return None
    whole, found = read
    codecs = FEATURE_CODECS if found["layer"] else _CODECS
    codec = check_choice("codec", found["codec"], codecs)
    highest = HIGHEST_QUALITY.get(codec, 100)
    quality = whole_number(f"the quality of {codec}", found["quality"], 0, highest)
    return recoded(packaged()[whole], codec, quality, found["layer"])


def recoded(whole: ModelSpec, codec: str, quality: int, layer: str | None = None) -> ModelSpec:
    """Return the spec of a whole network with another codec.

    Args:
        whole: Spec of the whole network, with an image codec in front of it.
        codec: Codec of the image or, after a layer, of its features.
        quality: Quality in the codec's own units.
        layer: Layer of the backbone to cut after; None cuts in front of it.

    Raises:
        UnknownNameError: The backbone has no such layer.
        SpecError: The backbone cannot be cut after it.
        ValueError: The codec has no such quality.
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
    cut = find_cut(find_backbone(whole.backbone), layer)
    normalised = data["preprocessing"] | {"mean": given.mean, "std": given.std}  # pyright: ignore
    return ModelSpec.model_validate(
        data
        | {
            "method": "feature-compression",
            "cut": cut.layer,
            "preprocessing": normalised,
            "bottleneck": FeatureCodecBottleneck(
                codec=codec,  # pyright: ignore[reportArgumentType]
                quality=quality,
                **cut.fields(),
            ).model_dump(),
        }
    )
