"""Integer entropy tables: the distribution of symbols, as the entropy coder uses it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import TablesError
from .coder import Array

MAX_PRECISION = 16
"""Bits of the largest cumulative count; CompressAI's tables have 16."""

MAX_CHANNELS = 1 << 16

_INT32 = np.iinfo(np.int32)
AnyTables = TypeVar("AnyTables", bound="IntegerTables")


class IntegerTables:
    """Base of tables: frozen dataclasses of integer arrays, int32 and not writeable.

    Attributes:
        title: Name of the tables in messages.
        specs: Rank and largest magnitude of each array, by name; arrays of rank 0 become ``int``.

    Raises:
        TablesError: An array is not of integers, or beyond that.
    """

    title: ClassVar[str]
    specs: ClassVar[Mapping[str, tuple[int, int]]]

    def __post_init__(self) -> None:
        for name, (rank, most) in self.specs.items():
            value = np.asarray(getattr(self, name))
            if value.ndim != rank or value.dtype.kind not in "iu":
                raise TablesError(f"{self.title}: {name} is no integer array of rank {rank}.")
            low, high = max(-most, _INT32.min), min(most, _INT32.max)
            if value.size and (value.min() < low or value.max() > high):
                limit = "32 bits" if most > _INT32.max else most
                raise TablesError(f"{self.title}: {name} is beyond {limit}.")
            value = np.array(value, np.int32, order="C")
            value.setflags(write=False)
            object.__setattr__(self, name, value if rank else int(value))
        self._check()

    def _check(self) -> None:
        """Check that the arrays fit together."""

    def arrays(self, prefix: str = "") -> dict[str, Array]:
        """Return the arrays by name, int32."""
        return {f"{prefix}{name}": np.asarray(getattr(self, name), np.int32) for name in self.specs}

    @classmethod
    def names(cls, prefix: str = "") -> tuple[str, ...]:
        """Return the names that :meth:`arrays` gives."""
        return tuple(f"{prefix}{name}" for name in cls.specs)

    @classmethod
    def of(cls: type[AnyTables], arrays: Mapping[str, Array], prefix: str = "") -> AnyTables:
        """Make tables from :meth:`arrays`, which may be hostile.

        Raises:
            TablesError: An array is missing or not valid.
        """
        return cls(**cls._taken(arrays, prefix))

    @classmethod
    def _taken(cls, arrays: Mapping[str, Array], prefix: str) -> dict[str, Any]:
        try:
            return {name: arrays[f"{prefix}{name}"] for name in cls.specs}
        except KeyError as error:
            raise TablesError(f"{cls.title}: {error} is missing.") from error


@dataclass(frozen=True, eq=False)
class FactorizedTables(IntegerTables):
    """One cumulative table per channel, for symbols that are coded independently of each other.

    Channel ``c`` has ``n = length[c] - 2`` ordinary symbols, ``offset[c]`` to
    ``offset[c] + n - 1``, and after them one escape slot for everything else. Slot ``i`` occupies
    ``cdf[c, i] <= t < cdf[c, i + 1]`` of the ``2**precision`` possible values: the factorized
    entropy model of Ballé et al. 2018 (https://arxiv.org/abs/1802.01436, Appendix 6.1), quantised.

    Attributes:
        cdf: (C, L) int32; row c is used up to ``length[c]``.
        length: (C,) int32, number of entries of each row in use: ordinary symbols + 2.
        offset: (C,) int32, smallest ordinary symbol of each row.
        precision: Number of bits; every row ends in ``2**precision``.

    Raises:
        TablesError: A row is not a strictly increasing table from 0 to ``2**precision``.
    """

    cdf: NDArray[np.int32]
    length: NDArray[np.int32]
    offset: NDArray[np.int32]
    precision: int

    title: ClassVar[str] = "Entropy tables"
    specs: ClassVar[Mapping[str, tuple[int, int]]] = {
        "cdf": (2, 1 << 31),
        "length": (1, 1 << 31),
        "offset": (1, 1 << 31),
        "precision": (0, 1 << 31),
    }

    def _check(self) -> None:
        if not 1 <= self.precision <= MAX_PRECISION:
            raise TablesError(f"Entropy tables: a precision of {self.precision} bits, not 1 to 16.")
        channels, width = self.cdf.shape
        if not 1 <= channels <= MAX_CHANNELS or self.length.shape != (channels,):
            raise TablesError(f"Entropy tables: {channels} rows and {self.length.size} lengths.")
        if self.offset.shape != (channels,):
            raise TablesError(f"Entropy tables: {channels} rows and {self.offset.size} offsets.")
        if self.length.min() < 3 or self.length.max() > width:
            raise TablesError("Entropy tables: a length is below 3 or beyond its row.")
        if np.any(self.offset.astype(np.int64) + self.length > _INT32.max):
            raise TablesError("Entropy tables: an offset leaves the 32-bit range.")
        for channel, (row, length) in enumerate(zip(self.cdf, self.length, strict=True)):
            used = row[:length]
            if used[0] != 0 or used[-1] != 1 << self.precision or np.any(used[1:] <= used[:-1]):
                raise TablesError(
                    f"Entropy tables: row {channel} does not rise from 0 to {1 << self.precision}."
                )

    @property
    def channels(self) -> int:
        """Number of channels, C."""
        return self.cdf.shape[0]

    def part(self, channels: slice) -> "FactorizedTables":
        """Return the tables of some of the channels."""
        length = self.length[channels]
        cdf = self.cdf[channels, : length.max()]
        return FactorizedTables(cdf, length, self.offset[channels], self.precision)

    def digest(self) -> bytes:
        """Return the SHA-256 of what the coder uses; padding does not count."""
        content = hashlib.sha256(b"factorized-1")
        content.update(np.array([self.precision, self.channels], "<i4").tobytes())
        content.update(self.length.astype("<i4").tobytes())
        content.update(self.offset.astype("<i4").tobytes())
        for row, length in zip(self.cdf, self.length, strict=True):
            content.update(row[:length].astype("<i4").tobytes())
        return content.digest()
