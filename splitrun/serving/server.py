"""Run the server: socket, TLS, signals, watching of bundles, and an end that answers first."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Iterator, Sequence

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..errors import SplitzooError
from ..signals import keeping, stop_by
from .app import Service
from .metrics import Metrics
from .models import Models
from .named_models import Source
from .settings import Settings
from .tokens import read_tokens

_LOG = logging.getLogger(__name__)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    sources: Sequence[Source], settings: Settings, announce: Callable[[str, Models], None]
) -> None:
    """Serve bundles until a signal ends it; what is in work then is answered first.

    SIGHUP reads bundles and tokens again.

    Args:
        announce: Function that is called with the server's address when it listens.

    Raises:
        SplitzooError: A bundle, the address, a certificate or the tokens cannot be used.
    """
    tokens = read_tokens(settings.token_file)
    listening = _listen(settings)
    with contextlib.closing(listening):
        metrics = Metrics()
        models = Models(sources, settings, metrics)
        try:
            service = Service(models, models.waiting, settings, metrics, tokens)
            server = _Server(_config(service, settings))
            if settings.host not in _LOOPBACK and not tokens:
                _LOG.warning("Whoever reaches %s may ask: there is no --token-file.", settings.host)
            host, port = listening.getsockname()[:2]
            scheme = "https" if settings.cert else "http"
            shown = f"[{host}]" if ":" in host else host
            announce(f"{scheme}://{shown}:{port}", models)
            with keeping("What was in work was answered."):
                loop = (server.config.get_loop_factory() or asyncio.new_event_loop)()
                received = loop.run_until_complete(_run(server, service, models, listening))
                loop.run_until_complete(loop.shutdown_default_executor())
                loop.close()
                if signal.SIGINT in received:
                    stop_by(signal.SIGINT)
        finally:
            models.close()


async def _run(
    server: "_Server", service: Service, models: Models, listening: socket.socket
) -> list[int]:
    """Serve until a signal comes, and return those that came."""
    loop = asyncio.get_running_loop()
    received: list[int] = []
    reloads: set[asyncio.Task[None]] = set()

    def end(signum: int) -> None:
        server.force_exit = bool(received)  # the second one does not wait
        received.append(signum)
        service.ending = server.should_exit = True
        _LOG.info("Ending: what is in work is answered first. Once more ends at once.")

    def reload() -> None:
        task = loop.create_task(_reload(service, models))
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    _on_signal(signal.SIGINT, end, signal.SIGINT)
    _on_signal(signal.SIGTERM, end, signal.SIGTERM)
    if hasattr(signal, "SIGHUP"):
        _on_signal(signal.SIGHUP, reload)
    watching = loop.create_task(models.watch())
    await server.serve([listening])
    watching.cancel()
    _LOG.info("Ended.")
    return received


def _on_signal(signum: int, call: Callable[..., None], *values: int) -> None:
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signum, call, *values)
    except NotImplementedError:  # Windows
        signal.signal(signum, lambda *_: loop.call_soon_threadsafe(call, *values))


async def _reload(service: Service, models: Models) -> None:
    await models.reload()
    try:
        service.tokens = read_tokens(service.settings.token_file)
    except SplitzooError as error:
        _LOG.error("The tokens stay as they were: %s", error.message)


class _Server(uvicorn.Server):
    """A server that leaves signals to who runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        yield


def _config(service: Service, settings: Settings) -> uvicorn.Config:
    class Protocol(_PatientProtocol):
        limit_s = settings.header_timeout_s

    config = uvicorn.Config(
        service.app(),
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(settings.grace_s),
        ssl_certfile=settings.cert,
        ssl_keyfile=settings.key,
    )
    try:
        config.load()
    except (ssl.SSLError, OSError, ValueError) as error:
        raise SplitzooError(
            f"Cannot use the certificate {settings.cert} with the key {settings.key}: {error}.",
            next_step="Name PEM files that belong together: --cert FILE --key FILE",
        ) from error
    return config


class _PatientProtocol(HttpToolsProtocol):
    """HTTP/1.1 that hangs up on who does not get to the end of a request's head."""

    limit_s = 10.0
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore
        super().connection_made(transport)
        self._start()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start()

    def on_headers_complete(self) -> None:
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _start(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self.limit_s, self.transport.abort)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _listen(settings: Settings) -> socket.socket:
    where = f"{settings.host} port {settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=1024)  # pyright: ignore
    except OSError as error:
        # Python adds the address in brackets.
        reason = (error.strerror or str(error)).partition(" (")[0].lower()
        raise SplitzooError(
            f"Cannot listen on {where}: {reason}.",
            next_step="Name an address of this machine with --host."
            if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
            else "Name another with --port, or 0 for a free one.",
        ) from error
