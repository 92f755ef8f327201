"""The two machines: the device makes a stream of an image, the edge a prediction of a stream."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .bundle_layout import ENGINES_FOLDER
from .engines import ENGINES, check_graph, open_session
from .errors import BitstreamError, BundleError, ImageError
from .image_reading import AnyImage
from .manifest import GraphInfo, TensorInfo
from .predictions import Prediction, predict

Tensors = tuple[NDArray[Any], ...]


class Stream(bytes):
    """One image as it is sent: bytes, in the format of :mod:`splitrun.coding.stream`.

    Attributes:
        payload_bytes: Number of bytes without the frame.
    """

    payload_bytes: int


class Outputs(Sequence[NDArray[Any]]):
    """The edge graph's outputs for one image, in order or by name: ``outputs["logits"]``.

    Args:
        names: Names of the outputs.
        tensors: Outputs, each (1, …).
    """

    def __init__(self, names: Sequence[str], tensors: Sequence[NDArray[Any]]) -> None:
        self.names, self._tensors = tuple(names), tuple(tensors)

    @overload
    def __getitem__(self, key: int | str) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, key: slice) -> Tensors: ...
    def __getitem__(self, key: int | str | slice) -> NDArray[Any] | Tensors:
        """Return an output by its place or name."""
        return self._tensors[self.names.index(key) if isinstance(key, str) else key]

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        pairs = zip(self.names, self._tensors, strict=True)
        shapes = (f"{name}: {tensor.dtype} {tensor.shape}" for name, tensor in pairs)
        return f"Outputs({', '.join(shapes)})"


def checked_graph(bundle: Bundle, info: GraphInfo) -> Path:
    """Return a graph's file, as the manifest says and, unless trusted, of known operators alone.

    Raises:
        BundleError: A file was changed, or holds or opens something else.
    """
    path, *weights = map(bundle.checked_path, info.files)
    if not bundle.trusted:
        check_graph(info.engine, path, *weights)
    return path


def check_code(bundle: Bundle) -> None:
    """Refuse a bundle with graphs of formats that can hold code.

    Raises:
        BundleError: A graph can hold code; says which.
    """
    for name, graph in bundle.graphs.items():
        if can_hold_code(bundle.folder, graph.engine):
            raise BundleError(
                f"{bundle.folder} is not run: its {name} graph, for {graph.engine}, "
                f"{ENGINES[graph.engine].risk}.",
                next_step="If you or someone you trust made it: --trust, or in the bundle, "
                "python -m splitrun",
            )


def can_hold_code(folder: Path, engine: str) -> bool:
    """Say whether what an engine runs of a bundle can hold code, such as a TensorRT engine."""
    if engine == "tensorrt":
        return (folder / ENGINES_FOLDER).is_dir()
    return engine in ENGINES and ENGINES[engine].runs_code


class Graph:
    """A graph of a bundle, loaded for one of the halves; several threads may call it.

    Attributes:
        info: Description of the graph in the manifest.
        engine: Name and version of the engine that runs it.
    """

    def __init__(
        self, bundle: Bundle, info: GraphInfo, threads: int = 0, *, stand_in: bool = False
    ) -> None:
        self.info = info
        path = checked_graph(bundle, info)
        self._session = open_session(
            info.engine, path, threads or info.threads, info.hint, stand_in=stand_in
        )
        self.engine = self._session.version
        self._lock = nullcontext() if self._session.thread_safe else threading.Lock()

    def __call__(self, tensors: Sequence[NDArray[Any]]) -> Tensors:
        """Run the graph, and hold the engine to what the manifest says of its outputs."""
        inputs = {info.name: tensor for info, tensor in zip(self.info.inputs, tensors, strict=True)}
        with self._lock:
            outputs = self._session.run(inputs, [info.name for info in self.info.outputs])
        if self._session.floats_only:
            outputs = [_as_told(*pair) for pair in zip(outputs, self.info.outputs, strict=True)]
        batch = len(tensors[0])
        for tensor, info in zip(outputs, self.info.outputs, strict=True):
            shape = (batch, *info.shape[1:]) if info.shape[0] == -1 else info.shape
            if tensor.dtype != np.dtype(info.dtype) or tensor.shape != shape:
                raise BundleError(
                    f"The graph gave {info.name} as {tensor.dtype} {tensor.shape}; "
                    f"the manifest says {info.dtype} {info.shape}.",
                    next_step="Check the bundle with: splitzoo export verify BUNDLE",
                )
        return tuple(outputs)

    def together(self, groups: Sequence[Tensors]) -> Tensors:
        """Run the graph for groups of images, all at once where it takes several.

        Args:
            groups: Inputs of each group, (n, …); n may differ from group to group.

        Returns:
            Outputs of all images in their order, each (images, …).
        """
        tensors = groups[0]
        if len(groups) > 1:
            tensors = tuple(map(np.concatenate, zip(*groups, strict=True)))
        if self.info.inputs[0].shape[0] == -1 or len(tensors[0]) == 1:
            return self(tensors)
        places = range(len(tensors[0]))
        rows = [self([tensor[place : place + 1] for tensor in tensors]) for place in places]
        return tuple(map(np.concatenate, zip(*rows, strict=True)))


def _as_told(tensor: NDArray[Any], info: TensorInfo) -> NDArray[Any]:
    """Turn what an engine of floats alone gave into the type that the manifest says."""
    with np.errstate(invalid="ignore"):
        told = tensor.astype(info.dtype)
    if told.dtype != tensor.dtype and not np.array_equal(told, tensor):
        raise BundleError(f"The graph gave {info.name} that are no whole numbers of {info.dtype}.")
    return told


class Device:
    """The device half of a bundle: image → stream.

    Several threads may use one ``Device``; streams are the same as from one thread. Engines that
    run one image at a time (OpenVINO, TensorRT, PyTorch) let threads wait for one another.

    Args:
        bundle: Bundle from :func:`open_bundle`.
        threads: Number of threads for the engine; 0 takes the bundle's, or lets the engine choose.
        stand_in: Let ONNX Runtime run a graph that is for TensorRT where there is none.

    Raises:
        BundleError: The half is not here, or a part of it was changed or cannot be loaded.
        DependencyError: The engine is not installed.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, *, stand_in: bool = False) -> None:
        info = bundle.device
        self.codec = bundle.codec()
        self.graph = Graph(bundle, info.graph, threads, stand_in=stand_in)
        self._preprocessing = bundle.preprocessing

    def encode(self, images: NDArray[np.float32], beta: float | None = None) -> list[Stream]:
        """Turn preprocessed images (N, 3, H, W), or one (3, H, W), float32 into one stream each.

        Args:
            images: Images.
            beta: β that chooses the level of a model of variable rate; None: the bundle's.

        Raises:
            ImageError: They are of another type or shape than the device graph takes.
            RateError: The model's rate is fixed, or β is outside its range.
        """
        self.codec.at(beta)  # before the graph is run
        wire = zip(*self.wire_tensors(images), strict=True)
        return [self.compress(*tensors, beta=beta) for tensors in wire]

    def encode_image(self, image: AnyImage, beta: float | None = None) -> Stream:
        """Preprocess one image, as :meth:`Preprocessing.load` takes it, and turn it into a stream.

        Args:
            image: Image.
            beta: β, as :meth:`encode` takes it.

        Raises:
            ImageError: The image cannot be read.
            RateError: The model's rate is fixed, or β is outside its range.
        """
        return self.encode(self._preprocessing.load(image), beta)[0]

    def encode_images(
        self, images: Iterable[AnyImage], beta: float | None = None
    ) -> Iterator[Stream]:
        """Turn images into streams one by one, as they come, such as the frames of a camera.

        See :meth:`encode_image` for the arguments and errors.
        """
        return (self.encode_image(image, beta) for image in images)

    def wire_tensors(self, images: NDArray[np.float32]) -> Tensors:
        """Run the device graph: images (N, 3, H, W) float32 to the wire tensors, each (N, …).

        Raises:
            ImageError: The images are of another type or shape than the graph takes.
        """
        (info,) = self.graph.info.inputs
        if not isinstance(images, np.ndarray):
            known = "an array; encode_image takes paths, bytes and Pillow images"
            raise ImageError(f"given as {type(images).__name__}", f"it is not {known}")
        images = images[None] if images.ndim == 3 else images
        batch = images.shape[:1] if info.shape[0] == -1 else info.shape[:1]
        if images.dtype != np.dtype(info.dtype) or images.shape != (*batch, *info.shape[1:]):
            any_batch = "N" if info.shape[0] == -1 else str(info.shape[0])
            raise ImageError(
                "given as a tensor",
                f"it is {images.dtype} {images.shape}, not {info.dtype} "
                f"({', '.join([any_batch, *map(str, info.shape[1:])])})",
            )
        return self.graph([images])

    def compress(self, *tensors: NDArray[Any], beta: float | None = None) -> Stream:
        """Code and frame the wire tensors of one image, each (C, h, w); β as in :meth:`encode`."""
        payload = self.codec.at(beta).coder.encode(*tensors)
        stream = Stream(self.codec.frame(payload, self.codec.coder.shape(*tensors)))
        stream.payload_bytes = len(payload)
        return stream


class StreamReader:
    """The part of the edge that reads streams: entropy coder and hyper graph, no network behind.

    Several threads may use one, as they may one :class:`Device`, which says what the arguments and
    the errors are.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, *, stand_in: bool = False) -> None:
        info = bundle.edge.hyper
        self.codec = bundle.codec()
        self._hyper = Graph(bundle, info, threads, stand_in=stand_in) if info else None

    def decompress(self, stream: bytes) -> Tensors:
        """Read a stream into the edge graph's inputs, each (1, …).

        Raises:
            BitstreamError: The stream is damaged, hostile, or of another model.
        """
        return self.decode_payload(*self.codec.unframe(stream))

    def decode_payload(self, payload: bytes, height: int, width: int) -> Tensors:
        """Decode a payload into the edge graph's inputs; see :meth:`decompress`."""
        if (height, width) != self.codec.shape:
            raise BitstreamError(
                f"The stream holds a latent of {height}×{width}; the edge graph takes "
                f"{self.codec.shape[0]}×{self.codec.shape[1]}."
            )
        hyper = self.hyper if self._hyper else None
        decoded = self.codec.coder.decode(payload, height, width, hyper)
        return tuple(tensor[None] for tensor in decoded)

    def hyper(self, hyper_symbols: NDArray[np.int32]) -> Tensors:
        """Run the hyper graph for one image: z (C, h, w) to scale indexes and what follows them."""
        if self._hyper is None:
            raise BundleError("The bundle has no hyper graph.")
        return tuple(tensor[0] for tensor in self._hyper([hyper_symbols[None]]))


class OutputReader:
    """The part of the edge that reads outputs: labels, and the second stage of a detector.

    Several threads may use one, as they may one :class:`Device`, which says what the arguments and
    the errors are.

    Args:
        tail: Name of the tail, where the bundle has several.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 0,
        *,
        tail: str | None = None,
        stand_in: bool = False,
    ) -> None:
        self._bundle, self._tail = bundle, bundle.tail(tail)
        boxes = self._tail.boxes
        self._boxes = Graph(bundle, boxes, threads, stand_in=stand_in) if boxes else None

    def prediction(
        self,
        outputs: Sequence[NDArray[Any]],
        top: int = 5,
        image_size: tuple[int, int] | None = None,
    ) -> Prediction:
        """Turn the outputs for one image into a prediction; see :meth:`Edge.predict`."""
        manifest, labels = self._bundle.manifest, self._labels
        return predict(
            manifest, self._tail, outputs, labels, self.boxes, top=top, image_size=image_size
        )

    @cached_property
    def _labels(self) -> list[str]:
        return self._bundle.labels(self._tail)

    def boxes(self, tensors: Sequence[NDArray[Any]]) -> Tensors:
        """Run a detector's second stage: levels and proposals to class logits and box deltas."""
        if self._boxes is None:
            raise BundleError("The bundle has no boxes graph.")
        return self._boxes(tensors)


class Edge(StreamReader, OutputReader):
    """The edge half of a bundle: stream → prediction.

    Several threads may use one ``Edge``, as they may one :class:`Device`, which says what the
    other arguments and the errors are.

    Args:
        tail: Name of the tail, where the bundle has several.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: int = 0,
        *,
        tail: str | None = None,
        stand_in: bool = False,
    ) -> None:
        StreamReader.__init__(self, bundle, threads, stand_in=stand_in)
        OutputReader.__init__(self, bundle, threads, tail=tail, stand_in=stand_in)
        self.graph = Graph(bundle, self._tail.graph, threads, stand_in=stand_in)

    def predict(
        self, stream: bytes, top: int = 5, image_size: tuple[int, int] | None = None
    ) -> Prediction:
        """Turn one stream into what the model says of its image.

        Args:
            stream: Stream from the device, which may be hostile.
            top: Number of classes or objects, at most.
            image_size: Width and height of the image, upright, pixels, which a stream does not
                say: boxes are then in its pixels.

        Raises:
            BitstreamError: The stream is damaged, hostile, or of another model.
            BundleError: The bundle's labels or settings do not fit its outputs.
        """
        return self.prediction(self.decode(stream), top, image_size)

    def predict_many(
        self,
        streams: Iterable[bytes],
        top: int = 5,
        image_size: tuple[int, int] | None = None,
        *,
        batch: int = 8,
    ) -> Iterator[Prediction]:
        """Turn streams into predictions as they come; see :meth:`predict` and :meth:`decode_many`.

        Args:
            image_size: Width and height of all images.
        """
        for outputs in self.decode_many(streams, batch=batch):
            yield self.prediction(outputs, top, image_size)

    def decode(self, stream: bytes) -> Outputs:
        """Turn one stream into the outputs for one image, such as logits (1, classes) float32.

        Raises:
            BitstreamError: The stream is damaged, hostile, or of another model.
        """
        names = [info.name for info in self.graph.info.outputs]
        return Outputs(names, self.graph(self.decompress(stream)))

    def decode_many(self, streams: Iterable[bytes], *, batch: int = 8) -> Iterator[Outputs]:
        """Turn streams into the outputs for each image, in their order.

        Args:
            streams: Streams from devices; so many as make a batch are read ahead.
            batch: Streams that the graph runs at once, where it takes several.

        Raises:
            BitstreamError: A stream is damaged, hostile, or of another model; says which.
        """
        names = [info.name for info in self.graph.info.outputs]
        size = batch if self.graph.info.inputs[0].shape[0] == -1 else 1
        numbered = enumerate(streams)
        while group := [self._numbered(*pair) for pair in islice(numbered, size)]:
            found = self.graph.together(group)
            for place in range(len(group)):
                yield Outputs(names, [tensor[place : place + 1] for tensor in found])

    def _numbered(self, number: int, stream: bytes) -> Tensors:
        try:
            return self.decompress(stream)
        except BitstreamError as error:
            error.message = f"Stream {number}: {error.message}"
            raise
