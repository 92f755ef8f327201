"""The HTTP interface: paths, tokens, statuses of errors, counters and the log of requests."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import (
    BitstreamError,
    BusyError,
    RequestError,
    SplitzooError,
    TokenError,
    UnknownNameError,
)
from . import kserve
from .answers import JSON, Answer, error_answer
from .batches import Waiting
from .bodies import Item, read_sending
from .metrics import CONTENT_TYPE, Metrics
from .named_models import ModelList, NamedModel
from .repeats import Repeats
from .responses import error_response, json_response
from .settings import Settings
from .tokens import check_token

_LOG = logging.getLogger("splitrun.requests")
_OPEN = ("/healthz", "/readyz")


class Service:
    """What answers requests.

    Args:
        models: Models that are served.
        waiting: Count of their streams.

    Attributes:
        ending: Whether the server is about to end.
        tokens: SHA-256 of the tokens that are known; empty where none is needed.
    """

    def __init__(
        self,
        models: ModelList[Any],
        waiting: Waiting,
        settings: Settings,
        metrics: Metrics,
        tokens: Sequence[bytes] = (),
    ) -> None:
        self.models, self.waiting = models, waiting
        self.settings, self.metrics, self.tokens = settings, metrics, tokens
        self.ending = False
        self._repeats = Repeats(settings.remember)

    def app(self) -> ASGIApp:
        """Return the application that speaks ASGI."""
        get, post = ["GET"], ["POST"]
        routes = [
            Route("/healthz", self._healthz, methods=get),
            Route("/readyz", self._readyz, methods=get),
            Route("/metrics", self._metrics, methods=get),
            Route("/v1/models", self._list, methods=get),
            Route("/v1/models/{name:path}/predict", self._predict, methods=post),
            Route("/v1/models/{name:path}", self._describe, methods=get),
            Route("/v1/predict", self._predict, methods=post),
            *kserve.routes(self),
        ]
        handlers: Any = {SplitzooError: self._error, HTTPException: self._http_error}
        return _Gate(self, Starlette(routes=routes, exception_handlers=handlers, lifespan=_life))

    async def answer_item(
        self, item: Item, tail: str | None, named: NamedModel | None, scope: str
    ) -> Answer:
        """Answer one stream; that it cannot be read is an answer too.

        Args:
            tail: Name of the tail, where one is named.
            named: Model that the stream must be of; None lets its id pick one.
            scope: What the keys of repeats belong to.

        Raises:
            SplitzooError: An error that a repeat may not meet again.
        """
        if item.key is None:
            return await self._work(item, tail, named)
        asked = repr((named and named.name, tail, item.question)).encode() + item.stream
        work = partial(self._work, item, tail, named)
        found = await self._repeats.once((scope, item.key), asked, work)
        if found.replayed:
            self._count(named, tail, "repeated")
        return found

    async def _work(self, item: Item, tail: str | None, named: NamedModel | None) -> Answer:
        model, outcome = named, "failed"
        try:
            with anyio.fail_after(self.settings.answer_timeout_s):
                model = named or self.models.of_stream(item.stream)
                found = await model.answer(item.stream, tail, item.question)
            outcome = "answered"
            return found
        except TimeoutError as error:
            seconds = f"{self.settings.answer_timeout_s:g} s"
            raise BusyError(f"There was no answer within {seconds}.", 503) from error
        except BitstreamError as error:
            outcome = "refused"
            self.metrics.errors.labels(type(error).__name__).inc()
            return error_answer(error)
        finally:
            self._count(model, tail, outcome)

    def _count(self, model: NamedModel | None, tail: str | None, outcome: str) -> None:
        labels = ("", "") if model is None else (model.name, model.tail_label(tail))
        self.metrics.streams.labels(*labels, outcome).inc()

    async def _predict(self, request: Request) -> Response:
        name = request.path_params.get("name")
        named = self.models.named(name) if name is not None else None
        sending = await read_sending(request, self.settings)
        self.waiting.check_room(len(sending.items))
        request.state.streams = len(sending.items)
        scope = request.state.token
        if not sending.several:
            (item,) = sending.items
            found = await self.answer_item(item, sending.tail, named, scope)
            headers = {"Idempotent-Replayed": "true"} if found.replayed else None
            return Response(found.body, found.status, headers, found.media_type)

        async def as_item(item: Item) -> bytes:
            try:
                return (await self.answer_item(item, sending.tail, named, scope)).as_item()
            except SplitzooError as error:
                self.metrics.errors.labels(type(error).__name__).inc()
                return error_answer(error).as_item()

        outputs = await asyncio.gather(*map(as_item, sending.items))
        return Response(b'{"outputs": [' + b", ".join(outputs) + b"]}", media_type=JSON)

    async def _list(self, _request: Request) -> Response:
        return json_response({"models": [self._description(model) for model in self.models]})

    async def _describe(self, request: Request) -> Response:
        return json_response(self._description(self.models.named(request.path_params["name"])))

    def _description(self, model: NamedModel) -> dict[str, Any]:
        return model.description() | {"max_stream_bytes": self.settings.max_body}

    async def _healthz(self, _request: Request) -> Response:
        return json_response({"status": "ok"})

    async def _readyz(self, _request: Request) -> Response:
        return json_response({"ready": not self.ending}, 503 if self.ending else 200)

    async def _metrics(self, _request: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def _error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, SplitzooError)
        self.metrics.errors.labels(type(error).__name__).inc()
        return error_response(error, request.url.path)

    async def _http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        known: dict[int, SplitzooError] = {
            404: UnknownNameError("path", path[:200], next_step="See /v1/models."),
            405: RequestError(f"{path[:200]} does not take {request.method}.", 405),
        }
        said = known.get(error.status_code, RequestError(error.detail, error.status_code))
        response = await self._error(request, said)
        response.headers.update(error.headers or {})
        return response


@contextlib.asynccontextmanager
async def _life(_app: Starlette) -> AsyncIterator[None]:
    yield


class _Gate:
    """What each request passes first: tokens, the longest time that it may take, counters, log."""

    def __init__(self, service: Service, app: ASGIApp) -> None:
        self._service, self._app = service, app
        settings = service.settings
        # Beyond reading and answering, a client may be slow to read the answer.
        self._limit_s = settings.body_timeout_s + settings.answer_timeout_s + 30

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, received = time.perf_counter(), 0, 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def noted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        state = scope.setdefault("state", {})
        state["streams"] = 0
        call: Callable[..., Awaitable[None]] = self._app
        try:
            if scope["path"] not in _OPEN:
                headers = dict(scope["headers"])
                header = headers.get(b"authorization", b"").decode("latin-1")
                state["token"] = check_token(self._service.tokens, header)
        except TokenError as error:
            self._service.metrics.errors.labels("TokenError").inc()
            call = error_response(error, scope["path"])
        try:
            with anyio.move_on_after(self._limit_s):
                await call(scope, counted_receive, noted_send)
        finally:
            metrics = self._service.metrics
            route = scope.get("route")
            path = getattr(route, "path", "other").replace(":path", "")
            metrics.requests.labels(path, status).inc()
            metrics.received.inc(received)
            client = scope.get("client") or ("", 0)
            _LOG.info(
                "request",
                extra={
                    "facts": {
                        "method": scope["method"],
                        "path": scope["path"][:200],
                        "status": status,
                        "ms": round(1e3 * (time.perf_counter() - began), 2),
                        "bytes": received,
                        "streams": state["streams"],
                        "client": client[0],
                    }
                },
            )
