"""Split, entropy-code, export and measure supervised-compression models for split computing.

The work is in four subpackages, named as on the command line:

- ``splitzoo.zoo``: build, load and save split models
- ``splitzoo.export``: cut a model into a device graph and an edge graph
- ``splitzoo.profile``: measure what a model costs the device, its bytes and its accuracy
- ``splitzoo.cards``: write model cards

``import splitzoo`` loads none of torch, onnx and onnxruntime.
"""

from typing import TYPE_CHECKING

from splitrun import __version__ as __version__

if TYPE_CHECKING:
    from .profile import api as profile
else:
    # With an __init__.py, profile/ would hide the standard library's `profile` from the repository
    # root. So it is a namespace package, and its public functions are put into it here. By name,
    # as pytest imports this file under the name of the folder that it lies in.
    import importlib

    profile = importlib.import_module("splitzoo.profile")
    _api = vars(importlib.import_module("splitzoo.profile.api"))
    vars(profile).update({name: _api[name] for name in ("__all__", "__doc__", *_api["__all__"])})
