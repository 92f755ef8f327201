"""Symbols to streams and back for one model: tables, frame and id together."""

import numpy as np
from numpy.typing import NDArray

from ...errors import BitstreamError
from .factorized import FactorizedCoder
from .stream import MAX_SIDE, read_stream, write_stream
from .tables import FactorizedTables

MAX_SYMBOLS = 1 << 24
"""Symbols that a stream may claim: 64 MiB of int32."""


class Codec:
    """Turns the symbols of one image into one stream.

    Args:
        tables: Of the model.
        model_id: 4 bytes that tell streams of different models apart.
        shape: Height and width of the latent that need not be sent.
    """

    def __init__(self, tables: FactorizedTables, model_id: bytes, shape: tuple[int, int]) -> None:
        self.coder = FactorizedCoder(tables)
        self.model_id = model_id
        self.shape = shape

    @property
    def tables(self) -> FactorizedTables:
        """The tables of the model."""
        return self.coder.tables

    def compress(self, symbols: NDArray[np.int32]) -> bytes:
        """Code and frame the symbols (C, H, W) int32 of one image."""
        return self.frame(self.coder.encode(symbols), symbols.shape[1:])

    def frame(self, payload: bytes, shape: tuple[int, ...]) -> bytes:
        """Frame a payload; a latent of another shape than the model's sends it along."""
        height, width = shape
        self._refuse_absurd(height, width)
        return write_stream(
            payload, self.model_id, None if (height, width) == self.shape else (height, width)
        )

    def unframe(self, stream: bytes) -> tuple[bytes, int, int]:
        """Check a stream's frame, and return its payload and the latent's height and width.

        Raises:
            BitstreamError: The stream is damaged, hostile, or of another model.
        """
        frame = read_stream(stream)
        if frame.model_id != self.model_id:
            raise BitstreamError(
                f"The stream is of model {frame.model_id.hex()}; this is {self.model_id.hex()}.",
                next_step="Decode it with the bundle or model that wrote it.",
            )
        height, width = frame.shape or self.shape
        self._refuse_absurd(height, width)
        return frame.payload, height, width

    def _refuse_absurd(self, height: int, width: int) -> None:
        channels = self.tables.channels
        possible = 0 < channels * height * width <= MAX_SYMBOLS
        if not possible or max(height, width) > MAX_SIDE:
            raise BitstreamError(
                f"The stream claims {channels}×{height}×{width} symbols; "
                f"from 1 to {MAX_SYMBOLS} are possible."
            )

    def decompress(self, stream: bytes) -> NDArray[np.int32]:
        """Read the symbols (C, H, W) int32 of one image.

        Raises:
            BitstreamError: The stream is damaged, hostile, or of another model.
        """
        return self.coder.decode(*self.unframe(stream))
