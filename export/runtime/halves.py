"""The two machines: the device turns an image into a stream, the edge a stream into an answer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import BitstreamError, BundleError
from .bundle import Bundle, TensorInfo
from .engines import open_session


class Device:
    """The device half of a bundle.

    Args:
        bundle: That was opened.
        threads: For the engine; 0 lets it choose.

    Raises:
        BundleError: The graph or the tables were changed, or cannot be loaded.
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        self.bundle = bundle
        self.codec = bundle.codec()
        bundle.check_file(bundle.device.path)
        self.session = open_session(bundle.engine, bundle.device.path, threads)

    def symbols(self, image: NDArray[np.float32]) -> NDArray[np.int32]:
        """Run the device graph: image (N, 3, H, W) float32 to symbols (N, C, h, w) int32."""
        return _checked(self.session.run(image), self.bundle.device.output)

    def encode(self, image: NDArray[np.float32]) -> list[bytes]:
        """Turn images (N, 3, H, W) float32 into one stream each."""
        return [self.codec.compress(symbols) for symbols in self.symbols(image)]


class Edge:
    """The edge half of a bundle.

    Args:
        bundle: That was opened.
        threads: For the engine; 0 lets it choose.

    Raises:
        BundleError: The graph or the tables were changed, or cannot be loaded.
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        self.bundle = bundle
        self.codec = bundle.codec()
        bundle.check_file(bundle.edge.path)
        self.session = open_session(bundle.engine, bundle.edge.path, threads)

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
        return _checked(self.session.run(symbols), self.bundle.edge.output)

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


def _checked(value: NDArray, expected: TensorInfo) -> NDArray:
    """Hold an engine to what the manifest says of its output."""
    if value.dtype != np.dtype(expected.dtype) or value.shape[1:] != expected.shape[1:]:
        raise BundleError(
            f"The graph gave {expected.name} as {value.dtype} {value.shape}; "
            f"the manifest says {expected.dtype} {expected.shape}.",
            next_step="Check the bundle with: splitzoo export verify BUNDLE",
        )
    return value
