"""The stack of a payload, kept by Python and numpy alone, where constriction is not installed.

This is the range variant of asymmetric numeral systems (Duda, https://arxiv.org/abs/1311.2540,
Section 3.3): a state below 2**64, words of 32 bits that it spills, models of 24 bits. It does bit
for bit what constriction does. Each symbol depends on the state that the one before it left, so
there is one loop over Python's integers; all that does not depend on the state is done before it.
"""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

NAME: str = "plain Python coder"
"""Name of the backend, for people."""

_PRECISION = 24
_TOTAL = 1 << _PRECISION
_MASK = _TOTAL - 1
_WORD = 1 << 32
_WORD_MASK = _WORD - 1
_SPILL = 64 - _PRECISION
_BLOCK = 1 << 16
"""Number of symbols that are Python's integers at a time: these take tens of bytes each."""


class AnsModels:
    """Rows of integer frequencies, one row after the other in flat arrays.

    Args:
        frequencies: Frequencies of each row's slots, (n,) int64 with n from 2, above 0, 2**24 in
            all.

    Attributes:
        first: (rows,) int64, where each row begins.
        frequency: Frequency of every slot, int64.
        start: Sum of the frequencies before every slot in its row, int64.
    """

    def __init__(self, frequencies: list[NDArray[np.int64]]) -> None:
        sizes = np.array([row.size for row in frequencies], np.int64)
        self.first = np.cumsum(sizes) - sizes
        self.frequency = np.concatenate(frequencies)
        # Every row adds up to 2**24.
        self.start = np.cumsum(self.frequency) - self.frequency
        self.start -= np.repeat(np.arange(sizes.size), sizes) << _PRECISION
        self._finders: dict[int, tuple[list[int], list[tuple[int, int]]]] = {}

    def finder(self, row: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Return a row as decoding looks it up; it is made when it is first needed.

        Returns:
            Start of each slot but the first; and for each slot, 2**24 less its frequency, and its
            start.
        """
        if row not in self._finders:
            end = self.first[row + 1] if row + 1 < self.first.size else self.start.size
            own = slice(self.first[row], end)
            starts = self.start[own].tolist()
            rest = (_TOTAL - self.frequency[own]).tolist()
            self._finders[row] = starts[1:], list(zip(rest, starts, strict=True))
        return self._finders[row]


class AnsCoder:
    """A stack of symbols, written and read under models of the same module.

    Args:
        words: Words that it holds, (m,) uint32; the last is not 0. None: it is empty.
    """

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._words: list[int] = words.tolist()
        self._state = 0
        while self._words and self._state < _WORD:
            self._state = self._state << 32 | self._words.pop()

    def encode(
        self, slots: NDArray[np.int32], models: AnsModels, counts: NDArray[np.int64]
    ) -> None:
        """Push symbols such that the first is popped first.

        Args:
            slots: (n,) int32, in the order of the rows that code them, each below its row's size.
            models: Models with these rows.
            counts: (rows,) number of symbols of each row, n in all.
        """
        places = np.repeat(models.first, counts)
        places += slots
        for end in range(places.size, 0, -_BLOCK):
            block = places[max(end - _BLOCK, 0) : end]
            self._push(models.start[block], models.frequency[block])

    def decode(self, models: AnsModels, counts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Pop symbols; a stack that is exhausted goes on giving some.

        Args:
            models: Models that they were pushed with.
            counts: (rows,) number of symbols of each row, at least one above 0.

        Returns:
            Slots (n,) int32.
        """
        state, words, find = self._state, self._words, bisect_right
        slots: list[int] = []
        for row in np.flatnonzero(counts).tolist():
            cuts, intervals = models.finder(row)
            for _ in range(counts[row]):
                slot = find(cuts, state & _MASK)
                rest, start = intervals[slot]
                # (state >> 24) * frequency + (state & mask) - start, with less arithmetic.
                state -= (state >> _PRECISION) * rest + start
                if state < _WORD and words:
                    state = state << 32 | words.pop()
                slots.append(slot)
        self._state = state
        return np.array(slots, np.int32)

    def encode_bits(self, values: NDArray[np.int32], widths: NDArray[np.int32]) -> None:
        """Push integers such that the first is popped first.

        Args:
            values: (n,) int32, each below ``2**width``.
            widths: (n,) int32, from 1 to 23 bits.
        """
        frequency = np.right_shift(_TOTAL, widths.astype(np.int64))
        self._push(values * frequency, frequency)

    def decode_bits(self, widths: NDArray[np.int32]) -> NDArray[np.int32]:
        """Pop what :meth:`encode_bits` pushed, (n,) int32."""
        state, words = self._state, self._words
        values: list[int] = []
        for below in (_PRECISION - widths).tolist():
            value = (state & _MASK) >> below
            state = (state >> _PRECISION << below) + (state & ((1 << below) - 1))
            if state < _WORD and words:
                state = state << 32 | words.pop()
            values.append(value)
        self._state = state
        return np.array(values, np.int32)

    def is_empty(self) -> bool:
        """Return whether everything has been popped."""
        return not self._state and not self._words

    def words(self) -> NDArray[np.uint32]:
        """Return all that was pushed, (m,) uint32; the last is not 0."""
        words, state = self._words.copy(), self._state
        while state:
            words.append(state & _WORD_MASK)
            state >>= 32
        return np.array(words, np.uint32)

    def _push(self, starts: NDArray[np.int64], frequencies: NDArray[np.int64]) -> None:
        """Push symbols by their intervals (n,), the last first."""
        state, words = self._state, self._words
        for start, frequency in zip(starts[::-1].tolist(), frequencies[::-1].tolist(), strict=True):
            if state >> _SPILL >= frequency:
                words.append(state & _WORD_MASK)
                state >>= 32
            # (state // frequency << 24) + state % frequency + start, with one division.
            state += state // frequency * (_TOTAL - frequency) + start
        self._state = state
