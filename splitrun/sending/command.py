"""``splitrun send`` and ``splitrun receive``: their options, and what they do."""

import argparse
import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..bundle import Bundle
    from .carriers import Carrier
    from .items import Item
    from .sender import Sender
    from .sources import Shot
    from .spool import Spool

_RETRY_FOR_S = 60.0
_LOOK_EVERY_S = 0.25
_MOST_WRITTEN_S = 10.0
"""Age of a file in a watched folder from which on it is not still being written."""


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
        "--size", type=_size, metavar="WIDTHxHEIGHT", help="size of raw frames of standard input"
    )
    send.add_argument(
        "--max-rate", type=_positive, metavar="N", help="most images a second; others are left out"
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
    receive.set_defaults(run=_receive, needs_bundle=False)


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
    parser.add_argument("--top", type=_count, default=5, help="number of classes or objects")
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="file that holds the server's token"
    )
    parser.add_argument(
        "--certificates", metavar="FILE", help="certificates to trust beside the system's (PEM)"
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
        type=_positive,
        default=100,
        metavar="MB",
        help="most megabytes in the spool (default: 100)",
    )
    parser.add_argument(
        "--retry-for",
        type=_seconds,
        metavar="SECONDS",
        help="longest time to try while nothing gets through (default: 60 for images that were "
        "named, for ever otherwise)",
    )
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=30,
        metavar="SECONDS",
        help="longest time to wait for an answer (default: 30)",
    )
    parser.add_argument(
        "--link",
        metavar="RATE",
        help="link to be as slow as: lora, ble, lte-m, wifi, or a rate such as 37.5kbps",
    )
    parser.add_argument(
        "--frame",
        type=_count,
        default=0,
        metavar="BYTES",
        help="largest frame on UDP and serial lines (default: what suits the link)",
    )


_PRINTED = threading.Lock()


def tell(fields: dict[str, Any]) -> None:
    """Print one line of JSON on standard output, at once and whole."""
    line = json.dumps(fields)
    with _PRINTED:
        print(line, flush=True)


def _send(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    from ..errors import SomeFilesError, SplitzooError

    kinds = [arguments.watch is not None, arguments.camera is not None, bool(arguments.images)]
    if sum(kinds) > 1 or ("-" in arguments.images and len(arguments.images) > 1):
        error = SplitzooError("Images come from one place: files, -, --watch or --camera.")
        error.exit_code = 2
        raise error
    live = bool(arguments.watch or arguments.camera or "-" in arguments.images)
    with _sending(arguments, live, bundle.manifest.coding.model_id) as (spool, sender):
        taken = _Taken()
        if any(kinds):
            _encode_all(bundle, arguments, spool, sender, taken)
        elif not len(spool):
            print("Nothing was named, and nothing waits in the spool.", file=sys.stderr)
        _finish(spool, sender)
    if taken.stop:
        raise taken.stop
    if not live and taken.errors:
        raise (
            taken.errors[0]
            if taken.count == 1
            else SomeFilesError("images", taken.count, taken.errors)
        )


class _Taken:
    """What became of the images that were read: how many, and errors of those that were not."""

    def __init__(self) -> None:
        self.count = 0
        self.errors: list[Any] = []
        self.stop: Exception | None = None


def _encode_all(
    bundle: "Bundle",
    arguments: argparse.Namespace,
    spool: "Spool",
    sender: "Sender",
    taken: _Taken,
) -> None:
    from ..errors import ImageError
    from ..halves import Device
    from .items import Item, key_of

    device = Device(bundle, arguments.threads, stand_in=arguments.stand_in)
    device.codec.at(arguments.beta)  # raises before an image is taken
    watched, shots = _shots(arguments, spool)
    sized = bundle.manifest.spec["task"] != "image-classification"
    left_out = 0
    for shot in _in_thread(shots, lambda: sender.failure is not None):
        if isinstance(shot, Exception):
            taken.stop = shot
            break
        taken.count += 1
        try:
            size = _image_size(shot.image) if sized else None
            stream = bytes(device.encode_image(shot.image, arguments.beta))
        except ImageError as error:
            if watched and time.time() - shot.taken < _MOST_WRITTEN_S:
                continue  # and look again
            tell({"image": shot.name, "id": shot.id, "error": error.document()["error"]})
            taken.errors = [*taken.errors[:99], error]
        else:
            key = key_of(_device(arguments, spool), shot.id)
            item = Item(shot.id, shot.name, stream, shot.taken, key, size)
            if not _put(item, spool, sender, wait=shot.file, quiet=left_out > 0):
                left_out += 1
                continue
            if left_out:
                print(f"There is room again; {left_out:,} images were left out.", file=sys.stderr)
                left_out = 0
        if watched:
            watched.remember(shot)


def _shots(arguments: argparse.Namespace, spool: "Spool") -> tuple[Any, "Iterator[Shot]"]:
    from .sources import WatchedFolder, at_most, camera, photographs, piped

    watched = None
    if arguments.watch is not None:
        watched = WatchedFolder(arguments.watch, spool.folder / "watched")
        shots = iter(watched)
    elif arguments.camera is not None:
        shots = camera(arguments.camera)
    elif arguments.images == ["-"]:
        # Without a buffer: a thread that waits in one cannot be left behind.
        shots = piped(open(0, "rb", buffering=0, closefd=False), arguments.size)  # noqa: SIM115
    else:
        shots = photographs([Path(image) for image in arguments.images])
    return watched, at_most(shots, arguments.max_rate) if arguments.max_rate else shots


def _in_thread(
    shots: "Iterator[Shot]", stopped: Callable[[], bool]
) -> "Iterator[Shot | Exception]":
    """Read images in a thread, so that whoever waits for one can still be stopped."""
    from ..errors import SplitzooError

    ready: queue.Queue[Any] = queue.Queue(1)

    def read() -> None:
        try:
            for shot in shots:
                ready.put(shot)
            ready.put(None)
        except (SplitzooError, OSError) as error:
            ready.put(error)

    threading.Thread(target=read, name="source", daemon=True).start()
    while not stopped():
        try:
            shot = ready.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            continue
        if shot is None:
            return
        yield shot


def _put(item: "Item", spool: "Spool", sender: "Sender", *, wait: bool, quiet: bool) -> bool:
    """Put a stream into the spool; where there is no room, wait for some or leave it out."""
    from .spool import SpoolFullError

    while sender.failure is None:
        try:
            spool.put(item)
            return True
        except SpoolFullError as error:
            if wait and not len(spool):
                raise  # no answer will make room
            if not quiet:
                then = "Waiting for room." if wait else "Images are left out until there is room."
                print(f"{error.message} {then}", file=sys.stderr, flush=True)
            if not wait:
                return False
            quiet = True
        spool.wait(_LOOK_EVERY_S)
    return False


def _image_size(image: Any) -> tuple[int, int]:
    from ..image_reading import read_rgb, upright_size

    if isinstance(image, Path):
        return upright_size(image)
    return read_rgb(image).size


@contextlib.contextmanager
def _sending(
    arguments: argparse.Namespace,
    live: bool,
    model_id: str = "",
    tell: Callable[[dict[str, Any]], None] = tell,
) -> "Iterator[tuple[Spool, Sender]]":
    """Open spool and link, and send from the one over the other."""
    from ..signals import keeping
    from .carriers import open_carrier, read_address
    from .links import Pace, read_link
    from .sender import Sender
    from .spool import Spool

    address = read_address(arguments.to)
    pace = Pace(read_link(arguments.link) if arguments.link else None)
    token = read_token(arguments.token_file)
    spool = Spool(arguments.spool or _default_spool(), int(arguments.spool_limit * 1e6))
    carrier: Carrier = open_carrier(
        address,
        pace=pace,
        device=_device(arguments, spool),
        model=arguments.model,
        token=token,
        timeout_s=arguments.timeout,
        top=arguments.top,
        tail=arguments.tail,
        certificates=arguments.certificates,
        frame_bytes=arguments.frame,
    )
    retry_for = arguments.retry_for
    if retry_for is None and not live:
        retry_for = _RETRY_FOR_S
    sender = Sender(spool, carrier, tell, retry_for_s=retry_for, own_model=model_id)
    kept = f"Streams without an answer are kept in {spool.folder}; the same command sends them."
    with keeping(kept):
        sender.start()
        yield spool, sender
    spool.release()


def _finish(spool: "Spool", sender: "Sender") -> None:
    """Wait until the spool is empty, or nothing more can be sent.

    Raises:
        LinkError: Streams were refused, or stay in the spool.
    """
    from ..errors import LinkError, SplitzooError

    spool.close()
    while sender.is_alive():
        sender.join(_LOOK_EVERY_S)
    failure, left = sender.failure, len(spool)
    if isinstance(failure, SplitzooError) and left:
        kept = f"{left:,} stream{' stays' if left == 1 else 's stay'} in {spool.folder}; the same "
        failure.next_step = f"{failure.next_step}\n{kept}command sends them.".strip()
    if failure:
        raise failure
    if sender.refused:
        raise LinkError(
            f"{sender.refused:,} of {sender.refused + sender.answered:,} streams were refused; "
            "their lines say why."
        )


def _device(arguments: argparse.Namespace, spool: "Spool") -> str:
    return arguments.device or spool.device


def _default_spool() -> Path:
    import os

    state = os.environ.get("XDG_STATE_HOME", "")
    return (Path(state) if state else Path.home() / ".local" / "state") / "splitrun" / "spool"


def read_token(path: Path | None) -> str:
    """Return the token in a file; empty where there is none."""
    from ..errors import SpecError

    if path is None:
        return ""
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not plain text"
        raise SpecError(f"The token in {path} cannot be read: {reason.lower()}.") from error
    if not token or not token.isprintable() or " " in token:
        raise SpecError(f"{path} holds no token: one word on one line is expected.")
    return token


def _receive(_bundle: None, arguments: argparse.Namespace) -> None:
    from .receiver import receive

    receive(arguments, _sending)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65_507:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 65,507")
    return value


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return _count(width), _count(height)
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 640x480") from error
