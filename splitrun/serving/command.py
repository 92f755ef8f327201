"""``splitrun serve``: its options, and what it prints."""

import argparse
import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..arguments import bundle_folder, named_bundle
from ..errors import DependencyError, UsageError
from ..memory_limit import can_be_limited, memory_limit
from ..text import json_text, visible
from .settings import READERS, Settings

if TYPE_CHECKING:
    from .models import Models


def add_serve(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``serve``."""
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

    known = {_option(field.name): field for field in fields(Settings)}

    def add(flag: str, what: str, metavar: str = "N") -> None:
        field = known[flag]
        kind, default = READERS[field.name], field.default
        said = "" if default is None else f" (default: {default})"
        parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=what + said)

    add("--host", "address to listen on", "ADDRESS")
    add("--port", "port to listen on; 0 takes a free one", "PORT")
    add("--cert", "TLS certificates, PEM", "FILE")
    add("--key", "key of the certificate, PEM", "FILE")
    add("--token-file", "bearer tokens, one a line; without them, anyone may ask", "FILE")
    add("--instances", "runs of a graph at once; 0: one a core, of ONNX Runtime")
    add("--decoders", "processes for entropy decoding; 0: two threads")
    add("--max-batch", "streams, at most, that a graph runs at once")
    add("--max-delay", "longest wait of a stream for others, milliseconds", "MS")
    add("--max-queue", "streams, at most, that wait or are in work")
    add("--max-body", "bytes, at most, of a body", "BYTES")
    add("--max-streams", "streams, at most, of a request")
    add("--max-connections", "open connections, at most")
    add("--header-timeout", "longest time for the head of a request", "SECONDS")
    add("--body-timeout", "longest time for a body", "SECONDS")
    add("--answer-timeout", "longest time for an answer", "SECONDS")
    add("--grace", "longest time to answer what is in work at the end", "SECONDS")
    add("--remember", "answers that are kept for repeats of their keys")
    add("--watch", "time between looks for replaced bundles; 0: never", "SECONDS")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="form of the log's lines"
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="least level that is logged; requests are info (default: info)",
    )
    parser.set_defaults(start=_serve)


def _serve(arguments: argparse.Namespace) -> None:
    from ..bundle import open_bundle

    try:
        from .logs import set_up_logs
        from .named_models import Source
        from .server import serve
    except ImportError as error:
        raise DependencyError(
            f"The server needs {error.name}.", next_step="pip install 'splitzoo[serve]'"
        ) from error
    if (arguments.cert is None) != (arguments.key is None):
        raise UsageError("TLS needs both --cert and --key.")
    set_up_logs(arguments.log_format, arguments.log_level)
    given = map(named_bundle, arguments.bundles or [str(bundle_folder(arguments))])
    sources = [Source(folder, name, arguments.trust) for name, folder in given]

    def announce(address: str, models: "Models") -> None:
        if arguments.json:
            document = {"address": address, "models": [model.description() for model in models]}
            print(json_text(document), flush=True)
            return
        for model in models:
            tails = ", ".join(model.tails)
            print(visible(f"{model.name}, model {model.stream_id}, tails {tails}"))
        print(f"Serving on {address}", flush=True)

    limited = not arguments.trust and all(
        can_be_limited(open_bundle(source.folder)) for source in sources
    )
    with memory_limit(arguments.memory_limit if limited else None):
        serve(sources, _settings(arguments), announce)
    logging.shutdown()


def _option(name: str) -> str:
    """Return the option of a setting, whose name has its unit at the end."""
    return "--" + name.removesuffix("_s").removesuffix("_ms").replace("_", "-")


def _settings(arguments: argparse.Namespace) -> Settings:
    values = vars(arguments)
    names = {field.name: _option(field.name)[2:].replace("-", "_") for field in fields(Settings)}
    return Settings(**{field: values[name] for field, name in names.items()})
