"""What a server can be told, and how it is read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments import number, whole_number


@dataclass(frozen=True)
class Settings:
    """Settings of a server; the command line says what each is for.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        cert: File of TLS certificates, PEM.
        key: File of the certificate's key, PEM.
        token_file: File of bearer tokens, one a line.
        threads: Threads for each run of an engine; 0: all cores, or one for each of several runs.
        instances: Runs of a graph at once; 0: one a core where the engine lets threads share it.
        decoders: Processes for entropy decoding; 0: threads of this process.
        stand_in: Whether ONNX Runtime may run graphs whose engine is not here.
        max_batch: Most streams that a graph runs at once.
        max_delay_ms: Longest time that a stream waits for others, ms.
        max_queue: Most streams that wait or are in work.
        max_body: Most bytes of a body.
        max_streams: Most streams of a request.
        max_connections: Most open connections.
        header_timeout_s: Longest time for the head of a request, s.
        body_timeout_s: Longest time for its body.
        answer_timeout_s: Longest time for its answer.
        grace_s: Longest time to answer what is in work when the server is to end.
        remember: Number of answers that are kept for repeats.
        watch_s: Time between looks at the bundles' folders; 0: never.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    cert: Path | None = None
    key: Path | None = None
    token_file: Path | None = None
    threads: int = 0
    instances: int = 0
    decoders: int = 0
    stand_in: bool = False
    max_batch: int = 8
    max_delay_ms: float = 0
    max_queue: int = 256
    max_body: int = 16 << 20
    max_streams: int = 64
    max_connections: int = 1000
    header_timeout_s: float = 10
    body_timeout_s: float = 60
    answer_timeout_s: float = 30
    grace_s: float = 30
    remember: int = 10_000
    watch_s: float = 2


_TIMEOUT = number(86_400)
_TIME = number(86_400, or_zero=True)
READERS: dict[str, Callable[[str], Any]] = {
    "host": str,
    "port": whole_number(0, 65535),
    "cert": Path,
    "key": Path,
    "token_file": Path,
    "instances": whole_number(0, 1024),
    "decoders": whole_number(0, 1024),
    "max_batch": whole_number(1, 1024),
    "max_delay_ms": _TIME,
    "max_queue": whole_number(1, 1 << 20),
    "max_body": whole_number(1, 1 << 30),
    "max_streams": whole_number(1, 4096),
    "max_connections": whole_number(1, 1 << 20),
    "header_timeout_s": _TIMEOUT,
    "body_timeout_s": _TIMEOUT,
    "answer_timeout_s": _TIMEOUT,
    "grace_s": _TIME,
    "remember": whole_number(0, 1 << 24),
    "watch_s": _TIME,
}
"""Functions that read settings from text; they raise ``ArgumentTypeError``."""
