"""Entropy coding and the wire format: numpy and constriction alone, so that it runs on the board.

::

    symbols (C, H, W) int32 ──encode_symbols──► payload ──write_stream──► stream
                            ◄──decode_symbols──         ◄──read_stream──
                                    ▲
                            FactorizedTables: integers, made once, stored with the model
"""

from .codec import Codec
from .factorized import FactorizedCoder
from .stream import STREAM_OVERHEAD_BYTES, read_stream, write_stream
from .tables import FactorizedTables

__all__ = [
    "STREAM_OVERHEAD_BYTES",
    "Codec",
    "FactorizedCoder",
    "FactorizedTables",
    "read_stream",
    "write_stream",
]
