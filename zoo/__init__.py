"""Build, name, load and save split models; their entropy coding.

>>> from splitzoo import zoo
>>> model = zoo.load("splittable_resnet50-fp-beta0.08", pretrained=False)
>>> streams = model.compress(image)  # one bytes object per image
>>> logits = model.decompress(streams)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calibration.calibrate import calibrate
    from .catalog import (
        DEFAULT_MODEL,
        build,
        fetch,
        get_spec,
        list_architectures,
        list_models,
        load,
        save,
    )
    from .preprocessing import Preprocessing
    from .spec import ModelSpec
    from .split_model import SplitModel

_HOME = {
    "DEFAULT_MODEL": "catalog",
    "build": "catalog",
    "calibrate": "calibration.calibrate",
    "fetch": "catalog",
    "get_spec": "catalog",
    "list_architectures": "catalog",
    "list_models": "catalog",
    "load": "catalog",
    "save": "catalog",
    "ModelSpec": "spec",
    "Preprocessing": "preprocessing",
    "SplitModel": "split_model",
}

__all__ = [
    "DEFAULT_MODEL",
    "ModelSpec",
    "Preprocessing",
    "SplitModel",
    "build",
    "calibrate",
    "fetch",
    "get_spec",
    "list_architectures",
    "list_models",
    "load",
    "save",
]


def __getattr__(name: str) -> object:
    # The runtime on the board imports splitzoo.zoo.coding alone; torch must not come with it.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
