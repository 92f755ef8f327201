"""``splitrun send`` and ``splitrun receive``: their options."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import image_size, number, whole_number
from ..protocol import MOST_TOP
from .links import LINK_NAMES

if TYPE_CHECKING:
    from ..bundle import Bundle

_MOST_FRAME_BYTES = 65_507
"""Largest UDP datagram; a raw frame has no side that is longer either."""
_MOST_NUMBER = 999_999_999


def add_send(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command ``send``."""
    send = commands.add_parser(
        "send",
        parents=[common],
        help="send images to an edge server, and print its answers",
        description="Turn images into streams and send them. Each waits on disk until it is "
        "answered; what a run could not send, the next one does. Answers are lines of JSON.",
    )
    send.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="image, or folder of images; - reads frames from standard input: JPEG files one "
        "after another, or with --size raw RGB; without any, what waits is sent",
    )
    send.add_argument(
        "--watch", type=Path, metavar="DIR", help="folder to send each new image of, for ever"
    )
    send.add_argument(
        "--camera", metavar="NAME", help="camera to send frames of: its number or device file"
    )
    send.add_argument(
        "--size",
        type=image_size(_MOST_FRAME_BYTES),
        metavar="WIDTHxHEIGHT",
        help="size of raw frames of standard input",
    )
    send.add_argument(
        "--max-rate",
        type=number(_MOST_NUMBER),
        metavar="N",
        help="most images a second; others are left out",
    )
    _add_sending(send)
    send.set_defaults(run=_send)


def add_receive(commands: Any) -> None:
    """Add the command ``receive``."""
    receive = commands.add_parser(
        "receive",
        help="receive streams over UDP, a serial line or MQTT, and hand them on",
        description="Put streams together that come in frames, and send them on to an edge "
        "server, or write them into a folder. Answers are lines of JSON.",
    )
    receive.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="ADDRESS",
        help="where streams come from: udp://HOST:PORT, serial:///dev/ttyUSB0?baud=57600, "
        "mqtt://BROKER",
    )
    receive.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder to write streams into instead"
    )
    receive.add_argument("--json", action="store_true", help="print errors as JSON too")
    _add_sending(receive, required=False)
    receive.set_defaults(start=_receive)


def _add_sending(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument(
        "--to",
        required=required,
        metavar="ADDRESS",
        help="where streams go: http://HOST:8080, https://…, udp://HOST:PORT, "
        "serial:///dev/ttyUSB0?baud=57600, mqtt://BROKER",
    )
    parser.add_argument("--model", default="", help="model to ask for (default: by the stream)")
    parser.add_argument("--tail", default="", help="tail to ask for, where the model has several")
    parser.add_argument(
        "--top",
        type=whole_number(1, MOST_TOP),
        default=5,
        help="number of classes or objects (default: 5)",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file that holds the server's token, or the broker's password",
    )
    parser.add_argument(
        "--certificates",
        metavar="FILE",
        help="certificates to trust in place of the system's (PEM)",
    )
    parser.add_argument("--device", default="", help="name of this device (default: the spool's)")
    parser.add_argument(
        "--spool",
        type=Path,
        metavar="DIR",
        help="folder that keeps streams until they are answered (default: "
        "~/.local/state/splitrun/spool)",
    )
    parser.add_argument(
        "--spool-limit",
        type=number(_MOST_NUMBER),
        default=100,
        metavar="MB",
        help="most megabytes in the spool (default: 100)",
    )
    parser.add_argument(
        "--retry-for",
        type=number(_MOST_NUMBER, or_zero=True),
        metavar="SECONDS",
        help="longest time to try while nothing gets through (default: 60 for images that were "
        "named, for ever otherwise)",
    )
    parser.add_argument(
        "--timeout",
        type=number(_MOST_NUMBER),
        default=30,
        metavar="SECONDS",
        help="longest time to wait for an answer (default: 30)",
    )
    parser.add_argument(
        "--link",
        metavar="RATE",
        help=f"link to be as slow as: {LINK_NAMES}",
    )
    parser.add_argument(
        "--frame",
        type=whole_number(1, _MOST_FRAME_BYTES),
        default=0,
        metavar="BYTES",
        help="largest frame on UDP and serial lines (default: what suits the link)",
    )


def _send(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    from .send import send

    send(bundle, arguments)


def _receive(arguments: argparse.Namespace) -> None:
    from .receiver import receive

    receive(arguments)
