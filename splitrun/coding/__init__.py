"""Entropy coding and the wire format: numpy alone, and constriction where it can be installed.

::

    tensors (C, h, w) ──Coder.encode──► payload ──write_stream──► stream
                      ◄──Coder.decode──         ◄──read_stream──
                              ▲
                      tables: integers, made once, stored with the model
"""

from .codec import Codec
from .coder import Coder, Hyper
from .coders import CODERS
from .factorized import FactorizedCoder
from .files import load_coder, save_coder
from .stream import STREAM_OVERHEAD_BYTES, read_stream, write_stream
from .tables import FactorizedTables

__all__ = [
    "CODERS",
    "STREAM_OVERHEAD_BYTES",
    "Codec",
    "Coder",
    "FactorizedCoder",
    "FactorizedTables",
    "Hyper",
    "load_coder",
    "read_stream",
    "save_coder",
    "write_stream",
]
