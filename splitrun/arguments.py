"""Arguments of the commands of ``splitrun``: how numbers and sizes are read, and what is wrong."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from .errors import UsageError


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Return a function that reads a whole number from ``least`` to ``most``.

    It is for ``type=`` of argparse, and raises ``ArgumentTypeError``, as those below do.
    """

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least:,} and {most:,}")
        return value

    return read


def number(most: float = sys.float_info.max, *, or_zero: bool = False) -> Callable[[str], float]:
    """Return a function that reads a number above 0, or 0 too, up to ``most``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
        if not (0 < value <= most or (or_zero and value == 0)):
            least = "from 0" if or_zero else "above 0"
            upto = f", up to {most:,.0f}" if most < sys.float_info.max else ""
            raise argparse.ArgumentTypeError(f"{text} is not a number {least}{upto}")
        return value

    return read


def image_size(most: int) -> Callable[[str], tuple[int, int]]:
    """Return a function that reads width and height, pixels, of at most ``most`` each."""
    side = whole_number(1, most)

    def read(text: str) -> tuple[int, int]:
        width, _, height = text.partition("x")
        try:
            return side(width), side(height)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not of the form 640x480") from error

    return read


def named_bundle(text: str) -> tuple[str | None, Path]:
    """Return the name, where there is one, and the folder of ``[NAME=]BUNDLE``."""
    name, equals, folder = text.partition("=")
    return (name, Path(folder)) if equals and "/" not in name else (None, Path(text))


def bundle_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of the bundle, named after the command, with ``--bundle``, or by default.

    Raises:
        UsageError: None is named, and there is none by default.
    """
    folder = getattr(arguments, "named", None) or arguments.bundle
    if folder is None:
        raise UsageError("There is no bundle here: name its folder with --bundle.")
    return folder
