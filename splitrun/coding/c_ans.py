"""The stack of a payload, kept by the coder in C; for its methods see ``plain_ans``."""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import c_library

NAME: str = "C coder"

_PRECISION = 24
_WORD_BYTES = 4


class _Rows(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("rows", "width", "precision")),
        *((name, ctypes.c_void_p) for name in ("length", "offset", "cdf")),
    )


class _Stack(ctypes.Structure):
    _fields_ = (
        ("state", ctypes.c_uint64),
        ("bytes", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
    )


class AnsModels:
    """Rows of integer frequencies."""

    def __init__(self, frequencies: list[NDArray[np.int64]]) -> None:
        sizes = [row.size + 1 for row in frequencies]
        self._length = np.array(sizes, np.int32)
        self._cdf = np.zeros((len(sizes), max(sizes)), np.int32)
        for row, of_row in zip(self._cdf, frequencies, strict=True):
            np.cumsum(of_row, out=row[1 : of_row.size + 1])
        rows, width = self._cdf.shape
        self.rows = _Rows(
            rows, width, _PRECISION, self._length.ctypes.data, None, self._cdf.ctypes.data
        )


class AnsCoder:
    """A stack of symbols."""

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._library: Any = c_library.library()
        self._stack = _Stack(0, None, words.nbytes, 0)
        self._words = words
        self._reserve(0)
        while self._stack.size and self._stack.state < 1 << 32:
            self._stack.size -= _WORD_BYTES
            word = int(words[self._stack.size // _WORD_BYTES])
            self._stack.state = self._stack.state << 32 | word

    def encode(
        self, slots: NDArray[np.int32], models: AnsModels, counts: NDArray[np.int64]
    ) -> None:
        """Push symbols such that the first is popped first."""
        self._reserve(slots.size)
        slots, counts = np.ascontiguousarray(slots), np.ascontiguousarray(counts, np.int64)
        self._library.sz_push(*self._at(models.rows), slots.ctypes, counts.ctypes)

    def decode(self, models: AnsModels, counts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Pop symbols."""
        slots, counts = np.empty(counts.sum(), np.int32), np.ascontiguousarray(counts, np.int64)
        self._library.sz_pop(*self._at(models.rows), slots.ctypes, counts.ctypes)
        return slots

    def encode_bits(self, values: NDArray[np.int32], widths: NDArray[np.int32]) -> None:
        """Push integers such that the first is popped first."""
        self._reserve(values.size)
        values, widths = np.ascontiguousarray(values), np.ascontiguousarray(widths)
        self._library.sz_push_bits(*self._at(), values.ctypes, widths.ctypes, values.size)

    def decode_bits(self, widths: NDArray[np.int32]) -> NDArray[np.int32]:
        """Pop integers."""
        values, widths = np.empty(widths.size, np.int32), np.ascontiguousarray(widths)
        self._library.sz_pop_bits(*self._at(), values.ctypes, widths.ctypes, values.size)
        return values

    def is_empty(self) -> bool:
        """Return whether everything has been popped."""
        return not self._stack.state and not self._stack.size

    def words(self) -> NDArray[np.uint32]:
        """Return all that was pushed."""
        state = np.frombuffer(self._stack.state.to_bytes(8, "little"), "<u4")
        used = (self._stack.state.bit_length() + 31) // 32
        return np.concatenate([self._words[: self._stack.size // _WORD_BYTES], state[:used]])

    def _at(self, *others: ctypes.Structure) -> tuple[Any, ...]:
        return tuple(map(ctypes.byref, (self._stack, *others)))

    def _reserve(self, symbols: int) -> None:
        """Make room for so many more symbols: each spills a word at most."""
        needed = self._stack.size + _WORD_BYTES * symbols
        if needed > self._stack.capacity or not self._stack.bytes:
            used = self._words[: self._stack.size // _WORD_BYTES]
            size = max(needed, 2 * self._stack.capacity) // _WORD_BYTES
            self._words = np.empty(size, np.uint32)
            self._words[: used.size] = used
            self._stack.bytes, self._stack.capacity = self._words.ctypes.data, self._words.nbytes
