"""Symbols whose distribution another tensor picks: a scale index for each names its table's row.

The rows are zero-mean Gaussians of rising scale, quantised: the conditional entropy model of Ballé
et al. 2018 (https://arxiv.org/abs/1802.01436, Section 3). They have the form of
:class:`FactorizedTables`, with scales in place of channels.
"""

import binascii

import numpy as np
from numpy.typing import NDArray

from ..errors import DesyncError, SplitzooError, TablesError
from .ans import RowModels, Stack
from .codec import MAX_SYMBOLS
from .coder import Array
from .tables import FactorizedTables

CHECK_BYTES = 2
"""Size of :func:`index_check`."""

_MAX_ROWS = 1 << 8


class ConditionalModels:
    """Codes symbols under the rows that their scale indexes name: row after row, in raster order.

    Args:
        tables: One row per scale, 256 at most.

    Raises:
        TablesError: There are more rows.
    """

    def __init__(self, tables: FactorizedTables) -> None:
        if tables.channels > _MAX_ROWS:
            raise TablesError(
                f"Entropy tables: {tables.channels} scales; {_MAX_ROWS} are possible."
            )
        self.channels: int | None = None  # of symbols: any
        self.indexes = tables.channels
        self._models = RowModels(tables)

    def push(self, stack: Stack, symbols: NDArray[np.int32], indexes: NDArray[np.uint8]) -> None:
        """Code symbols.

        Args:
            stack: Where they go.
            symbols: Of any shape, int32, any values; those outside their row are escape-coded.
            indexes: Of the same shape, each below the number of rows.
        """
        order, counts = self._sort(indexes)
        self._models.push(stack, symbols.ravel()[order], counts)

    def pop(self, stack: Stack, indexes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote with these indexes, at least one.

        Returns:
            Symbols in the shape of ``indexes``, int32.

        Raises:
            BitstreamError: A symbol is beyond 32 bits.
        """
        order, counts = self._sort(indexes)
        symbols = np.empty(indexes.size, np.int32)
        symbols[order] = self._models.pop(stack, counts)
        return symbols.reshape(indexes.shape)

    def ideal_bits(self, symbols: NDArray[np.int32], indexes: NDArray[np.uint8]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        order, counts = self._sort(indexes)
        return self._models.ideal_bits(symbols.ravel()[order], counts)

    def _sort(self, indexes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        flat = indexes.ravel()
        return np.argsort(flat, kind="stable"), np.bincount(flat, minlength=self.indexes)


def valid_indexes(indexes: Array, rows: int, error: type[SplitzooError]) -> NDArray[np.uint8]:
    """Return scale indexes in their smallest form.

    Args:
        indexes: (C, h, w) integers.
        rows: That they are to be below, 256 at most.
        error: To raise otherwise.

    Raises:
        SplitzooError: They are not integers of that form, too many, or beyond the tables.
    """
    fit = indexes.ndim == 3 and indexes.dtype.kind in "iu" and 0 < indexes.size <= MAX_SYMBOLS
    if not fit or indexes.min() < 0 or indexes.max() >= rows:
        found = f" from {indexes.min()} to {indexes.max()}" if fit else ""
        raise error(
            f"The scale indexes are {indexes.dtype} {indexes.shape}{found}; expected are "
            f"integers (C, h, w) from 0 to {rows - 1}, {MAX_SYMBOLS} at most."
        )
    return indexes.astype(np.uint8)


def index_check(indexes: NDArray[np.uint8]) -> bytes:
    """Return the CRC-16 of scale indexes, which goes into the payload.

    It differs for certain where one index or two neighbours do, and but for one in 65,536 cases
    otherwise. Symbols read under wrong rows would then hardly end where the payload does, and that
    is checked too: 2 bytes suffice.
    """
    return binascii.crc_hqx(indexes.tobytes(), 0xFFFF).to_bytes(CHECK_BYTES, "little")


SAME_ENGINE = "Run the hyper-decoder with the same engine, precision and version on both."


def check_indexes(indexes: NDArray[np.uint8], check: bytes) -> None:
    """Check that the edge's scale indexes are the device's.

    Args:
        indexes: The edge's.
        check: What :func:`index_check` gave on the device.

    Raises:
        DesyncError: They are not.
    """
    if index_check(indexes) != check:
        raise DesyncError(
            "The scale indexes computed here are not those that the device computed from the same "
            "hyperprior: its arithmetic differs.",
            next_step=SAME_ENGINE,
        )
