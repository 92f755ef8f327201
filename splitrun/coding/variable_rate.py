"""Coders of a latent at one of several levels of rate, chosen when it is encoded.

::

    device: latent ─► ⌊(latent − median) · gain⌉ = symbols ─► payload
    edge:   payload ─► symbols · inverse gain + median = latent_hat

The payload is the level, 1 byte, and a stack (see ``ans``) of its symbols under its own tables. The
gains are stored; each step is one operation in float32, which IEEE 754 rounds alike everywhere.
"""

import copy
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import BitstreamError, RateError, TablesError
from .coder import AnyCoder, Array, Coder, HyperDecoder, Setting
from .context.sparse import SparseTables
from .context_network import finite_float32
from .factorized import ContextCoder, FactorizedCoder, SymbolCoder
from .tables import FactorizedTables

MAX_LEVELS = 1 << 8
_MOST_GAIN = 1e6
_MOST_MEDIAN = 1e30
_BEYOND = 1 << 31


@dataclass(frozen=True, eq=False)
class Levels:
    """The gains of L levels of rate, for C channels.

    Attributes:
        betas: (L,) float32, rising: β of each level, the weight of its rate in training.
        medians: (C,) float32: what is rounded to 0.
        gains: (L, C) float32: symbols for 1 of the latent.
        inverse_gains: (L, C) float32: latent for 1 symbol.

    Raises:
        TablesError: They do not fit together, or are not possible.
    """

    betas: NDArray[np.float32]
    medians: NDArray[np.float32]
    gains: NDArray[np.float32]
    inverse_gains: NDArray[np.float32]

    NAMES: ClassVar[tuple[str, ...]] = ("betas", "medians", "gains", "inverse_gains")

    def __post_init__(self) -> None:
        for name in self.NAMES:
            object.__setattr__(self, name, finite_float32(vars(self), name))
        shape = (self.betas.size, self.medians.size)
        if (self.betas.ndim, self.medians.ndim) != (1, 1) or not 1 < shape[0] <= MAX_LEVELS:
            raise TablesError(f"Levels: 2 to {MAX_LEVELS} are possible, not {self.betas.shape}.")
        if self.betas[0] <= 0 or np.any(self.betas[1:] <= self.betas[:-1]):
            raise TablesError("Levels: their β do not rise from above 0.")
        if np.abs(self.medians).max(initial=0) > _MOST_MEDIAN:
            raise TablesError(f"Levels: a median is beyond {_MOST_MEDIAN:g}.")
        for gains in (self.gains, self.inverse_gains):
            if gains.shape != shape:
                raise TablesError(f"Levels: gains {gains.shape}, where {shape} were expected.")
            if np.any((gains < 1 / _MOST_GAIN) | (gains > _MOST_GAIN)):
                raise TablesError(f"Levels: a gain is not within {1 / _MOST_GAIN:g} and 1e6.")

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in self.NAMES}

    def nearest(self, beta: float) -> int:
        """Return the level whose β is nearest, as a ratio.

        Raises:
            RateError: β is outside the levels' range.
        """
        if not self.betas[0] <= np.float32(beta) <= self.betas[-1]:
            raise RateError(
                f"β {beta:g} is outside the model's range, {self.betas[0]:g} to "
                f"{self.betas[-1]:g}.",
                next_step=f"Its levels are: {', '.join(f'{beta:g}' for beta in self.betas)}",
            )
        return int(np.abs(np.log(self.betas) - math.log(beta)).argmin())

    def symbols(self, latent: Array, level: int) -> NDArray[np.int32]:
        """Round a latent (C, h, w) float32.

        Raises:
            TablesError: It is no such latent, or no 32-bit symbols result from it.
        """
        if latent.ndim != 3 or len(latent) != self.medians.size or latent.dtype != np.float32:
            raise TablesError(
                f"The latent is {latent.dtype} {latent.shape}; float32 of {self.medians.size} "
                "channels was expected."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            symbols = (latent - _planes(self.medians)) * _planes(self.gains[level])
        np.rint(symbols, out=symbols)
        if not np.all(np.abs(symbols) < _BEYOND):
            raise TablesError("The latent is not finite, or beyond 32 bits.")
        return symbols.astype(np.int32)

    def latent_hat(self, symbols: NDArray[np.int32], level: int) -> NDArray[np.float32]:
        """Return what the edge makes of symbols (C, h, w)."""
        scaled = symbols.astype(np.float32) * _planes(self.inverse_gains[level])
        return scaled + _planes(self.medians)


def _planes(of_channels: NDArray[np.float32]) -> NDArray[np.float32]:
    return of_channels[:, None, None]


class VariableRateCoder(Coder):
    """Codes a latent at one of several levels, under tables of one row per level and channel.

    Args:
        tables: Tables of L · C channels: those of the first level, then of the next.
        levels: Gains of the levels.
        level: Level to encode at.

    Attributes:
        tables: Tables of all levels.
        levels: Gains of the levels.
        level: Level to encode at; a payload says its own.
        inner_type: Class that codes the symbols of one level.

    Raises:
        TablesError: The tables are not for these levels.
    """

    kind: ClassVar[str] = "variable-rate"
    inner_type: ClassVar[Any] = FactorizedCoder
    lossless: ClassVar[bool] = True

    def __init__(
        self, tables: FactorizedTables | SparseTables, levels: Levels, level: int = 0
    ) -> None:
        number, channels = levels.gains.shape
        if tables.channels != number * channels:
            raise TablesError(
                f"The tables have {tables.channels} channels; {number} levels of {channels} need "
                f"{number * channels}."
            )
        # A bool is an int to Python.
        if type(level) is not int or not 0 <= level < number:
            raise TablesError(f"There are {number} levels, and none is {level!r}.")
        self.tables, self.levels, self.level = tables, levels, level
        self._inner: dict[int, SymbolCoder] = {}

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return self.levels.medians.size

    @property
    def betas(self) -> tuple[float, ...]:
        """The β of each level, rising."""
        return tuple(float(f"{beta:g}") for beta in self.levels.betas)

    @property
    def beta(self) -> float:
        """The β of the level to encode at."""
        return self.betas[self.level]

    def at(self: AnyCoder, beta: float) -> AnyCoder:
        """Return the coder that encodes at the level whose β is nearest.

        Raises:
            RateError: β is outside the levels' range.
        """
        changed: Any = copy.copy(self)
        changed.level = changed.levels.nearest(beta)
        return changed

    def inner(self, level: int) -> SymbolCoder:
        """Return the coder of a level's symbols."""
        if level not in self._inner:
            first = level * self.channels
            tables = self.tables.part(slice(first, first + self.channels))
            self._inner[level] = self.inner_type(tables)
        return self._inner[level]

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on: the level is in the payload."""
        content = hashlib.sha256(f"{self.kind}-1".encode() + self.tables.digest())
        for array in self.levels.arrays().values():
            content.update(array.astype("<f4").tobytes())
        return content.digest()

    def settings(self) -> dict[str, Setting]:
        """Return the level to encode at."""
        return {"level": self.level}

    def arrays(self) -> dict[str, Array]:
        """Return tables and gains by name."""
        return self.tables.arrays() | self.levels.arrays()

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        return cls.inner_type.array_names() + Levels.NAMES

    @classmethod
    def from_parts(
        cls: type[AnyCoder], settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> AnyCoder:
        """Make a coder from tables and gains, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        tables = cls.inner_type.tables_type.of(arrays)  # pyright: ignore
        missing = [name for name in Levels.NAMES if name not in arrays]
        if missing or not set(settings) <= {"level"}:
            raise TablesError(f"Levels: {', '.join(missing or settings)} is missing or unknown.")
        levels = Levels(**{name: arrays[name] for name in Levels.NAMES})  # pyright: ignore
        return cls(tables, levels, settings.get("level", 0))  # pyright: ignore

    def encode(self, *tensors: Array) -> bytes:
        """Round and code the latent of one image.

        Args:
            tensors: Latent (C, h, w) float32.

        Returns:
            The payload.

        Raises:
            TablesError: The latent is of another form, or no 32-bit symbols result from it.
        """
        (latent,) = tensors
        symbols = self.levels.symbols(latent, self.level)
        return bytes([self.level]) + self.inner(self.level).encode(symbols)

    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Return latent_hat (C, height, width) float32.

        Time and memory are bounded by ``C * height * width``, whatever the payload holds.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
        """
        level, number = payload[:1], len(self.betas)
        if not level or level[0] >= number:
            found = f"level {level[0]}" if level else "no level"
            raise BitstreamError(f"The payload names {found}; this model has 0 to {number - 1}.")
        (symbols,) = self.inner(level[0]).decode(payload[1:], height, width)
        return (self.levels.latent_hat(symbols, level[0]),)

    def decoded(self, *tensors: Array) -> tuple[Array, ...]:
        """Return latent_hat."""
        (latent,) = tensors
        symbols = self.levels.symbols(latent, self.level)
        return (self.levels.latent_hat(symbols, self.level),)

    def ideal_bits(self, *tensors: Array) -> float:
        """Return the sum of −log2 p over the ordinary symbols and escape slots, in bits."""
        (latent,) = tensors
        return self.inner(self.level).ideal_bits(self.levels.symbols(latent, self.level))


class VariableRateContextCoder(VariableRateCoder):
    """The same, with symbols that pick tables for their neighbours; see ``context``."""

    kind: ClassVar[str] = "variable-rate-context"
    is_context: ClassVar[bool] = True
    inner_type: ClassVar[Any] = ContextCoder
