"""Run the two halves of a bundle: image to stream on the device, stream to prediction on the edge.

>>> from splitrun import Device, Edge, open_bundle
>>> bundle = open_bundle("bundle")
>>> stream = Device(bundle).encode_image("photo.jpg")  # bytes, to be sent
>>> print(Edge(bundle).predict(stream))

All that a board or an edge server runs. It needs numpy, Pillow and the bundle's engine, and codes
faster with constriction; it imports neither torch nor splitzoo. Its command line is
``python -m splitrun --help``, and a bundle carries a copy of this folder.
"""

from typing import TYPE_CHECKING

from .lazy import lazy_names

if TYPE_CHECKING:
    from .bundle import Bundle, open_bundle
    from .coding import Codec, Coder
    from .errors import BitstreamError, BundleError, DesyncError, SplitzooError
    from .halves import Device, Edge, Outputs, Stream
    from .manifest import Manifest
    from .predictions import ClassScore, Prediction
    from .predictions.detection import Detection
    from .predictions.segmentation import ClassShare
    from .preprocessing import Preprocessing
    from .selftest import SelfTest, run_selftest

__version__ = "0.1.0"

_HOME = {
    name: module
    for module, names in {
        ".bundle": ("Bundle", "open_bundle"),
        ".coding": ("Codec", "Coder"),
        ".errors": ("BitstreamError", "BundleError", "DesyncError", "SplitzooError"),
        ".halves": ("Device", "Edge", "Outputs", "Stream"),
        ".manifest": ("Manifest",),
        ".predictions": ("ClassScore", "Prediction"),
        ".predictions.detection": ("Detection",),
        ".predictions.segmentation": ("ClassShare",),
        ".preprocessing": ("Preprocessing",),
        ".selftest": ("SelfTest", "run_selftest"),
    }.items()
    for name in names
}

__all__ = [
    "BitstreamError",
    "Bundle",
    "BundleError",
    "ClassScore",
    "ClassShare",
    "Codec",
    "Coder",
    "DesyncError",
    "Detection",
    "Device",
    "Edge",
    "Manifest",
    "Outputs",
    "Prediction",
    "Preprocessing",
    "SelfTest",
    "SplitzooError",
    "Stream",
    "open_bundle",
    "run_selftest",
]

__getattr__, __dir__ = lazy_names(__name__, _HOME)
