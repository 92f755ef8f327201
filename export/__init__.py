"""Cut a model into a device graph and an edge graph, and prove that the two agree with it.

>>> from splitzoo import export, zoo
>>> model = zoo.load("splittable_resnet50-fp-beta0.08", pretrained=False)
>>> export.export_split(model, "bundle", target="cpu")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .manifest import Manifest
    from .run import run_bundle
    from .split import export_split
    from .verify import verify_bundle

_HOME = {
    "Manifest": "manifest",
    "export_split": "split",
    "run_bundle": "run",
    "verify_bundle": "verify",
}

__all__ = ["Manifest", "export_split", "run_bundle", "verify_bundle"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
