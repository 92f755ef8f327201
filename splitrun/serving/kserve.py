"""The KServe protocol, version 2 (Open Inference Protocol), with the extension of binary tensors.

https://github.com/kserve/open-inference-protocol
"""

import asyncio
import base64
import binascii
import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from .. import __version__
from ..errors import BusyError, RequestError, SplitzooError
from ..protocol import PREDICTION, STREAM
from .answers import JSON, Answer, status_of, to_json
from .bodies import Item, read_body, split_batch
from .named_models import NamedModel
from .questions import Question, read_sizes, read_top
from .responses import json_response

if TYPE_CHECKING:
    from .app import Service

HEADER_LENGTH = "Inference-Header-Content-Length"

_DATATYPES = {"float32": "FP32", "int32": "INT32", "uint8": "UINT8"}
_LENGTH = struct.Struct("<I")


def routes(service: "Service") -> list[BaseRoute]:
    """Return the paths of the protocol."""
    protocol = _Protocol(service)
    base = "/v2/models/{name:path}"
    get, post = ["GET"], ["POST"]
    found: list[BaseRoute] = [
        Route("/v2", protocol.server, methods=get),
        Route("/v2/health/live", protocol.live, methods=get),
        Route("/v2/health/ready", protocol.ready, methods=get),
        Route("/v2/repository/index", protocol.index, methods=post),
    ]
    for path in (f"{base}/versions/1", base):
        found += [
            Route(f"{path}/infer", protocol.infer, methods=post),
            Route(f"{path}/ready", protocol.model_ready, methods=get),
            Route(f"{path}/config", protocol.config, methods=get),
        ]
    return [
        *found,
        *(Route(path, protocol.model, methods=get) for path in (f"{base}/versions/1", base)),
    ]


class _Protocol:
    def __init__(self, service: "Service") -> None:
        self._service = service

    async def server(self, _request: Request) -> Response:
        extensions = ["binary_tensor_data", "model_repository"]
        return json_response({"name": "splitrun", "version": __version__, "extensions": extensions})

    async def live(self, _request: Request) -> Response:
        return json_response({"live": True})

    async def ready(self, _request: Request) -> Response:
        ready = not self._service.ending
        return json_response({"ready": ready}, 200 if ready else 503)

    async def index(self, _request: Request) -> Response:
        models = [{"name": model.name, "version": "1", "state": "READY"} for model in self._models]
        return json_response(models)

    async def model_ready(self, request: Request) -> Response:
        return json_response({"name": self._model(request).name, "ready": True})

    async def model(self, request: Request) -> Response:
        model = self._model(request)
        tensors = [{"name": PREDICTION, "datatype": "BYTES", "shape": [-1]}]
        for tail in model.tails.values():
            for info in tail.graph.outputs:
                shape = [-1, *info.shape[1:]]
                tensor = {"name": info.name, "datatype": _DATATYPES[info.dtype], "shape": shape}
                if tensor not in tensors:
                    tensors.append(tensor)
        return json_response(
            {
                "name": model.name,
                "versions": ["1"],
                "platform": "splitrun",
                "inputs": [{"name": STREAM, "datatype": "BYTES", "shape": [-1]}],
                "outputs": tensors,
            }
        )

    async def config(self, request: Request) -> Response:
        model, settings = self._model(request), self._service.settings
        return json_response({"name": model.name, "max_batch_size": settings.max_streams})

    async def infer(self, request: Request) -> Response:
        model = self._model(request)
        settings = self._service.settings
        body = await read_body(request, settings)
        head, data = _split(body, request.headers.get(HEADER_LENGTH))
        streams = _streams(head, data, settings.max_streams)
        request.state.streams = len(streams)
        self._service.waiting.check_room(len(streams))
        parameters = _parameters(head)
        tail = parameters.get("tail")
        if tail is not None and not isinstance(tail, str):
            raise RequestError("The parameter tail is not a word.")
        top = read_top(str(parameters.get("top", 5)))
        size = parameters.get("image_size")
        sizes = read_sizes(None if size is None else str(size), streams)
        graph = model.tails[model.tail_name(tail)].graph
        names = [info.name for info in graph.outputs]
        wanted = _wanted(head, [PREDICTION, *names])
        items = [
            Item(stream, None, Question(top, size, outputs=len(wanted.keys() - {PREDICTION}) > 0))
            for stream, size in zip(streams, sizes, strict=True)
        ]
        tasks = [self._service.answer_item(item, tail, model, "") for item in items]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        answers = [_answered(place, result, len(items)) for place, result in enumerate(results)]
        tensors = {
            name: np.concatenate([found.outputs[names.index(name)] for found in answers])
            for name in wanted
            if name != PREDICTION
        }
        return _response(head, model, wanted, answers, tensors)

    @property
    def _models(self):
        return self._service.models

    def _model(self, request: Request) -> NamedModel:
        return self._models.named(request.path_params["name"])


def _answered(place: int, result: "Answer | BaseException", count: int) -> Answer:
    where = f"Stream {place}: " if count > 1 else ""
    if isinstance(result, BusyError):
        raise result
    if isinstance(result, SplitzooError):
        raise RequestError(where + str(result), status_of(result)) from result
    if isinstance(result, BaseException):
        raise result
    if result.status != 200:
        error = json.loads(result.body)["error"]
        raise RequestError(where + error["message"], result.status, next_step=error["next_step"])
    return result


def _split(body: bytes, length: str | None) -> tuple[dict[str, Any], bytes]:
    size = len(body)
    if length is not None:
        if not (length.isdecimal() and length.isascii() and int(length[:12]) <= len(body)):
            raise RequestError(f"{HEADER_LENGTH} is {length[:40]!r}, not within the body.")
        size = int(length)
    try:
        head = json.loads(body[:size])
    except (ValueError, RecursionError) as error:
        raise RequestError("The request does not begin with JSON.") from error
    if not isinstance(head, dict):
        raise RequestError("The request is not a JSON object.")
    return head, body[size:]


def _streams(head: dict[str, Any], data: bytes, limit: int) -> list[bytes]:
    inputs = head.get("inputs")
    if not (isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], dict)):
        raise RequestError(f"The request has not one input, {STREAM}.")
    (tensor,) = inputs
    named = tensor.get("name"), tensor.get("datatype")
    if named != (STREAM, "BYTES"):
        raise RequestError(f"The input is {named[0]!r} of {named[1]!r}, not {STREAM} of BYTES.")
    shape = tensor.get("shape")
    if not (isinstance(shape, list) and shape and all(type(side) is int for side in shape)):
        raise RequestError(f"The shape of {STREAM} is not [n].")
    count = int(np.prod([min(max(side, 0), limit + 1) for side in shape], dtype=np.int64))
    if count > limit:
        raise RequestError(f"The request has more than {limit} streams.", 413)
    size = _parameters(tensor).get("binary_data_size")
    if size is None:
        streams = _plain_streams(tensor.get("data"))
    else:
        if type(size) is not int or size != len(data):
            raise RequestError(f"binary_data_size is {size}; {len(data)} bytes follow the JSON.")
        streams = split_batch(data, limit)
    if len(streams) != count or not streams:
        raise RequestError(f"{STREAM} has the shape {shape} and {len(streams)} streams.")
    return streams


def _plain_streams(data: Any) -> list[bytes]:
    while isinstance(data, list) and data and all(isinstance(row, list) for row in data):
        data = [value for row in data for value in row]
    if not isinstance(data, list) or not all(isinstance(text, str) for text in data):
        raise RequestError(f"The data of {STREAM} are not a list of texts in base64.")
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            f"A stream in JSON is not base64: {error}.", next_step="Or send it as binary data."
        ) from error


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    found = holder.get("parameters", {})
    if not isinstance(found, dict):
        raise RequestError("parameters is not a JSON object.")
    return found


def _wanted(head: dict[str, Any], known: list[str]) -> dict[str, bool]:
    """Return the names of the outputs that are wanted, and whether each comes as binary data."""
    as_binary = _parameters(head).get("binary_data_output") is True
    outputs = head.get("outputs")
    if outputs is None or outputs == []:
        return {PREDICTION: as_binary}
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise RequestError("outputs is not a list of JSON objects.")
    wanted = {}
    for output in outputs:
        name = output.get("name")
        if name not in known:
            raise RequestError(f"There is no output {name!r}; there are {', '.join(known)}.")
        wanted[name] = _parameters(output).get("binary_data", as_binary) is True
    return wanted


def _response(
    head: dict[str, Any],
    model: NamedModel,
    wanted: dict[str, bool],
    answers: list[Answer],
    tensors: dict[str, NDArray[Any]],
) -> Response:
    outputs, binary = [], bytearray()
    for name, as_binary in wanted.items():
        if name == PREDICTION:
            output: dict[str, Any] = {"datatype": "BYTES", "shape": [len(answers)]}
            bodies = [found.body for found in answers]
            content = b"".join(_LENGTH.pack(len(body)) + body for body in bodies)
            values: list[Any] = [body.decode() for body in bodies]
        else:
            tensor = tensors[name]
            output = {"datatype": _DATATYPES[str(tensor.dtype)], "shape": list(tensor.shape)}
            content = tensor.tobytes() if as_binary else b""
            values = [] if as_binary else tensor.reshape(-1).tolist()
        output["name"] = name
        if as_binary:
            output["parameters"] = {"binary_data_size": len(content)}
            binary += content
        else:
            output["data"] = values
        outputs.append(output)
    document: dict[str, Any] = {"model_name": model.name, "model_version": "1", "outputs": outputs}
    if isinstance(head.get("id"), str):
        document["id"] = head["id"][:200]
    text = to_json(document)
    if not any(wanted.values()):
        return Response(text, media_type=JSON)
    headers = {HEADER_LENGTH: str(len(text))}
    return Response(text + bytes(binary), 200, headers, "application/octet-stream")
