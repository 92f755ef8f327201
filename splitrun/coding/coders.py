"""All kinds of coders by name, and how one is kept in a file. A new kind is a line here."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import TablesError
from .arrays import read_arrays, write_arrays
from .autoregressive import AutoregressiveCoder
from .coder import Coder, Setting
from .factorized import ContextCoder, FactorizedCoder
from .features import FeaturesCoder
from .hyperprior import ContextHyperpriorCoder, HyperpriorCoder
from .integer_hyperprior import (
    IntegerAutoregressiveCoder,
    IntegerContextHyperpriorCoder,
    IntegerHyperpriorCoder,
)
from .pixels import PixelsCoder
from .quantised import QuantisedCoder
from .relu_range import ReluQuantisedCoder
from .variable_rate import VariableRateCoder, VariableRateContextCoder

CODERS: dict[str, type[Coder]] = {
    coder.kind: coder
    for coder in (
        FactorizedCoder,
        HyperpriorCoder,
        AutoregressiveCoder,
        IntegerHyperpriorCoder,
        IntegerContextHyperpriorCoder,
        IntegerAutoregressiveCoder,
        VariableRateCoder,
        VariableRateContextCoder,
        QuantisedCoder,
        ContextCoder,
        ContextHyperpriorCoder,
        ReluQuantisedCoder,
        FeaturesCoder,
        PixelsCoder,
    )
}
_MAX_FILE_BYTES = 1 << 26
_COMPRESSED_FROM_BYTES = 1 << 16


def save_coder(coder: Coder, path: Path) -> None:
    """Write a coder's tables as an ``.npz`` file; large ones are compressed."""
    arrays = coder.arrays()
    large = sum(array.nbytes for array in arrays.values()) > _COMPRESSED_FROM_BYTES
    write_arrays(path, arrays, save=np.savez_compressed if large else np.savez)


def load_coder(kind: str, settings: Mapping[str, Setting], path: Path) -> Coder:
    """Read the coder that :func:`save_coder` wrote.

    Args:
        kind: Kind of the coder, a key in ``CODERS``.
        settings: Settings of the coder.
        path: File of its tables.

    Raises:
        TablesError: The kind is unknown, or the file is missing, damaged, too large, or holds
            anything else.
    """
    if kind not in CODERS:
        raise TablesError(
            f"The coder {kind!r} is unknown; this knows {', '.join(CODERS)}.",
            next_step="Use the splitrun inside the bundle, or: pip install --upgrade splitzoo",
        )
    try:
        arrays = read_arrays(path, CODERS[kind].array_names(), limit_bytes=_MAX_FILE_BYTES)
    except ValueError as error:
        raise TablesError(f"Cannot read entropy tables from {path}: {error}.") from error
    return CODERS[kind].from_parts(settings, arrays)
