"""Build, name, load and save split models; their entropy coding.

>>> from splitzoo import zoo
>>> model = zoo.load("splittable_resnet50-fp-beta0.08", pretrained=False)
>>> streams = model.compress(image)  # one bytes object per image
>>> logits = model.decompress(streams)
"""

from typing import TYPE_CHECKING

from splitrun.lazy import lazy_names

if TYPE_CHECKING:
    from splitrun.preprocessing import Preprocessing

    from .calibration.calibrate import calibrate
    from .catalog import (
        build,
        fetch,
        get_spec,
        list_architectures,
        list_models,
        load,
        save,
    )
    from .datasets import labels_of
    from .resolve import DEFAULT_MODEL, ModelSource
    from .spec import ModelSpec
    from .split_model import Detections, ModelOutput, SplitModel

_HOME = {
    "DEFAULT_MODEL": ".resolve",
    "build": ".catalog",
    "calibrate": ".calibration.calibrate",
    "fetch": ".catalog",
    "get_spec": ".catalog",
    "labels_of": ".datasets",
    "list_architectures": ".catalog",
    "list_models": ".catalog",
    "load": ".catalog",
    "save": ".catalog",
    "ModelSource": ".resolve",
    "ModelSpec": ".spec",
    "Preprocessing": "splitrun.preprocessing",
    "Detections": ".split_model",
    "ModelOutput": ".split_model",
    "SplitModel": ".split_model",
}

__all__ = [
    "DEFAULT_MODEL",
    "Detections",
    "ModelOutput",
    "ModelSource",
    "ModelSpec",
    "Preprocessing",
    "SplitModel",
    "build",
    "calibrate",
    "fetch",
    "get_spec",
    "labels_of",
    "list_architectures",
    "list_models",
    "load",
    "save",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
