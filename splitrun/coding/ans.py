"""Asymmetric numeral systems: symbols on a payload's stack, under the rows of integer tables.

A payload is the state of a stack-like ANS coder (Duda, https://arxiv.org/abs/1311.2540) with
64-bit state, 32-bit words and 24-bit models, as the `constriction` library keeps it. For the ARM
boards that run Linux constriction has no wheels; there ``c_ans``, once ``splitrun compile`` has
compiled it, or else ``plain_ans`` writes and reads the same bytes. A block of symbols, read from
the top of the stack, is their slots in order, escape slots among them; below these, for the escaped
symbols in the same order, their magnitude classes, then their low bits, then their high bits.
"""

from collections.abc import Iterator
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, TablesError
from .plain_ans import AnsCoder
from .tables import FactorizedTables

BACKEND: ModuleType
"""Module that keeps the stack; ``plain_ans`` describes what it holds."""
try:
    from . import constriction_ans as BACKEND
except ImportError:
    from . import c_ans, c_library, plain_ans

    BACKEND = c_ans if c_library.library() else plain_ans

_CODER_PRECISION = 24
_LOW_BITS = 16
_MAX_ROWS = 1 << 8
_CLASSES = 35
"""An escaped int32 symbol lies up to 2**32 outside its table; with the sign, 34 bits and zero."""


class Stack:
    """A payload while it is written or read: what was pushed last is popped first.

    Args:
        payload: Payload to be read; by default, one is to be written.

    Attributes:
        coder: Stack of the backend, which holds the payload.

    Raises:
        BitstreamError: The payload is not one that :meth:`payload` gives.
    """

    def __init__(self, payload: bytes = b"") -> None:
        if payload.endswith(b"\0"):
            raise BitstreamError("The payload ends in a zero byte, which no encoder writes.")
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), "<u4")
        self.coder: AnsCoder = BACKEND.AnsCoder(words.astype(np.uint32))

    def payload(self) -> bytes:
        """Return all that was pushed."""
        # The last word is never zero, so its zero bytes need not be sent.
        return self.coder.words().astype("<u4").tobytes().rstrip(b"\0")

    def close(self) -> None:
        """Check that everything has been popped.

        Raises:
            BitstreamError: There is more.
        """
        if not self.coder.is_empty():
            raise BitstreamError("The payload goes on after its last symbol.")


class RowModels:
    """Codes symbols under the rows of entropy tables, and escape-codes those outside their row.

    Symbols come in the order of the rows that code them; ``counts`` says how many each row has.

    Args:
        tables: Tables whose rows are, say, one per channel or one per scale.
    """

    def __init__(self, tables: FactorizedTables) -> None:
        self.tables = tables
        self._models = BACKEND.AnsModels(
            [
                _frequencies(np.diff(row[:length]))
                for row, length in zip(tables.cdf, tables.length, strict=True)
            ]
        )
        self._escape = tables.length - np.int32(2)
        # Offset and escape slot of a row in one number: they are repeated together.
        self._pairs = np.stack((tables.offset, self._escape), axis=1).view(np.int64).ravel()
        self._escape_classes = BACKEND.AnsModels([_escape_class_frequencies()])

    def slots(
        self, symbols: NDArray[np.int32], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return each symbol's slot, and whether that is the escape slot.

        Args:
            symbols: (n,) int32, any values.
            counts: (rows,), n in all.
        """
        slots, escape = self._repeated(counts)
        np.subtract(symbols, slots, out=slots, casting="safe")
        # A difference below 0, or one that wraps around, is a large unsigned number: the tables'
        # own ranges are checked not to wrap.
        escaped = slots.view(np.uint32) >= escape.view(np.uint32)
        np.copyto(slots, escape, where=escaped)
        return slots, escaped

    def push(self, stack: Stack, symbols: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        """Code a block of symbols.

        Args:
            stack: Stack that takes them.
            symbols: (n,) int32, any values; those outside their row are escape-coded.
            counts: (rows,), n in all.
        """
        slots, escaped = self.slots(symbols, counts)
        if np.count_nonzero(escaped):
            self._push_escapes(stack.coder, symbols[escaped], *self._bounds(escaped, counts))
        stack.coder.encode(slots, self._models, counts)

    def pop(self, stack: Stack, counts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote with these counts, at least one of them above 0.

        Returns:
            (n,) int32.

        Raises:
            BitstreamError: A symbol is beyond 32 bits.
        """
        symbols = stack.coder.decode(self._models, counts)
        offset, escape = self._repeated(counts)
        escaped = symbols == escape
        symbols += offset
        if np.count_nonzero(escaped):
            values = self._pop_escapes(stack.coder, *self._bounds(escaped, counts))
            limits = np.iinfo(np.int32)
            if values.min() < limits.min or values.max() > limits.max:
                raise BitstreamError("The payload holds a symbol beyond 32 bits.")
            symbols[escaped] = values
        return symbols

    def ideal_bits(self, symbols: NDArray[np.int32], counts: NDArray[np.int64]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits.

        Args:
            symbols: Symbols (n,), as :meth:`push` takes them.
            counts: Number of symbols of each row.
        """
        slots, _ = self.slots(symbols, counts)
        frequencies = np.diff(self.tables.cdf.astype(np.int64), axis=1)
        chosen = frequencies[np.repeat(np.arange(len(counts)), counts), slots]
        return float(self.tables.precision * chosen.size - np.log2(chosen).sum())

    def _repeated(self, counts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return (2, n): offset and escape slot of each symbol's row."""
        return self._pairs.repeat(counts).view(np.int32).reshape(-1, 2).T

    def _bounds(
        self, escaped: NDArray[np.bool_], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first ordinary symbol of each escaped one's row, and the first beyond."""
        rows = np.repeat(np.arange(len(counts)), counts)[escaped]
        first = self.tables.offset[rows].astype(np.int64)
        return first, first + self._escape[rows]

    def _push_escapes(
        self,
        coder: AnsCoder,
        symbols: NDArray[np.int32],
        first: NDArray[np.int64],
        end: NDArray[np.int64],
    ) -> None:
        beyond = symbols - np.where(symbols < first, first, end)
        # 0, 1, 2, … above the row become 0, 2, 4, …; −1, −2, … below it become 1, 3, …
        magnitude = np.where(beyond < 0, -2 * beyond - 1, 2 * beyond)
        # The exponent of a float is the number of bits of an integer below 2**53; 0 has none.
        classes = np.frexp(magnitude.astype(np.float64))[1].astype(np.int32)
        for chosen, shift, widths in reversed(list(_bit_fields(classes))):
            bits = (magnitude[chosen] >> shift) & ((1 << widths) - 1)
            coder.encode_bits(bits.astype(np.int32), widths)
        coder.encode(classes, self._escape_classes, np.array([classes.size]))

    def _pop_escapes(
        self, coder: AnsCoder, first: NDArray[np.int64], end: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        classes = coder.decode(self._escape_classes, np.array([first.size]))
        magnitude = np.where(classes > 0, 1 << np.maximum(classes - 1, 0).astype(np.int64), 0)
        for chosen, shift, widths in _bit_fields(classes):
            magnitude[chosen] |= coder.decode_bits(widths).astype(np.int64) << shift
        beyond = np.where(magnitude & 1, -(magnitude + 1) // 2, magnitude // 2)
        return np.add(beyond, np.where(beyond < 0, first, end))


class ChannelModels:
    """Codes symbols (C, h, w) under one row per channel: channel after channel, in raster order.

    Args:
        tables: Tables of C rows.
    """

    def __init__(self, tables: FactorizedTables) -> None:
        self._channels = tables.channels
        self._rows = RowModels(tables)

    def push(self, stack: Stack, symbols: NDArray[np.int32]) -> None:
        """Code symbols int32, any values; those outside their row are escape-coded."""
        self._rows.push(stack, symbols.ravel(), self._counts(symbols.size // self._channels))

    def pop(self, stack: Stack, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote for symbols of this shape, at least one.

        Raises:
            BitstreamError: A symbol is beyond 32 bits.
        """
        _, height, width = shape
        return self._rows.pop(stack, self._counts(height * width)).reshape(shape)

    def ideal_bits(self, symbols: NDArray[np.int32]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        counts = self._counts(symbols.size // self._channels)
        return self._rows.ideal_bits(symbols.ravel(), counts)

    def _counts(self, of_each: int) -> NDArray[np.int64]:
        return np.full(self._channels, of_each)


class ConditionalModels:
    """Codes symbols under the rows that their scale indexes name: row after row, in raster order.

    A hyperprior's rows are zero-mean Gaussians of rising scale, quantised: the conditional entropy
    model of Ballé et al. 2018 (https://arxiv.org/abs/1802.01436, Section 3).

    Args:
        tables: Tables of one row per scale, 256 at most.

    Attributes:
        channels: Number of channels that the symbols must have; None for any.
        indexes: Number of indexes, and of rows.

    Raises:
        TablesError: There are more rows.
    """

    def __init__(self, tables: FactorizedTables) -> None:
        if tables.channels > _MAX_ROWS:
            raise TablesError(
                f"Entropy tables: {tables.channels} scales; {_MAX_ROWS} are possible."
            )
        self.channels: int | None = None
        self.indexes = tables.channels
        self._rows = RowModels(tables)

    def push(self, stack: Stack, symbols: NDArray[np.int32], indexes: NDArray[np.uint8]) -> None:
        """Code symbols.

        Args:
            stack: Stack that takes them.
            symbols: Symbols of any shape, int32, any values; those outside their row are
                escape-coded.
            indexes: Index of each symbol, below the number of rows.
        """
        order, counts = self._sort(indexes)
        self._rows.push(stack, symbols.ravel()[order], counts)

    def pop(self, stack: Stack, indexes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote with these indexes, at least one.

        Returns:
            Symbols in the shape of ``indexes``, int32.

        Raises:
            BitstreamError: A symbol is beyond 32 bits.
        """
        order, counts = self._sort(indexes)
        symbols = np.empty(indexes.size, np.int32)
        symbols[order] = self._rows.pop(stack, counts)
        return symbols.reshape(indexes.shape)

    def ideal_bits(self, symbols: NDArray[np.int32], indexes: NDArray[np.uint8]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        order, counts = self._sort(indexes)
        return self._rows.ideal_bits(symbols.ravel()[order], counts)

    def _sort(self, indexes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        flat = indexes.ravel()
        return flat.argsort(kind="stable"), np.bincount(flat, minlength=self.indexes)


def _bit_fields(
    classes: NDArray[np.int32],
) -> Iterator[tuple[NDArray[np.bool_], int, NDArray[np.int32]]]:
    """Yield how the bits below the leading one are sent: whose, from which bit, how many."""
    rest = np.maximum(classes - 1, 0)
    for shift, bits in ((0, np.minimum(rest, _LOW_BITS)), (_LOW_BITS, rest - _LOW_BITS)):
        chosen = bits > 0
        if chosen.any():
            yield chosen, shift, bits[chosen]


def _frequencies(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Scale counts, a power of two in all, to the coder's precision."""
    counts = counts.astype(np.int64)
    return counts * ((1 << _CODER_PRECISION) // int(counts.sum()))


def _escape_class_frequencies() -> NDArray[np.int64]:
    """Return frequencies of the escapes' bit lengths: falling as 1 / (bits + 2), in integers."""
    counts = (1 << 16) // np.arange(2, _CLASSES + 2, dtype=np.int64)
    counts = counts * (1 << 16) // int(counts.sum())
    counts[0] += (1 << 16) - int(counts.sum())
    return _frequencies(counts)
