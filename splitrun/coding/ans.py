"""Asymmetric numeral systems under integer tables: what the entropy coders here share.

A payload is the state of a stack-like ANS coder (Duda, https://arxiv.org/abs/1311.2540) with
64-bit state, 32-bit words and 24-bit models, as the `constriction` library keeps it; see
``ans_engine`` for what keeps it here. A block of symbols, read from the top of the stack, is their
slots in order, escape slots among them; below these, for the escaped symbols in the same order,
their magnitude classes, then their low bits, then their high bits.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError
from .ans_engine import ENGINE, AnsCoder
from .tables import FactorizedTables

_CODER_PRECISION = 24
_LOW_BITS = 16
_CLASSES = 35
"""An escaped int32 symbol lies up to 2**32 outside its table; with the sign, 34 bits and zero."""


class Stack:
    """A payload while it is written or read: what was pushed last is popped first.

    Args:
        payload: To be read; by default, one to be written.

    Attributes:
        coder: That of the engine, which holds it.

    Raises:
        BitstreamError: The payload is not one that :meth:`payload` gives.
    """

    def __init__(self, payload: bytes = b"") -> None:
        if payload.endswith(b"\0"):
            raise BitstreamError("The payload ends in a zero byte, which no encoder writes.")
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), "<u4")
        self.coder: AnsCoder = ENGINE.AnsCoder(words.astype(np.uint32))

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
    """The rows of entropy tables as models of the coder, and a code for what lies outside of them.

    Symbols come in the order of the rows that code them; ``counts`` says how many each row has.

    Args:
        tables: Of any rows: one per channel, one per scale.
    """

    def __init__(self, tables: FactorizedTables) -> None:
        self.tables = tables
        self._models = ENGINE.AnsModels(
            [
                _frequencies(np.diff(row[:length]))
                for row, length in zip(tables.cdf, tables.length, strict=True)
            ]
        )
        self._escape = tables.length - np.int32(2)
        self._escape_classes = ENGINE.AnsModels([_escape_class_frequencies()])

    def slots(
        self, symbols: NDArray[np.int32], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return each symbol's slot, and whether that is the escape slot.

        Args:
            symbols: (n,) int32, any values.
            counts: (rows,), n in all.
        """
        escape = np.repeat(self._escape, counts)
        slots = np.repeat(self.tables.offset, counts)
        np.subtract(symbols, slots, out=slots, casting="safe")
        # A difference below 0, or one that wraps around, is a large unsigned number: the tables'
        # own ranges are checked not to wrap.
        escaped = slots.view(np.uint32) >= escape.view(np.uint32)
        np.copyto(slots, escape, where=escaped)
        return slots, escaped

    def push(self, stack: Stack, symbols: NDArray[np.int32], counts: NDArray[np.int64]) -> None:
        """Code a block of symbols.

        Args:
            stack: Where they go.
            symbols: (n,) int32, any values; those outside their row are escape-coded.
            counts: (rows,), n in all.
        """
        slots, escaped = self.slots(symbols, counts)
        if escaped.any():
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
        escaped = symbols == np.repeat(self._escape, counts)
        symbols += np.repeat(self.tables.offset, counts)
        if escaped.any():
            values = self._pop_escapes(stack.coder, *self._bounds(escaped, counts))
            limits = np.iinfo(np.int32)
            if values.min() < limits.min or values.max() > limits.max:
                raise BitstreamError("The payload holds a symbol beyond 32 bits.")
            symbols[escaped] = values
        return symbols

    def ideal_bits(self, symbols: NDArray[np.int32], counts: NDArray[np.int64]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits.

        Args:
            symbols: As :meth:`push` takes them.
            counts: Likewise.
        """
        slots, _ = self.slots(symbols, counts)
        frequencies = np.diff(self.tables.cdf.astype(np.int64), axis=1)
        chosen = frequencies[np.repeat(np.arange(len(counts)), counts), slots]
        return float(self.tables.precision * chosen.size - np.log2(chosen).sum())

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
        tables: C rows.
    """

    def __init__(self, tables: FactorizedTables) -> None:
        self._channels = tables.channels
        self._rows = RowModels(tables)

    def push(self, stack: Stack, symbols: NDArray[np.int32]) -> None:
        """Code symbols, int32, of any values: those outside their row are escape-coded."""
        self._rows.push(stack, symbols.ravel(), self._counts(symbols.size // self._channels))

    def pop(self, stack: Stack, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """Read back what :meth:`push` wrote of symbols of this shape, at least one.

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


def _bit_fields(
    classes: NDArray[np.int32],
) -> Iterator[tuple[NDArray[np.bool_], int, NDArray[np.int32]]]:
    """Say how the bits below the leading one are sent: whose, from which bit, how many."""
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
    """Return those of the escapes' bit lengths: falling as 1 / (bits + 2), in integers."""
    counts = (1 << 16) // np.arange(2, _CLASSES + 2, dtype=np.int64)
    counts = counts * (1 << 16) // int(counts.sum())
    counts[0] += (1 << 16) - int(counts.sum())
    return _frequencies(counts)
