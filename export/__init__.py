"""Cut a model into a device graph and an edge graph, and prove that the two agree with it.

>>> from splitzoo import export, zoo
>>> model = zoo.load("splittable_resnet50-fp-beta0.08", pretrained=False)
>>> export.split(model, "bundle", target="cpu")
"""

from typing import TYPE_CHECKING

from splitrun.lazy import lazy_names

if TYPE_CHECKING:
    from splitrun.manifest import Manifest

    from .options import ExportOptions
    from .running import run
    from .splitting import split
    from .tails import split_tails
    from .triton import TritonModel, TritonOptions, export_triton
    from .verification import verify

_HOME = {
    "ExportOptions": ".options",
    "Manifest": "splitrun.manifest",
    "split": ".splitting",
    "split_tails": ".tails",
    "TritonModel": ".triton",
    "TritonOptions": ".triton",
    "export_triton": ".triton",
    "run": ".running",
    "verify": ".verification",
}

__all__ = [
    "ExportOptions",
    "Manifest",
    "TritonModel",
    "TritonOptions",
    "export_triton",
    "run",
    "split",
    "split_tails",
    "verify",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
