"""Integer entropy tables: what the coder knows of the symbols' distribution."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import TablesError
from .coder import Array

MAX_PRECISION = 16
"""Bits of the largest cumulative count; CompressAI's tables have 16."""

_MAX_CHANNELS = 1 << 16
_ARRAYS = {"cdf": 2, "length": 1, "offset": 1, "precision": 0}


@dataclass(frozen=True, eq=False)
class FactorizedTables:
    """One cumulative table per channel, for symbols that are coded independently of each other.

    Channel ``c`` has ``n = length[c] - 2`` ordinary symbols, ``offset[c]`` to
    ``offset[c] + n - 1``, and after them one escape slot for everything else. Slot ``i`` occupies
    ``cdf[c, i] <= t < cdf[c, i + 1]`` of the ``2**precision`` possible values: the factorized
    entropy model of Ballé et al. 2018 (https://arxiv.org/abs/1802.01436, Appendix 6.1), quantised.

    Attributes:
        cdf: (C, L) int32; row c is used up to ``length[c]``.
        length: (C,) int32, entries of each row in use: ordinary symbols + 2.
        offset: (C,) int32, the smallest ordinary symbol.
        precision: Bits; every row ends in ``2**precision``.

    Raises:
        TablesError: A row is not a strictly increasing table from 0 to ``2**precision``.
    """

    cdf: NDArray[np.int32]
    length: NDArray[np.int32]
    offset: NDArray[np.int32]
    precision: int

    def __post_init__(self) -> None:
        for name, ndim in _ARRAYS.items():
            value = np.asarray(getattr(self, name))
            if value.ndim != ndim or value.dtype.kind not in "iu":
                raise TablesError(f"Entropy tables: {name} is not an integer array of rank {ndim}.")
        if not 1 <= int(self.precision) <= MAX_PRECISION:
            raise TablesError(f"Entropy tables: a precision of {self.precision} bits, not 1 to 16.")
        for name in ("cdf", "length", "offset"):
            value = np.asarray(getattr(self, name))
            limits = np.iinfo(np.int32)
            if value.size and (value.min() < limits.min or value.max() > limits.max):
                raise TablesError(f"Entropy tables: {name} does not fit into 32 bits.")
            value = np.ascontiguousarray(value, dtype=np.int32)
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "precision", int(self.precision))
        self._check_rows()

    def _check_rows(self) -> None:
        channels, width = self.cdf.shape
        if not 1 <= channels <= _MAX_CHANNELS or self.length.shape != (channels,):
            raise TablesError(f"Entropy tables: {channels} rows and {self.length.size} lengths.")
        if self.offset.shape != (channels,):
            raise TablesError(f"Entropy tables: {channels} rows and {self.offset.size} offsets.")
        if self.length.min() < 3 or self.length.max() > width:
            raise TablesError("Entropy tables: a length is below 3 or beyond its row.")
        if np.any(self.offset.astype(np.int64) + self.length > np.iinfo(np.int32).max):
            raise TablesError("Entropy tables: an offset leaves the 32-bit range.")
        for channel, (row, length) in enumerate(zip(self.cdf, self.length, strict=True)):
            used = row[:length]
            if used[0] != 0 or used[-1] != 1 << self.precision or np.any(used[1:] <= used[:-1]):
                raise TablesError(
                    f"Entropy tables: row {channel} does not rise from 0 to {1 << self.precision}."
                )

    @property
    def channels(self) -> int:
        """The number of channels, C."""
        return self.cdf.shape[0]

    def digest(self) -> bytes:
        """Return the SHA-256 of what the coder uses; padding does not count."""
        content = hashlib.sha256(b"factorized-1")
        content.update(np.array([self.precision, self.channels], "<i4").tobytes())
        content.update(self.length.astype("<i4").tobytes())
        content.update(self.offset.astype("<i4").tobytes())
        for row, length in zip(self.cdf, self.length, strict=True):
            content.update(row[:length].astype("<i4").tobytes())
        return content.digest()

    def arrays(self, prefix: str = "") -> dict[str, Array]:
        """Return the arrays by name, int32."""
        return {f"{prefix}{name}": np.asarray(getattr(self, name), np.int32) for name in _ARRAYS}

    @classmethod
    def names(cls, prefix: str = "") -> tuple[str, ...]:
        """Return the names that :meth:`arrays` gives."""
        return tuple(f"{prefix}{name}" for name in _ARRAYS)

    @classmethod
    def of(cls, arrays: Mapping[str, Array], prefix: str = "") -> "FactorizedTables":
        """Make tables from what :meth:`arrays` gave.

        Raises:
            TablesError: An array is missing or not valid.
        """
        return cls(**taken(arrays, _ARRAYS, prefix))  # pyright: ignore[reportArgumentType]  # checked in __post_init__


def keep_integers(owner: object, arrays: Mapping[str, tuple[int, int]], what: str) -> None:
    """Make a frozen instance's arrays its own: int32, not writeable.

    Args:
        owner: Of the arrays, which may be hostile.
        arrays: By name, the rank and the largest magnitude of each.
        what: They are, for messages.

    Raises:
        TablesError: One is not of integers, or beyond that.
    """
    for name, (ndim, most) in arrays.items():
        value = np.asarray(getattr(owner, name))
        if value.ndim != ndim or value.dtype.kind not in "iu":
            raise TablesError(f"{what}: {name} is no integer array of rank {ndim}.")
        if value.size and (value.min() < -most or value.max() > most):
            raise TablesError(f"{what}: {name} is beyond {most}.")
        value = np.array(value, np.int32, order="C")
        value.setflags(write=False)
        object.__setattr__(owner, name, value)


def integers_digest(head: bytes, owner: object, names: Iterable[str]) -> bytes:
    """Return the SHA-256 of bytes and, after these, of an instance's arrays as int32."""
    content = hashlib.sha256(head)
    for name in names:
        value = np.asarray(getattr(owner, name), "<i4")
        content.update(np.array([value.ndim, *value.shape], "<i4").tobytes() + value.tobytes())
    return content.digest()


def taken(arrays: Mapping[str, Array], names: Iterable[str], prefix: str) -> dict[str, Array]:
    """Return arrays by their names without a prefix.

    Raises:
        TablesError: One is missing.
    """
    try:
        return {name: arrays[f"{prefix}{name}"] for name in names}
    except KeyError as error:
        raise TablesError(f"Entropy tables: {error} is missing.") from error
