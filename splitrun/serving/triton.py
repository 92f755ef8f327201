"""An edge half in Triton's Python backend, whole or as the steps of an ensemble.

::

    Whole    STREAM ─► entropy decoding ─► edge graph ─► outputs ─► PREDICTION
    Decode   STREAM ─► entropy decoding ─► the edge graph's inputs
    Predict  the edge graph's outputs ─► PREDICTION

``splitzoo export triton`` writes the model folders, whose ``model.py`` names one of these. Of the
requests that Triton gives at once, the graph runs all streams together; one that cannot be read is
an error for its own request alone.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import open_bundle
from ..errors import BitstreamError, SplitzooError
from ..halves import Edge, OutputReader, StreamReader, Tensors
from ..protocol import PREDICTION, STREAM
from .answers import answer
from .questions import Question, read_sizes, read_top

_Found = dict[str, NDArray[Any]] | SplitzooError
"""Outputs by name, or why there are none."""


class _PythonModel(ABC):
    """What the three have in common; Triton calls ``initialize`` and ``execute``."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside ``model.py``.

        Raises:
            SplitzooError: It cannot be opened, or its engine is not here.
        """
        said = json.loads(args["model_config"])["parameters"]
        self._tail, self._name, trust, threads = (
            said[key]["string_value"] for key in ("tail", "name", "trust", "threads")
        )
        folder = Path(args["model_repository"], args["model_version"], "bundle")
        self._bundle = open_bundle(folder, trust=trust == "true")
        self._threads = int(threads)
        self._open()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, each with its tensors or an error."""
        import triton_python_backend_utils as triton  # pyright: ignore[reportMissingImports]

        responses = []
        for found in self._answer([_Request(triton, request) for request in requests]):
            if isinstance(found, SplitzooError):
                error = triton.TritonError(str(found), triton.TritonError.INVALID_ARG)
                responses.append(triton.InferenceResponse(error=error))
            else:
                tensors = [triton.Tensor(name, tensor) for name, tensor in found.items()]
                responses.append(triton.InferenceResponse(tensors))
        return responses

    @abstractmethod
    def _open(self) -> None:
        """Make ready what answers."""

    @abstractmethod
    def _answer(self, requests: "list[_Request]") -> "Iterator[_Found]":
        """Give each request's tensors, or why there are none."""

    def _predictions(
        self, reader: OutputReader, request: "_Request", outputs: Tensors
    ) -> NDArray[np.object_]:
        """Return a prediction for each image, (n, 1), as the server writes them."""
        questions = request.questions(len(outputs[0]))
        said = [
            answer(self._name, self._bundle, reader, self._tail, _row(outputs, place), question, {})
            for place, question in enumerate(questions)
        ]
        return np.array([[found.body] for found in said], dtype=object)


class _Request:
    """A request of Triton's."""

    def __init__(self, triton: Any, request: Any) -> None:
        self._triton, self._request = triton, request
        self.wanted = set(request.requested_output_names())

    def tensor(self, name: str) -> NDArray[Any]:
        return self._triton.get_input_tensor_by_name(self._request, name).as_numpy()

    def questions(self, count: int) -> list[Question]:
        said = json.loads(self._request.parameters() or "{}")
        top = read_top(str(said.get("top", 5)))
        size = said.get("image_size")
        sizes = read_sizes(None if size is None else str(size), range(count))
        return [Question(top, size) for size in sizes]


class Decode(_PythonModel):
    """Streams to the edge graph's inputs."""

    def _open(self) -> None:
        self._reader = StreamReader(self._bundle, self._threads)

    def _answer(self, requests: list[_Request]) -> Iterator[_Found]:
        names = [info.name for info in self._bundle.tail(self._tail).graph.inputs]
        for decoded in _decode(self._reader, requests):
            if isinstance(decoded, SplitzooError):
                yield decoded
            else:
                yield dict(zip(names, decoded, strict=True))


class Predict(_PythonModel):
    """The edge graph's outputs to what they say."""

    def _open(self) -> None:
        self._reader = OutputReader(self._bundle, self._threads, tail=self._tail)
        self._names = [info.name for info in self._bundle.tail(self._tail).graph.outputs]

    def _answer(self, requests: list[_Request]) -> Iterator[_Found]:
        for request in requests:
            outputs = tuple(map(request.tensor, self._names))
            try:
                yield {PREDICTION: self._predictions(self._reader, request, outputs)}
            except SplitzooError as error:
                yield error


class Whole(_PythonModel):
    """Streams to outputs and what they say."""

    def _open(self) -> None:
        self._edge = Edge(self._bundle, self._threads, tail=self._tail)

    def _answer(self, requests: list[_Request]) -> Iterator[_Found]:
        decoded = _decode(self._edge, requests)
        good = [tensors for tensors in decoded if not isinstance(tensors, SplitzooError)]
        outputs = self._edge.graph.together(good) if good else ()
        names = [info.name for info in self._edge.graph.info.outputs]
        began = 0
        for request, tensors in zip(requests, decoded, strict=True):
            if isinstance(tensors, SplitzooError):
                yield tensors
                continue
            own = slice(began, began := began + len(tensors[0]))
            yield self._said(request, names, tuple(tensor[own] for tensor in outputs))

    def _said(self, request: _Request, names: list[str], outputs: Tensors) -> _Found:
        found: dict[str, NDArray[Any]] = {
            name: tensor
            for name, tensor in zip(names, outputs, strict=True)
            if name in request.wanted
        }
        if PREDICTION not in request.wanted:
            return found
        try:
            return found | {PREDICTION: self._predictions(self._edge, request, outputs)}
        except SplitzooError as error:
            return error


def _decode(reader: StreamReader, requests: list[_Request]) -> list[Tensors | SplitzooError]:
    """Decode the streams of requests, each into tensors (n, …) or the error of one of them."""
    found: list[Tensors | SplitzooError] = []
    for request in requests:
        streams = request.tensor(STREAM).reshape(-1)
        decoded = []
        try:
            for stream in streams:
                decoded.append(reader.decompress(bytes(stream)))
        except BitstreamError as error:
            if len(streams) > 1:
                error.message = f"Stream {len(decoded)}: {error.message}"
            found.append(error)
        else:
            found.append(tuple(map(np.concatenate, zip(*decoded, strict=True))))
    return found


def _row(tensors: Tensors, place: int) -> Tensors:
    return tuple(tensor[place : place + 1] for tensor in tensors)
