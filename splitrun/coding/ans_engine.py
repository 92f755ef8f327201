"""What keeps a payload's stack: constriction, or Python where constriction cannot be imported.

It has no wheels for the ARM boards that run Linux. Both engines write and read the same bytes.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class AnsCoder(Protocol):
    """A stack of symbols, read and written under models of the same engine."""

    def encode(self, slots: NDArray[np.int32], models: Any, counts: NDArray[np.int64]) -> None:
        """Push symbols such that the first is popped first.

        Args:
            slots: (n,) int32, in the order of the rows that code them, each below its row's size.
            models: From :meth:`Engine.AnsModels`.
            counts: (rows,), how many symbols each row has, n in all.
        """
        ...

    def decode(self, models: Any, counts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Pop symbols; a stack that is exhausted goes on giving some.

        Args:
            models: As they were pushed with.
            counts: Likewise, at least one of them above 0.

        Returns:
            Slots (n,) int32.
        """
        ...

    def encode_bits(self, values: NDArray[np.int32], widths: NDArray[np.int32]) -> None:
        """Push integers such that the first is popped first.

        Args:
            values: (n,) int32, each below ``2**width``.
            widths: (n,) int32, from 1 to 23 bits.
        """
        ...

    def decode_bits(self, widths: NDArray[np.int32]) -> NDArray[np.int32]:
        """Pop what :meth:`encode_bits` pushed, (n,) int32."""
        ...

    def is_empty(self) -> bool:
        """Return whether everything has been popped."""
        ...

    def words(self) -> NDArray[np.uint32]:
        """Return all that was pushed, (m,) uint32; the last is not 0."""
        ...


class Engine(Protocol):
    """A module with a coder and its models.

    Attributes:
        NAME: For people.
    """

    NAME: str

    def AnsCoder(self, words: NDArray[np.uint32]) -> AnsCoder:
        """Return a stack that holds these words (m,), the last of them not 0; none: empty."""
        ...

    def AnsModels(self, frequencies: list[NDArray[np.int64]]) -> Any:
        """Return models whose rows have these frequencies: 2 or more, above 0, 2**24 in all."""
        ...


ENGINE: Engine
try:
    from . import constriction_ans
except ImportError:
    from . import plain_ans

    ENGINE = plain_ans
else:
    ENGINE = constriction_ans
