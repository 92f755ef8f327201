"""The stack of a payload, kept by the `constriction` library; for its methods see ``plain_ans``."""

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

NAME: str = "constriction"

_stream: Any = constriction.stream  # pyright: ignore  # a compiled module without stubs
_UNIFORM = _stream.model.Uniform()


class AnsModels:
    """Rows of integer frequencies."""

    def __init__(self, frequencies: list[NDArray[np.int64]]) -> None:
        self.rows = [_integer_model(row) for row in frequencies]


class AnsCoder:
    """A stack of symbols."""

    def __init__(self, words: NDArray[np.uint32]) -> None:
        self._coder = _stream.stack.AnsCoder(words)

    def encode(
        self, slots: NDArray[np.int32], models: AnsModels, counts: NDArray[np.int64]
    ) -> None:
        """Push symbols such that the first is popped first."""
        encode, ends = self._coder.encode_reverse, counts.cumsum().tolist()
        for row in reversed(counts.nonzero()[0].tolist()):
            encode(slots[ends[row - 1] if row else 0 : ends[row]], models.rows[row])

    def decode(self, models: AnsModels, counts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Pop symbols."""
        decode, known, numbers = self._coder.decode, models.rows, counts.tolist()
        return np.concatenate(
            [decode(known[row], numbers[row]) for row in counts.nonzero()[0].tolist()]
        )

    def encode_bits(self, values: NDArray[np.int32], widths: NDArray[np.int32]) -> None:
        """Push integers such that the first is popped first."""
        self._coder.encode_reverse(values, _UNIFORM, _sizes(widths))

    def decode_bits(self, widths: NDArray[np.int32]) -> NDArray[np.int32]:
        """Pop integers."""
        return self._coder.decode(_UNIFORM, _sizes(widths))

    def is_empty(self) -> bool:
        """Return whether everything has been popped."""
        return self._coder.is_empty()

    def words(self) -> NDArray[np.uint32]:
        """Return all that was pushed."""
        return self._coder.get_compressed()


def _sizes(widths: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.left_shift(1, widths).astype(np.int32)


def _integer_model(frequencies: NDArray[np.int64]) -> Any:
    """Make a model whose probabilities are these integers exactly.

    constriction gives each of n symbols one count and shares out the other ``2**24 - n`` in
    proportion to floating-point weights. Weights of ``count - 1`` add up to just that number, so
    the scale is exactly 1, every partial sum is an integer below 2**53, and nothing is rounded.
    """
    return _stream.model.Categorical((frequencies - 1).astype(np.float64), perfect=False)
