"""The two machines: the device turns an image into a stream, the edge a stream into an answer."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, GraphInfo
from .engines import Session, open_session
from .errors import BitstreamError, BundleError

Tensors = tuple[NDArray[Any], ...]


class Graph:
    """A graph of a bundle, loaded.

    Args:
        bundle: That was opened.
        name: Of the graph, such as ``"device"``.
        threads: For the engine; 0 takes the bundle's number, or lets the engine choose.
        stand_in: Let another engine run it, if this one is not for every machine.

    Raises:
        BundleError: The bundle has no such graph, or it was changed, or cannot be loaded.
    """

    info: GraphInfo
    session: Session

    def __init__(
        self, bundle: Bundle, name: str, threads: int = 0, *, stand_in: bool = False
    ) -> None:
        if name not in bundle.graphs:
            raise BundleError(
                f"{bundle.folder} has no {name} graph.", next_step="Export the bundle again."
            )
        self.info = info = bundle.graphs[name]
        for path in (info.path, info.weights):
            if path is not None:
                bundle.check_file(path)
        self.session = open_session(
            info.engine, info.path, threads or info.threads, info.hint, stand_in=stand_in
        )

    def __call__(self, tensors: Sequence[NDArray[Any]]) -> Tensors:
        """Run the graph, and hold the engine to what the manifest says of its outputs."""
        inputs = {info.name: tensor for info, tensor in zip(self.info.inputs, tensors, strict=True)}
        given = self.session.run(inputs, [info.name for info in self.info.outputs])
        batch = len(tensors[0])
        for tensor, info in zip(given, self.info.outputs, strict=True):
            shape = (batch, *info.shape[1:]) if info.shape[0] == -1 else info.shape
            if tensor.dtype != np.dtype(info.dtype) or tensor.shape != shape:
                raise BundleError(
                    f"The graph gave {info.name} as {tensor.dtype} {tensor.shape}; "
                    f"the manifest says {info.dtype} {info.shape}.",
                    next_step="Check the bundle with: splitzoo export verify BUNDLE",
                )
        return tuple(given)


class Device:
    """The device half of a bundle."""

    def __init__(self, bundle: Bundle, threads: int = 0, *, stand_in: bool = False) -> None:
        self.codec = bundle.codec()
        self.graph = Graph(bundle, "device", threads, stand_in=stand_in)

    def tensors(self, image: NDArray[np.float32]) -> Tensors:
        """Run the device graph: image (N, 3, H, W) float32 to the wire tensors, each (N, …)."""
        return self.graph([image])

    def encode(self, image: NDArray[np.float32]) -> list[bytes]:
        """Turn images (N, 3, H, W) float32 into one stream each."""
        return [self.codec.compress(*one) for one in zip(*self.tensors(image), strict=True)]


class Edge:
    """The edge half of a bundle."""

    def __init__(self, bundle: Bundle, threads: int = 0, *, stand_in: bool = False) -> None:
        self.codec = bundle.codec()
        self.graph = Graph(bundle, "edge", threads, stand_in=stand_in)
        self._hyper, self._boxes = (
            Graph(bundle, name, threads, stand_in=stand_in) if name in bundle.graphs else None
            for name in ("hyper", "boxes")
        )

    def hyper(self, hyper_symbols: NDArray[np.int32]) -> Tensors:
        """Run the hyper graph for one image: z (C, h, w) to scale indexes and what follows them."""
        if self._hyper is None:
            raise BundleError("The bundle has no hyper graph.")
        return tuple(tensor[0] for tensor in self._hyper([hyper_symbols[None]]))

    def boxes(self, tensors: Sequence[NDArray[Any]]) -> Tensors:
        """Run a detector's second stage: levels and proposals to class logits and box deltas."""
        if self._boxes is None:
            raise BundleError("The bundle has no boxes graph.")
        return self._boxes(tensors)

    def tensors(self, stream: bytes) -> Tensors:
        """Read a stream into the edge graph's inputs, each (1, …).

        Raises:
            BitstreamError: It is damaged, of another model, or of another shape than the graph's.
        """
        payload, height, width = self.codec.unframe(stream)
        return self.decode_payload(payload, height, width)

    def decode_payload(self, payload: bytes, height: int, width: int) -> Tensors:
        """Decode a payload into the edge graph's inputs, each (1, …).

        Raises:
            BitstreamError: It is damaged, or of another shape than the graph's.
        """
        if (height, width) != self.codec.shape:
            raise BitstreamError(
                f"The stream holds a latent of {height}×{width}; the edge graph takes "
                f"{self.codec.shape[0]}×{self.codec.shape[1]}."
            )
        hyper = self.hyper if self._hyper else None
        decoded = self.codec.coder.decode(payload, height, width, hyper)
        return tuple(tensor[None] for tensor in decoded)

    def output(self, tensors: Sequence[NDArray[Any]]) -> Tensors:
        """Run the edge graph: what the coder gave back, each (N, …), to the outputs."""
        return self.graph(tensors)

    def decode(self, stream: bytes) -> Tensors:
        """Turn one stream into the outputs of one image, such as logits (1, classes) float32."""
        return self.output(self.tensors(stream))
