"""Streams over HTTP, by the standard library: one connection that is kept, one stream a request."""

import contextlib
import email.utils
import http.client
import json
import socket
import ssl
import time
from typing import Any
from urllib.parse import quote, urlencode

from .. import __version__
from ..errors import LinkError
from ..text import visible
from .carriers import CarrierSettings, Delivery, LinkDownError, RefusedError, tls_context
from .items import Item

_MOST_ANSWER_BYTES = 1 << 24
_LATER = (408, 425, 429, 500, 502, 503, 504)
_ATTEMPTS_AT_FAULTS = 5
_LONGEST_WAIT_S = 3600.0


class HttpCarrier:
    """Posts each stream to an edge server; see :class:`.carriers.CarrierSettings`."""

    def __init__(self, settings: CarrierSettings) -> None:
        address, model, tail = settings.address, settings.model, settings.tail
        self.url = address.geturl().rstrip("/")
        self._models = f"{self.url}/v1/models"
        self._timeout_s = settings.timeout_s
        named = f"/v1/models/{quote(model, safe='')}/predict" if model else "/v1/predict"
        self._path = address.path.rstrip("/") + named
        self._query: dict[str, Any] = {"top": settings.top} | ({"tail": tail} if tail else {})
        self._headers = {
            "Content-Type": "application/octet-stream",
            "Accept": "application/json",
            "User-Agent": f"splitrun/{__version__}",
        }
        if settings.token:
            self._headers["Authorization"] = f"Bearer {settings.token}"
        self._connection = _Connection(settings)

    def deliver(self, item: Item) -> Delivery:
        """Post a stream, and return the fields of the answer; see :class:`.carriers.Carrier`."""
        headers = self._headers | {"Idempotency-Key": item.key}
        query = dict(self._query)
        if item.image_size:
            query["image_size"] = "{}x{}".format(*item.image_size)
        path = f"{self._path}?{urlencode(query)}"
        connection = self._connection
        before, began = connection.sent_bytes, time.monotonic()
        reused = connection.is_open
        try:
            connection.request("POST", path, item.stream, headers)
            air_ms = 1e3 * (time.monotonic() - began)
            response = connection.getresponse()
            content = response.read(_MOST_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if reused and isinstance(error, http.client.RemoteDisconnected | ConnectionError):
                # The server had closed a connection that lay idle, which says nothing of now.
                return self.deliver(item)
            raise self._down(error) from error
        if response.will_close:
            connection.close()
        if response.status != 200 or len(content) > _MOST_ANSWER_BYTES:
            connection.close()
            raise self._refusal(response.status, response.headers.get("Retry-After"), content)
        try:
            answer = json.loads(content)
            if not isinstance(answer, dict):
                raise ValueError
        except ValueError as error:
            raise LinkError(
                f"{self.url} answers, but not as an edge server does.",
                next_step="Give the address of a running: splitrun serve BUNDLE",
            ) from error
        return Delivery(answer, connection.sent_bytes - before, air_ms)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _down(self, error: Exception) -> LinkError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return LinkError(
                f"The certificate of {self.url} is not trusted: {error.verify_message}.",
                next_step="If it is your own: --certificates FILE",
            )
        if isinstance(error, ssl.SSLError):
            return LinkError(
                f"{self.url} does not speak TLS: {error.reason or error}.",
                next_step="Without TLS, the address begins with http://.",
            )
        if isinstance(error, TimeoutError):
            why = f"no answer within {self._timeout_s:g} s"
        elif isinstance(error, socket.gaierror):
            why = "its name is not known"
        elif isinstance(error, http.client.RemoteDisconnected):
            why = "it ended the connection without an answer"
        else:
            why = str(getattr(error, "strerror", None) or error or type(error).__name__).lower()
        return LinkDownError(
            f"{self.url} cannot be reached: {why}.",
            next_step="Check the address, and that this runs there: splitrun serve BUNDLE",
        )

    def _refusal(self, status: int, retry_after: str | None, content: bytes) -> LinkError:
        kind, said = _said(content)
        told = f"{self.url} answers {status}{f': {said}' if said else ''}".rstrip(".") + "."
        if status in _LATER:
            # Where one stream makes the server fail, it must not hold up the others.
            most = _ATTEMPTS_AT_FAULTS if status == 500 else None
            return LinkDownError(told, retry_after_s=_seconds(retry_after), most_attempts=most)
        if status in (401, 403):
            return LinkError(
                f"{self.url} refuses the token ({status}).",
                next_step="Give the server's with --token-file FILE.",
            )
        if (status in (400, 409, 413, 422) and kind != "RequestError") or status in (413, 422):
            return RefusedError(
                told,
                next_step=f"See what it serves: {self._models}" if status == 409 else "",
                foreign=status == 409,
            )
        return LinkError(told, next_step=f"See what it serves: {self._models}")


def _said(content: bytes) -> tuple[str, str]:
    """Return kind and message of an error document; empty where it is none."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = json.loads(content[:_MOST_ANSWER_BYTES])["error"]
        return str(error["kind"]), visible(str(error["message"])[:500], keep="")
    return "", ""


def _seconds(retry_after: str | None) -> float:
    """Read ``Retry-After``: seconds, or a date."""
    if not retry_after:
        return 0.0
    with contextlib.suppress(ValueError):
        return min(max(float(retry_after), 0.0), _LONGEST_WAIT_S)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = email.utils.parsedate_to_datetime(retry_after)
        return min(max(date.timestamp() - time.time(), 0.0), _LONGEST_WAIT_S)
    return 0.0


class _Connection:
    """A connection that sends at a pace, and counts what it sends."""

    def __init__(self, settings: CarrierSettings) -> None:
        self.sent_bytes = 0
        address, pace, timeout_s = settings.address, settings.pace, settings.timeout_s
        host, port = address.hostname or "", address.port
        if address.scheme == "https":
            context = tls_context(settings.certificates)
            made = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        else:
            made = http.client.HTTPConnection(host, port, timeout=timeout_s)
        plain_send = made.send

        def send(data: Any) -> None:
            for piece in pace.pieces(bytes(data)):
                plain_send(piece)
                self.sent_bytes += len(piece)
                pace.keep(len(piece))

        made.send = send
        self._made = made
        self.close, self.getresponse = made.close, made.getresponse

    @property
    def is_open(self) -> bool:
        return self._made.sock is not None

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        if not self.is_open:
            self._made.connect()
            assert self._made.sock is not None
            self._made.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._made.request(method, path, body, headers)
