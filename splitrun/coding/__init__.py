"""Entropy coding and the wire format; constriction makes it faster, numpy alone is enough.

::

    tensors (C, h, w) ──Coder.encode──► payload ──write_stream──► stream
                      ◄──Coder.decode──         ◄──read_stream──
                              ▲
                      tables: integers, made once, stored with the model
"""

from .coder import Coder, HyperDecoder
from .coders import CODERS, load_coder, save_coder
from .factorized import FactorizedCoder
from .stream import STREAM_OVERHEAD_BYTES, Codec, read_stream, write_stream
from .tables import FactorizedTables

__all__ = [
    "CODERS",
    "STREAM_OVERHEAD_BYTES",
    "Codec",
    "Coder",
    "FactorizedCoder",
    "FactorizedTables",
    "HyperDecoder",
    "load_coder",
    "read_stream",
    "save_coder",
    "write_stream",
]
