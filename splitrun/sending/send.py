"""What ``splitrun send`` does: images become streams, which go into the outbox."""

import argparse
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..bundle import Bundle
from ..errors import ImageError, SplitzooError, UsageError, check_files_used
from ..halves import Device
from ..image_reading import AnyImage, read_rgb, upright_size
from .items import Item, key_of
from .outbox import Outbox, open_outbox, tell
from .sources import Shot, WatchedFolder, at_most, camera, photographs, piped
from .spool import SpoolFullError

_LOOK_EVERY_S = 0.25
_MOST_WRITTEN_S = 10.0
"""Age of a file in a watched folder from which on it is not still being written."""


def send(bundle: Bundle, arguments: argparse.Namespace) -> None:
    """Send images, and what waits in the spool.

    Raises:
        UsageError: Images are to come from several places.
        LinkError: Streams were refused, or stay in the spool.
        ImageError: The only image cannot be used.
        SomeFilesError: Some of several cannot.
    """
    kinds = [arguments.watch is not None, arguments.camera is not None, bool(arguments.images)]
    if sum(kinds) > 1 or ("-" in arguments.images and len(arguments.images) > 1):
        raise UsageError("Images come from one place: files, -, --watch or --camera.")
    live = bool(arguments.watch or arguments.camera or "-" in arguments.images)
    stream_id = bundle.manifest.coding.stream_id
    with open_outbox(arguments, live=live, stream_id=stream_id) as outbox:
        encoding = _Encoding(bundle, arguments, outbox, live=live)
        if any(kinds):
            encoding.run()
        elif not len(outbox.spool):
            print("Nothing was named, and nothing waits in the spool.", file=sys.stderr)
        outbox.finish()
    if encoding.stop:
        raise encoding.stop
    check_files_used("images", encoding.count, encoding.errors)


class _Encoding:
    """Turns images into streams, until there are no more or nothing can be sent.

    Attributes:
        count: Number of images that were taken.
        errors: Errors of those that could not be used; none of images that come for ever.
        stop: Error of their source, if it ended with one.
    """

    def __init__(
        self, bundle: Bundle, arguments: argparse.Namespace, outbox: Outbox, *, live: bool
    ) -> None:
        self._bundle, self._arguments, self._outbox = bundle, arguments, outbox
        self._live, self._left_out = live, 0
        self.count = 0
        self.errors: list[SplitzooError] = []
        self.stop: Exception | None = None

    def run(self) -> None:
        """Read, encode and put into the spool."""
        arguments, outbox = self._arguments, self._outbox
        device = Device(self._bundle, arguments.threads, stand_in=arguments.stand_in)
        device.codec.at(arguments.beta)  # raises before an image is taken
        watched, shots = _shots(arguments, outbox.spool.folder)
        sized = self._bundle.manifest.spec["task"] != "image-classification"
        for shot in _in_thread(shots, lambda: outbox.sender.failure is not None):
            if isinstance(shot, Exception):
                self.stop = shot
                return
            self.count += 1
            try:
                size = _image_size(shot.image) if sized else None
                stream = bytes(device.encode_image(shot.image, arguments.beta))
            except ImageError as error:
                if watched and time.time() - shot.taken < _MOST_WRITTEN_S:
                    continue  # and look again
                tell({"image": shot.name, "id": shot.id, "error": error.document()["error"]})
                if not self._live:
                    self.errors.append(error)
            else:
                key = key_of(outbox.device, shot.id)
                item = Item(shot.id, shot.name, stream, shot.taken, key, size)
                if not self._put(item, wait=shot.file):
                    continue
            if watched:
                watched.remember(shot)

    def _put(self, item: Item, *, wait: bool) -> bool:
        """Put a stream into the spool; where there is no room, wait for some or leave it out."""
        spool, sender = self._outbox.spool, self._outbox.sender
        is_said = self._left_out > 0
        while sender.failure is None:
            try:
                spool.put(item)
            except SpoolFullError as error:
                if wait and not len(spool):
                    raise  # no answer will make room
                if not is_said:
                    then = (
                        "Waiting for room." if wait else "Images are left out until there is room."
                    )
                    print(f"{error.message} {then}", file=sys.stderr, flush=True)
                    is_said = True
                if not wait:
                    break
                spool.wait(_LOOK_EVERY_S)
                continue
            if self._left_out:
                left_out = f"{self._left_out:,} images were left out"
                print(f"There is room again; {left_out}.", file=sys.stderr)
                self._left_out = 0
            return True
        self._left_out += 1
        return False


def _shots(
    arguments: argparse.Namespace, memory: Path
) -> tuple[WatchedFolder | None, Iterator[Shot]]:
    watched = None
    if arguments.watch is not None:
        watched = WatchedFolder(arguments.watch, memory / "watched")
        shots = iter(watched)
    elif arguments.camera is not None:
        shots = camera(arguments.camera)
    elif arguments.images == ["-"]:
        # Without a buffer: a thread that waits in one cannot be left behind.
        shots = piped(open(0, "rb", buffering=0, closefd=False), arguments.size)  # noqa: SIM115
    else:
        shots = photographs([Path(image) for image in arguments.images])
    return watched, at_most(shots, arguments.max_rate) if arguments.max_rate else shots


def _in_thread(shots: Iterator[Shot], stopped: Callable[[], bool]) -> Iterator[Shot | Exception]:
    """Read images in a thread, so that whoever waits for one can still be stopped."""
    ready: queue.Queue[Shot | Exception | None] = queue.Queue(1)

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


def _image_size(image: AnyImage) -> tuple[int, int]:
    """Return width and height of an image, pixels."""
    return upright_size(image) if isinstance(image, Path) else read_rgb(image).size
