"""Where images come from: files, a folder as it fills, standard input, a camera."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import DependencyError, ImageError
from ..image_files import find_images
from ..image_reading import AnyImage, most_pixels
from ..text import visible
from .items import Ids, new_id
from .jpeg_frames import JpegFrames

_PAUSE_PER_LOOK = 10
"""Least pause after a look at a folder, in multiples of the time that it took."""


@dataclass(frozen=True)
class Shot:
    """An image that was found.

    Attributes:
        id: Id of the image.
        name: Name for people: the file, or the number of the frame.
        image: The image, to be read.
        taken: Time when it was found, seconds since 1970.
        file: Whether it stays where it is, so that it can be read later too.
    """

    id: str
    name: str
    image: AnyImage
    taken: float
    file: bool = False


def photographs(paths: list[Path]) -> Iterator[Shot]:
    """Give the images of files, and of folders as they are now.

    Raises:
        ImageError: A folder holds no image.
    """
    ids = Ids()
    for path in paths:
        for found in find_images(path).images if path.is_dir() else [path]:
            yield Shot(ids.next(), visible(str(found), keep=""), found, time.time(), file=True)


class WatchedFolder:
    """A folder as it fills: each image once, when it no longer changes.

    What was given is remembered in a file, so that a later run goes on where this one ended. The
    same file has the same id each time, and so a server knows a repeat.

    Args:
        folder: Folder to watch, and those below it.
        memory: File that remembers.
        interval_s: Least time between two looks, s.
    """

    def __init__(self, folder: Path, memory: Path, interval_s: float = 0.5) -> None:
        self._folder, self._memory, self._interval_s = folder, memory, interval_s
        known = memory.read_text().split() if memory.is_file() else []
        here = {shot_id for _, shot_id, _ in self._look()}
        # A line that a crash cut short is of no file.
        self._given = here & set(known)
        self._write()

    def __iter__(self) -> Iterator[Shot]:
        """Give each image once, for ever."""
        before: set[str] = set()
        while True:
            began = time.monotonic()
            look = self._look()
            took = time.monotonic() - began
            now = [found for found in look if found[1] not in self._given]
            for path, shot_id, mtime_ns in now:
                if shot_id in before:  # as large and as old as at the last look
                    name = visible(str(path), keep="")
                    yield Shot(shot_id, name, path, mtime_ns / 1e9, file=True)
            before = {shot_id for _, shot_id, _ in now}
            # In a folder of many thousands, looking must not take the time to encode.
            time.sleep(max(self._interval_s, _PAUSE_PER_LOOK * took))

    def remember(self, shot: Shot) -> None:
        """Never give this image again; it is in the spool, or cannot be used."""
        self._given.add(shot.id)
        with self._memory.open("a") as file:
            file.write(shot.id + "\n")

    def _look(self) -> list[tuple[Path, str, int]]:
        found = []
        for path in find_images(self._folder).images:
            try:
                state = path.stat()
            except OSError:  # it went away meanwhile
                continue
            name = path.relative_to(self._folder).as_posix()
            mark = hashlib.sha256(f"{state.st_size} {name}".encode()).digest()[:4]
            found.append((path, new_id(state.st_mtime_ns, mark), state.st_mtime_ns))
        return sorted(found, key=lambda image: image[1])

    def _write(self) -> None:
        unfinished = self._memory.with_suffix(".unfinished")
        unfinished.write_text("".join(f"{shot_id}\n" for shot_id in sorted(self._given)))
        unfinished.replace(self._memory)


def piped(file: IO[bytes], size: tuple[int, int] | None) -> Iterator[Shot]:
    """Give the frames of a pipe: RGB of 8 bits of one size, or JPEG files one after another.

    Args:
        file: Pipe, such as standard input.
        size: Width and height of raw frames, pixels; None for JPEG.

    Raises:
        ImageError: The pipe ends within a frame, or holds something else.
    """
    ids = Ids()
    frames = _raw_frames(file, *size) if size else JpegFrames(file)
    for number, frame in enumerate(frames, 1):
        yield Shot(ids.next(), f"frame {number}", frame, time.time())


def _raw_frames(file: IO[bytes], width: int, height: int) -> Iterator[AnyImage]:
    expected, number = 3 * width * height, 0
    if width * height > (most := most_pixels()):
        raise ImageError("from standard input", f"{width}×{height} are over {most:,} pixels")
    while content := _read(file, expected):
        number += 1
        if len(content) < expected:
            raise ImageError(
                f"frame {number}",
                f"standard input ends after {len(content):,} of its {expected:,} bytes",
                next_step=f"Is each frame {width}×{height}, in RGB of 8 bits? (ffmpeg: "
                "-f rawvideo -pix_fmt rgb24)",
            )
        yield np.frombuffer(content, np.uint8).reshape(height, width, 3)


def _read(file: IO[bytes], size: int) -> bytes:
    """Read so many bytes of a pipe without a buffer; fewer at its end."""
    held = bytearray()
    while len(held) < size and (block := file.read(min(size - len(held), 1 << 20))):
        held += block
    return bytes(held)


def camera(name: str) -> Iterator[Shot]:
    """Give what a camera sees, through OpenCV.

    Args:
        name: Number of the camera, its device file, or an address that OpenCV opens.

    Raises:
        DependencyError: OpenCV is not installed.
        ImageError: The camera cannot be opened, or was unplugged.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            "A camera needs OpenCV, which is not installed.",
            next_step="pip install opencv-python-headless, or pipe frames in, as libcamera-vid "
            "--codec mjpeg -o - does.",
        ) from error
    if hasattr(cv2, "setLogLevel"):
        cv2.setLogLevel(0)
    source: Any = int(name) if name.isdecimal() else name
    opened = cv2.VideoCapture(source)
    try:
        if not opened.isOpened():
            raise ImageError(
                f"of camera {name}",
                "it cannot be opened",
                next_step="Is it plugged in, and free? v4l2-ctl --list-devices shows cameras.",
            )
        ids, number = Ids(), 0
        while True:
            there, frame = opened.read()
            if not there:
                raise ImageError(
                    f"of camera {name}",
                    f"it gives nothing more after {number:,} frames",
                    next_step="Was it unplugged?",
                )
            number += 1
            pixels = np.ascontiguousarray(frame[:, :, ::-1])
            yield Shot(ids.next(), f"frame {number}", pixels, time.time())
    finally:
        opened.release()


def at_most(
    shots: Iterator[Shot], per_second: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Shot]:
    """Give so many images a second at most: files wait for their turn, frames are left out."""
    due = clock()
    for shot in shots:
        wait = due - clock()
        if wait > 0:
            if not shot.file:
                continue
            time.sleep(wait)
        due = max(due, clock() - 1 / per_second) + 1 / per_second
        yield shot
