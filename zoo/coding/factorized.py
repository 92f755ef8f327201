"""Entropy coding of symbols under one table per channel: asymmetric numeral systems.

The payload is the state of a stack-like ANS coder (Duda, https://arxiv.org/abs/1311.2540) with
64-bit state, 32-bit words and 24-bit models, as the `constriction` library keeps it. Read from its
top it holds the ordinary symbols and escape slots, channel after channel in raster order; below
them, for the escaped symbols in the same order, their magnitude classes, then their low bits, then
their high bits.
"""

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from ...errors import BitstreamError
from .tables import FactorizedTables

_stream: Any = constriction.stream  # pyright: ignore  # a compiled module without stubs
_Categorical = _stream.model.Categorical
_Uniform = _stream.model.Uniform
_AnsCoder = _stream.stack.AnsCoder

_CODER_PRECISION = 24
_LOW_BITS = 16
_CLASSES = 35
"""An escaped int32 symbol lies up to 2**32 outside its table; with the sign, 34 bits and zero."""


def _integer_model(frequencies: NDArray[np.integer]) -> Any:
    """Make a constriction model whose probabilities are these integers exactly.

    constriction gives each of n symbols one count and shares out the other ``2**24 - n`` in
    proportion to floating-point weights. Weights of ``count - 1`` add up to just that number, so
    the scale is exactly 1, every partial sum is an integer below 2**53, and nothing is rounded.
    """
    counts = frequencies.astype(np.int64)
    counts *= (1 << _CODER_PRECISION) // int(counts.sum())
    return _Categorical((counts - 1).astype(np.float64), perfect=False)


def _escape_class_model() -> Any:
    """Return the model of the escapes' bit lengths: falling as 1 / (bits + 2), in integers."""
    counts = (1 << 16) // np.arange(2, _CLASSES + 2, dtype=np.int64)
    counts = counts * (1 << 16) // int(counts.sum())
    counts[0] += (1 << 16) - int(counts.sum())
    return _integer_model(counts)


class FactorizedCoder:
    """Codes symbol arrays under given tables; keeps the tables in the coder's own form.

    Args:
        tables: One row per channel.
    """

    def __init__(self, tables: FactorizedTables) -> None:
        self.tables = tables
        self._models = [
            _integer_model(np.diff(row[:length]))
            for row, length in zip(tables.cdf, tables.length, strict=True)
        ]
        self._offset = tables.offset[:, None]
        self._escape = tables.length[:, None] - np.int32(2)
        self._escape_classes = _escape_class_model()

    def encode(self, symbols: NDArray[np.int32]) -> bytes:
        """Code the symbols of one image, losslessly.

        Args:
            symbols: (C, H, W) int32, any values; those outside their table are escape-coded.

        Returns:
            The payload.
        """
        slots, escaped = self._slots(symbols)
        coder = _AnsCoder()
        if escaped.any():
            self._encode_escapes(coder, symbols, escaped)
        for slot_row, model in zip(slots[::-1], reversed(self._models), strict=True):
            coder.encode_reverse(slot_row, model)
        # The last word is never zero, so its zero bytes need not be sent.
        return coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0")

    def decode(self, payload: bytes, height: int, width: int) -> NDArray[np.int32]:
        """Read back what :meth:`encode` wrote.

        Time and memory are bounded by ``C * height * width``, whatever the payload holds.

        Returns:
            (C, height, width) int32.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        if payload.endswith(b"\0"):
            raise BitstreamError("The payload ends in a zero byte, which no encoder writes.")
        words = np.frombuffer(payload + b"\0" * (-len(payload) % 4), "<u4").astype(np.uint32)
        coder = _AnsCoder(words)
        count = height * width
        rows = np.stack([coder.decode(model, count) for model in self._models])
        escaped = rows == self._escape
        rows += self._offset
        beyond = self._decode_escapes(coder, escaped) if escaped.any() else None
        if not coder.is_empty():
            raise BitstreamError("The payload goes on after its last symbol.")
        if beyond is not None:
            limits = np.iinfo(np.int32)
            if beyond.min() < limits.min or beyond.max() > limits.max:
                raise BitstreamError("The payload holds a symbol beyond 32 bits.")
            rows[escaped] = beyond
        return rows.reshape(-1, height, width)

    def _slots(self, symbols: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return each symbol's slot (C, H·W) int32, and whether it is the escape slot."""
        symbols = symbols.astype(np.int32, casting="safe", copy=False)
        slots = symbols.reshape(self.tables.channels, -1) - self._offset
        # A difference below 0, or one that wraps around, is a large unsigned number: the tables'
        # own ranges are checked not to wrap.
        escaped = slots.view(np.uint32) >= self._escape.view(np.uint32)
        np.copyto(slots, self._escape, where=escaped)
        return slots, escaped

    def _bounds(self, escaped: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first ordinary symbol of each escaped one's channel, and the first beyond."""
        first = np.broadcast_to(self._offset, escaped.shape)[escaped].astype(np.int64)
        return first, first + np.broadcast_to(self._escape, escaped.shape)[escaped]

    def _encode_escapes(
        self, coder: Any, symbols: NDArray[np.int32], escaped: NDArray[np.bool_]
    ) -> None:
        first, end = self._bounds(escaped)
        values = symbols.reshape(escaped.shape)[escaped].astype(np.int64)
        beyond = np.where(values < first, values - first, values - end)
        # 0, 1, 2, … above the table become 0, 2, 4, …; −1, −2, … below it become 1, 3, …
        magnitude = np.where(beyond < 0, -2 * beyond - 1, 2 * beyond)
        classes = _bit_lengths(magnitude)
        for bits, values in reversed(_bit_fields(classes, magnitude)):
            coder.encode_reverse(values, _Uniform(), np.left_shift(1, bits).astype(np.int32))
        coder.encode_reverse(classes.astype(np.int32), self._escape_classes)

    def _decode_escapes(self, coder: Any, escaped: NDArray[np.bool_]) -> NDArray[np.int64]:
        first, end = self._bounds(escaped)
        classes = coder.decode(self._escape_classes, first.size).astype(np.int64)
        magnitude = np.where(classes > 0, np.left_shift(1, np.maximum(classes - 1, 0)), 0)
        for shift, chosen, bits in _bit_split(classes):
            sizes = np.left_shift(1, bits).astype(np.int32)
            magnitude[chosen] |= coder.decode(_Uniform(), sizes).astype(np.int64) << shift
        beyond = np.where(magnitude & 1, -(magnitude + 1) // 2, magnitude // 2)
        return np.add(np.where(beyond < 0, first, end), beyond)

    def ideal_bits(self, symbols: NDArray[np.int32]) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        slots, _ = self._slots(symbols)
        frequency = np.diff(self.tables.cdf.astype(np.int64), axis=1)
        counts = np.take_along_axis(frequency, slots, axis=1)
        return float(self.tables.precision * counts.size - np.log2(counts).sum())


def _bit_lengths(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of bits of each non-negative integer below 2**53; 0 has none."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def _bit_split(
    classes: NDArray[np.int64],
) -> list[tuple[int, NDArray[np.bool_], NDArray[np.int64]]]:
    """Say how the bits below the leading one are sent: shift, which values, how many bits."""
    rest = np.maximum(classes - 1, 0)
    fields = []
    for shift, bits in ((0, np.minimum(rest, _LOW_BITS)), (_LOW_BITS, rest - _LOW_BITS)):
        chosen = bits > 0
        if chosen.any():
            fields.append((shift, chosen, bits[chosen]))
    return fields


def _bit_fields(
    classes: NDArray[np.int64], magnitude: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Cut the bits below the leading one into the fields of :func:`_bit_split`."""
    return [
        (bits, ((magnitude[chosen] >> shift) & ((1 << bits) - 1)).astype(np.int32))
        for shift, chosen, bits in _bit_split(classes)
    ]
