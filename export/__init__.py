"""Cut a model into a device graph and an edge graph, and prove that the two agree with it.

>>> from splitzoo import export, zoo
>>> model = zoo.load("splittable_resnet50-fp-beta0.08", pretrained=False)
>>> export.export_split(model, "bundle", target="cpu")
"""

from typing import TYPE_CHECKING

from splitrun.lazy import lazy_names

if TYPE_CHECKING:
    from .manifest import Manifest
    from .run import run_bundle
    from .split import export_split
    from .verify import verify_bundle

_HOME = {
    "Manifest": ".manifest",
    "export_split": ".split",
    "run_bundle": ".run",
    "verify_bundle": ".verify",
}

__all__ = ["Manifest", "export_split", "run_bundle", "verify_bundle"]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
