"""Split, entropy-code, export and measure supervised-compression models for split computing.

The work is in four subpackages, named as on the command line:

- ``splitzoo.zoo``: build, load and save split models; their entropy coding
- ``splitzoo.export``: cut a model into a device graph and an edge graph
- ``splitzoo.profile``: measure what the device pays
- ``splitzoo.cards``: write model cards

``import splitzoo`` loads none of torch, onnx and onnxruntime.
"""

from splitrun import __version__ as __version__
