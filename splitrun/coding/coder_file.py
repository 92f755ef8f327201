"""``coder.bin``: a model's coder as a C program reads it, see ``c/sz.h``.

::

    words
    1      "SZC1"
    1      kind, its place in ``KINDS``
    1      id of the model's streams
    2      height and width of the tensor that is decoded first
    1      number of levels of rate, 1 where it is fixed
    n      tables: those of y; with a hyperprior, then those of z
    1      CRC-32 of everything before it

Words are 32 bits, little-endian. Tables begin with their sizes and are used where they lie.
"""

import zlib

import numpy as np

from ..errors import TablesError
from .context.sparse import SparseTables
from .factorized import ContextCoder, FactorizedCoder
from .hyperprior import ContextHyperpriorCoder, HyperpriorCoder
from .stream import Codec
from .tables import FactorizedTables
from .variable_rate import VariableRateCoder, VariableRateContextCoder

KINDS = (
    FactorizedCoder,
    ContextCoder,
    HyperpriorCoder,
    ContextHyperpriorCoder,
    VariableRateCoder,
    VariableRateContextCoder,
)
"""Classes of the coders that there are in C, in the order of ``sz_kind``."""


def coder_file(codec: Codec) -> bytes:
    """Return the content of ``coder.bin``.

    Args:
        codec: Codec of a model.

    Raises:
        TablesError: There is no coder of its kind in C.
    """
    coder = codec.coder
    kinds = [kind.kind for kind in KINDS]
    if coder.kind not in kinds:
        raise TablesError(
            f"There is no coder of kind {coder.kind} in C; there are {', '.join(kinds)}.",
            next_step="Run the model with Python: python -m splitrun encode",
        )
    words = np.frombuffer(b"SZC1" + bytes([kinds.index(coder.kind), 0, 0, 0]), "<i4").tolist()
    words += np.frombuffer(codec.stream_id, "<i4").tolist()
    words += [*codec.shape, len(coder.betas) or 1]
    tables = [coder.tables]  # pyright: ignore[reportAttributeAccessIssue]  # of all KINDS
    if isinstance(coder, HyperpriorCoder | ContextHyperpriorCoder):
        tables.append(coder.hyper_tables)
    parts = [np.array(words, "<i4"), *map(_words, tables)]
    content = b"".join(part.astype("<i4").tobytes() for part in parts)
    return content + zlib.crc32(content).to_bytes(4, "little")


def _words(tables: FactorizedTables | SparseTables) -> np.ndarray:
    if isinstance(tables, FactorizedTables):
        sizes = (*tables.cdf.shape, tables.precision)
        return _joined(sizes, tables.length, tables.offset, tables.cdf)
    values = (tables.weights, tables.side, tables.side_weights, tables.spreads, tables.fractions)
    number, _, _, channels = tables.weights.shape
    sizes = (number, channels, *(array.size for array in (tables.side, *values[3:])), tables.limit)
    return _joined(sizes, *values, _words(tables.rows))


def _joined(sizes: tuple[int, ...], *arrays: np.ndarray) -> np.ndarray:
    return np.concatenate([np.array(sizes, np.int32), *(array.ravel() for array in arrays)])
