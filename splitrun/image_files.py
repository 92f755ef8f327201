"""Which files of a folder are images that are read; what the others are, counted by reason."""

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath

from PIL import Image

from .errors import ImageError
from .image_reading import FORMATS, HEIC_NEEDS, UNSIGNED_FORMATS
from .text import is_plain, visible

_HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
_LEFT_BY_SYSTEMS = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"}
)


@dataclass(frozen=True)
class Unread:
    """A file that is not read.

    Attributes:
        name: Path below its folder, with ``/``.
        reason: Reason in words; what is the one file's own stands in brackets.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class UnreadCount:
    """How many files of one ending are not read for one reason."""

    reason: str
    suffix: str
    files: int

    def __str__(self) -> str:
        return f"{self.files:,} {self.suffix or 'without an ending'}: {self.reason}"


@dataclass(frozen=True)
class FoundImages:
    """The files of a folder: images, sorted by path, and those that are not read."""

    images: list[Path]
    unread: list[Unread]


def count_unread(files: Iterable[Unread]) -> list[UnreadCount]:
    """Count files by reason and ending, the most frequent first."""
    counted = Counter(
        (file.reason.partition(" (")[0], PurePath(file.name).suffix.lower()) for file in files
    )
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return [UnreadCount(reason, suffix, files) for (reason, suffix), files in ordered]


def is_ignored(name: str) -> bool:
    """Return whether a file or folder is hidden, or one that systems leave, such as Thumbs.db."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def find_images(folder: Path) -> FoundImages:
    """Find the images below a folder by the endings of their names; links are followed.

    Raises:
        ImageError: The folder does not exist, or a folder in it cannot be read.
    """
    if not folder.is_dir():
        raise ImageError(folder, "it is not a folder")
    found, seen = FoundImages([], []), set()
    for here, folders, files in os.walk(folder, onerror=_refuse, followlinks=True):
        place = Path(here).stat()
        if (place.st_dev, place.st_ino) in seen:  # by a link, which may lead back up
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = [name for name in folders if not is_ignored(name)]
        for name in [*files, *(name for name in folders if not is_plain(name))]:
            if is_ignored(name):
                continue
            path = Path(here, name)
            # No report, and no label, could hold the name.
            reason = "" if is_plain(name) else "its name holds control characters or no UTF-8"
            reason = reason or _reason(path.suffix.lower())
            if not reason and not path.is_file():
                reason = "it is not a regular file"
            if reason:
                shown = visible(path.relative_to(folder).as_posix(), keep="")
                found.unread.append(Unread(shown, reason))
            else:
                found.images.append(path)
        folders[:] = filter(is_plain, folders)
    found.images.sort()
    found.unread.sort(key=lambda file: file.name)
    return found


def find_some_images(folder: Path) -> FoundImages:
    """Find the images below a folder as :func:`find_images`, where at least one is expected.

    Raises:
        ImageError: The folder does not exist, cannot be read, or holds no image.
    """
    found = find_images(folder)
    if not found.images:
        others = "; ".join(map(str, count_unread(found.unread)))
        raise ImageError(
            folder, "no file in it has the name of an image" + (f" ({others})" if others else "")
        )
    return found


def list_images(folder: Path) -> list[Path]:
    """Return the images below a folder, sorted by path; see :func:`find_some_images`."""
    return find_some_images(folder).images


def _refuse(error: OSError) -> None:
    raise ImageError(error.filename, (error.strerror or str(error)).lower()) from error


def _reason(suffix: str) -> str:
    """Return why files of an ending are not read; empty where they are."""
    if suffix in _HEIC_SUFFIXES:
        return "" if importlib.util.find_spec("pillow_heif") else HEIC_NEEDS
    return "" if suffix in _suffixes() else "no image format that is read"


@cache
def _suffixes() -> frozenset[str]:
    known = Image.registered_extensions().items()
    formats = (*FORMATS, "MPO")  # of several JPEG images
    return frozenset(UNSIGNED_FORMATS) | {suffix for suffix, name in known if name in formats}
