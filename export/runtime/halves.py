"""The two machines: the device turns an image into a stream, the edge a stream into an answer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import BitstreamError, BundleError
from .bundle import Bundle, HalfInfo
from .engines import open_session


class _Half:
    """A graph that was checked and loaded, and the codec of its bundle.

    Args:
        bundle: That was opened.
        half: Its graph.
        threads: For the engine; 0 lets it choose.

    Raises:
        BundleError: The graph or the tables were changed, or cannot be loaded.
    """

    def __init__(self, bundle: Bundle, half: HalfInfo, threads: int) -> None:
        bundle.check_file(half.path)
        self._half = half
        self.codec = bundle.codec()
        self.session = open_session(bundle.engine, half.path, threads)

    def _run(self, value: NDArray) -> NDArray:
        """Run the graph, and hold the engine to what the manifest says of its output."""
        given, expected = self.session.run(value), self._half.output
        if given.dtype != np.dtype(expected.dtype) or given.shape[1:] != expected.shape[1:]:
            raise BundleError(
                f"The graph gave {expected.name} as {given.dtype} {given.shape}; "
                f"the manifest says {expected.dtype} {expected.shape}.",
                next_step="Check the bundle with: splitzoo export verify BUNDLE",
            )
        return given


class Device(_Half):
    """The device half of a bundle."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        super().__init__(bundle, bundle.device, threads)

    def symbols(self, image: NDArray[np.float32]) -> NDArray[np.int32]:
        """Run the device graph: image (N, 3, H, W) float32 to symbols (N, C, h, w) int32."""
        return self._run(image)

    def encode(self, image: NDArray[np.float32]) -> list[bytes]:
        """Turn images (N, 3, H, W) float32 into one stream each."""
        return [self.codec.compress(symbols) for symbols in self.symbols(image)]


class Edge(_Half):
    """The edge half of a bundle."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        super().__init__(bundle, bundle.edge, threads)

    def symbols(self, stream: bytes) -> NDArray[np.int32]:
        """Read a stream's symbols (1, C, h, w) int32.

        Raises:
            BitstreamError: It is damaged, of another model, or of another shape than the graph's.
        """
        payload, height, width = self.codec.unframe(stream)
        if (height, width) != self.codec.shape:
            raise BitstreamError(
                f"The stream holds a latent of {height}×{width}; the edge graph takes "
                f"{self.codec.shape[0]}×{self.codec.shape[1]}."
            )
        return self.codec.coder.decode(payload, height, width)[None]

    def output(self, symbols: NDArray[np.int32]) -> NDArray[np.float32]:
        """Run the edge graph: symbols (N, C, h, w) int32 to the output float32."""
        return self._run(symbols)

    def decode(self, stream: bytes) -> NDArray[np.float32]:
        """Turn one stream into the output of one image, such as logits (1, classes) float32."""
        return self.output(self.symbols(stream))


@dataclass(frozen=True)
class Prediction:
    """One class and its probability."""

    index: int
    label: str
    probability: float


def top_predictions(
    logits: NDArray[np.float32], labels: list[str], count: int = 5
) -> list[Prediction]:
    """Return the most probable classes of logits (1, classes), best first.

    Raises:
        BundleError: There are not as many labels as classes.
    """
    scores = logits.reshape(-1).astype(np.float64)
    if len(labels) != scores.size:
        raise BundleError(f"The bundle has {len(labels)} labels for {scores.size} classes.")
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    order = np.argsort(-shares, kind="stable")[:count]
    return [Prediction(int(i), labels[i], float(shares[i])) for i in order]
