"""``splitrun serve``: its options, and what it prints."""

import argparse
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DependencyError, RequestError
from ..text import json_text, visible
from .settings import Settings

if TYPE_CHECKING:
    from .models import Models

_DEFAULTS = Settings()


def add_serve_parser(commands: Any, common: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the command to those of ``splitrun``."""
    parser = commands.add_parser(
        "serve",
        parents=[common],
        help="answer streams over HTTP",
        description="Answer streams over HTTP. Ctrl-C or SIGTERM ends the server when what is in "
        "work is answered; SIGHUP reads bundles and tokens again.",
    )
    parser.add_argument(
        "bundles",
        nargs="*",
        metavar="[NAME=]BUNDLE",
        help="bundles to serve, under their models' names or others",
    )

    def add(flag: str, kind: Callable[[str], Any], what: str, metavar: str = "N") -> None:
        name = flag[2:].replace("-", "_")
        default = next(
            field.default
            for field in fields(Settings)
            if field.name in (name, f"{name}_s", f"{name}_ms")
        )
        said = "" if default is None else f" (default: {default})"
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=what + said)

    add("--host", str, "address to listen on", "ADDRESS")
    add("--port", _number(0, 65535), "port to listen on; 0 takes a free one", "PORT")
    add("--cert", Path, "TLS certificates, PEM", "FILE")
    add("--key", Path, "key of the certificate, PEM", "FILE")
    add("--token-file", Path, "bearer tokens, one a line; without them, anyone may ask", "FILE")
    add("--instances", _number(0, 1024), "runs of a graph at once; 0: one a core, of ONNX Runtime")
    add("--decoders", _number(0, 1024), "processes for entropy decoding; 0: two threads")
    add("--max-batch", _number(1, 1024), "streams, at most, that a graph runs at once")
    add("--max-delay", _seconds, "longest wait of a stream for others, milliseconds", "MS")
    add("--max-queue", _number(1, 1 << 20), "streams, at most, that wait or are in work")
    add("--max-body", _number(1, 1 << 30), "bytes, at most, of a body", "BYTES")
    add("--max-streams", _number(1, 4096), "streams, at most, of a request")
    add("--max-connections", _number(1, 1 << 20), "open connections, at most")
    add("--header-timeout", _seconds, "longest time for the head of a request", "SECONDS")
    add("--body-timeout", _seconds, "longest time for a body", "SECONDS")
    add("--answer-timeout", _seconds, "longest time for an answer", "SECONDS")
    add("--grace", _seconds, "longest time to answer what is in work at the end", "SECONDS")
    add("--remember", _number(0, 1 << 24), "answers that are kept for repeats of their keys")
    add("--watch", _seconds, "time between looks for replaced bundles; 0: never", "SECONDS")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="form of the log's lines"
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="least level that is logged; requests are info (default: info)",
    )
    parser.set_defaults(start=run_serve)
    return parser


def run_serve(arguments: argparse.Namespace, memory_limit: AbstractContextManager[None]) -> None:
    """Serve the bundles of a command line.

    Raises:
        SplitzooError: What :func:`.server.serve` raises.
    """
    try:
        from .logs import set_up_logs
        from .models import Source
        from .server import serve
    except ImportError as error:
        raise DependencyError(
            f"The server needs {error.name}.", next_step="pip install 'splitzoo[serve]'"
        ) from error
    if (arguments.cert is None) != (arguments.key is None):
        raise RequestError("TLS needs both --cert and --key.")
    set_up_logs(arguments.log_format, arguments.log_level)
    sources = []
    for given in arguments.bundles or [str(arguments.bundle)]:
        name, equals, folder = given.partition("=")
        named = equals and "/" not in name
        sources.append(
            Source(Path(folder if named else given), name if named else None, arguments.trust)
        )

    def announce(address: str, models: "Models") -> None:
        if arguments.json:
            document = {"address": address, "models": [models.describe(one) for one in models]}
            print(json_text(document), flush=True)
            return
        for one in models:
            print(visible(f"{one.name}, model {one.model_id}, tails {', '.join(one.runners)}"))
        print(f"Serving on {address}", flush=True)

    with memory_limit:
        serve(sources, _settings(arguments), announce)
    logging.shutdown()


def _settings(arguments: argparse.Namespace) -> Settings:
    values = vars(arguments)
    names = {
        field.name: field.name.removesuffix("_s").removesuffix("_ms") for field in fields(Settings)
    }
    return Settings(**{field: values[name] for field, name in names.items()})


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most:,}")
        return value

    read.__name__ = "whole number"
    return read


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86,400")
    return value
