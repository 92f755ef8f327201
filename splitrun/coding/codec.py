"""Tensors to streams and back for one model: coder, frame and id together."""

from ..errors import BitstreamError
from .coder import Array, Coder, Hyper
from .stream import MAX_SIDE, read_stream, write_stream

MAX_SYMBOLS = 1 << 24
"""Symbols that a stream may claim: 64 MiB of int32."""


class Codec:
    """Turns what the device graph gives for one image into one stream.

    Args:
        coder: Of the model.
        model_id: 4 bytes that tell streams of different models apart.
        shape: Height and width, of the tensor that is decoded first, that need not be sent.
    """

    def __init__(self, coder: Coder, model_id: bytes, shape: tuple[int, int]) -> None:
        self.coder = coder
        self.model_id = model_id
        self.shape = shape

    def compress(self, *tensors: Array) -> bytes:
        """Code and frame the device graph's outputs for one image, each (C, h, w)."""
        return self.frame(self.coder.encode(*tensors), self.coder.shape(*tensors))

    def frame(self, payload: bytes, shape: tuple[int, int]) -> bytes:
        """Frame a payload; another shape than the model's is sent along."""
        self._check_size(*shape)
        return write_stream(payload, self.model_id, None if shape == self.shape else shape)

    def unframe(self, stream: bytes) -> tuple[bytes, int, int]:
        """Check a stream's frame, and return its payload, height and width.

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
        self._check_size(height, width)
        return frame.payload, height, width

    def _check_size(self, height: int, width: int) -> None:
        channels = self.coder.channels
        possible = 0 < channels * height * width <= MAX_SYMBOLS
        if not possible or max(height, width) > MAX_SIDE:
            raise BitstreamError(
                f"The stream claims {channels}×{height}×{width} symbols; "
                f"from 1 to {MAX_SYMBOLS} are possible."
            )

    def decompress(self, stream: bytes, hyper: Hyper | None = None) -> tuple[Array, ...]:
        """Read the edge graph's inputs for one image, each (C, h, w).

        Args:
            stream: From :meth:`compress`.
            hyper: The hyper-decoder, for coders that need one.

        Raises:
            BitstreamError: The stream is damaged, hostile, or of another model.
        """
        payload, height, width = self.unframe(stream)
        return self.coder.decode(payload, height, width, hyper)
