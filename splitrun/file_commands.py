"""``splitrun encode`` and ``decode``: files, folders and pipes, with one start of the engine."""

import argparse
import dataclasses
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import (
    BitstreamError,
    ImageError,
    OutputError,
    SplitzooError,
    check_files_used,
)
from .files import check_file, is_standard_output, new_file
from .text import json_text, visible

if TYPE_CHECKING:
    from .bundle import Bundle

MAX_STREAM_BYTES = 1 << 28
PIPE = "-"
SUFFIX = ".sz"

_SECONDS_BETWEEN_LINES = 30
T = TypeVar("T")


def encode(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    """Turn images into streams."""
    from .halves import Device
    from .measure import peak_memory_bytes

    images = _found(arguments.images)
    paths = _stream_paths(images, arguments)
    for path in paths:
        check_file(path, force=arguments.force)
    # What is said does not mix with a stream.
    said = sys.stderr if any(map(is_standard_output, paths)) else sys.stdout
    device = Device(bundle, arguments.threads, stand_in=arguments.stand_in)
    coder = device.codec.at(arguments.beta).coder
    results: list[dict[str, Any]] = []
    errors: dict[int, SplitzooError] = {}
    for number, image in enumerate(_counted(images, "images")):
        path = paths[number]
        try:
            content = _standard_input() if image.name == PIPE else image.path
            stream = device.encode_image(content, arguments.beta)
            with new_file(path, force=arguments.force) as temporary:
                temporary.write_bytes(stream)
        except (ImageError, OutputError) as error:
            errors[number] = error
            continue
        sizes = {"payload_bytes": stream.payload_bytes, "stream_bytes": len(stream)}
        results.append({"image": image.name, "stream": str(path), **sizes})
        if not arguments.json:
            print(visible(f"{path}: {len(stream):,} bytes", ""), file=said, flush=True)
    if arguments.json and (results or len(paths) > 1):
        failed = _documents("image", images, errors)
        memory = {"peak_memory_bytes": peak_memory_bytes()}
        chosen = {"engine": device.graph.engine, "beta": coder.beta}
        document = {"streams": results, "errors": failed, **chosen, **memory}
        print(json_text(document), file=said)
    check_files_used("images", len(paths), list(errors.values()))


def decode(bundle: "Bundle", arguments: argparse.Namespace) -> None:
    """Turn streams into predictions."""
    from .halves import Edge

    streams = _found(arguments.streams, streams=True)
    edge = Edge(bundle, arguments.threads, tail=arguments.tail, stand_in=arguments.stand_in)
    results: list[dict[str, Any]] = []
    errors: dict[int, SplitzooError] = {}
    sizes = arguments.image_size or [None] * len(streams)
    if len(sizes) != len(streams):
        raise BitstreamError(
            f"{len(sizes)} image sizes for {len(streams)} streams.",
            next_step="Give --image-size once for each stream, in their order.",
        )
    for number, file in enumerate(_counted(streams, "streams")):
        try:
            prediction = edge.predict(_read_stream(file), arguments.top, sizes[number])
        except BitstreamError as error:
            told = BitstreamError(f"{file.name}: {error.message}", next_step=error.next_step)
            told.__cause__ = error
            errors[number] = told
            continue
        results.append({"stream": file.name, **dataclasses.asdict(prediction)})
        if not arguments.json:
            said = textwrap.indent(visible(str(prediction)), "  ")
            print(visible(file.name, ""), said, sep="\n", flush=True)
    weights = (bundle.tail(arguments.tail).provenance or bundle.manifest.provenance).weights
    if arguments.json and (results or len(sizes) > 1):
        failed = _documents("stream", streams, errors)
        print(json_text({"outputs": results, "errors": failed, "weights": weights}))
    elif weights == "random" and results:
        print("The weights are random: these predictions mean nothing.", file=sys.stderr)
    check_files_used("streams", len(sizes), list(errors.values()))


@dataclasses.dataclass(frozen=True)
class _File:
    """A file of a command line.

    Attributes:
        name: Name as it was given, or of what was found in a folder that was.
        path: Where it lies.
        below: Path below the folder that was given.
    """

    name: str
    path: Path
    below: Path


def _found(given: Sequence[str], *, streams: bool = False) -> list[_File]:
    """Return files as they are named, and those of folders."""
    from .image_files import list_images

    if given.count(PIPE) > 1:
        raise OutputError(PIPE, "standard input was named twice", next_step="Name it once.")
    found = []
    for name in given:
        path = Path(name)
        if name == PIPE or not path.is_dir():
            found.append(_File(name, path, Path(path.name)))
            continue
        inside = sorted(path.rglob(f"*{SUFFIX}")) if streams else list_images(path)
        if not inside:
            raise BitstreamError(f"{path} holds no file that ends in {SUFFIX}.")
        found += [_File(str(file), file, file.relative_to(path)) for file in inside]
    return found


def _stream_paths(images: list[_File], arguments: argparse.Namespace) -> list[Path]:
    output: Path | None = arguments.output
    if arguments.numbered:
        return [(output or Path()) / f"{number}{SUFFIX}" for number in range(len(images))]
    to_pipe = output == Path(PIPE) or (output is None and images[0].name == PIPE)
    if to_pipe and len(images) == 1:
        paths = [Path("/dev/stdout")]
    elif to_pipe or (len(images) > 1 and output is None and PIPE in arguments.images):
        raise OutputError(
            PIPE, f"there are {len(images)} streams", next_step="Name a folder for them with -o."
        )
    elif output is None:
        paths = [image.path.with_suffix(SUFFIX) for image in images]
    elif len(images) > 1 or output.is_dir() or Path(arguments.images[0]).is_dir():
        paths = [output / image.below.with_suffix(SUFFIX) for image in images]
    else:
        paths = [output]
    for path in paths:
        if any(path.resolve() == image.path.resolve() for image in images):
            raise OutputError(path, "it is one of the images", next_step="Name the stream with -o.")
    if len(set(paths)) < len(paths):
        raise OutputError(
            output or images[0].path.parent,
            "two images would have the same stream file",
            next_step="Number the streams with --numbered.",
        )
    return paths


def _counted(items: Sequence[T], what: str) -> Iterator[T]:
    """Go through several items, and say on standard error how many are done."""
    terminal, last = sys.stderr.isatty() and not sys.stdout.isatty(), time.monotonic()
    for done, item in enumerate(items):
        yield item
        now = time.monotonic()
        if len(items) > 1 and (terminal or now - last >= _SECONDS_BETWEEN_LINES):
            last = now
            end = "\r" if terminal and done + 1 < len(items) else "\n"
            print(f"{done + 1:,} of {len(items):,} {what}", end=end, file=sys.stderr, flush=True)


def _documents(
    kind: str, files: Sequence[_File], errors: Mapping[int, SplitzooError]
) -> list[dict[str, Any]]:
    """Return what ``--json`` says of files that could not be used."""
    return [{kind: files[number].name, **error.document()} for number, error in errors.items()]


def _standard_input() -> bytes:
    return sys.stdin.buffer.read(MAX_STREAM_BYTES + 1)


def _read_stream(file: _File) -> bytes:
    try:
        if file.name == PIPE:
            stream = _standard_input()
        elif file.path.exists() and not file.path.is_file():
            raise BitstreamError("It is not a file.")
        else:
            with file.path.open("rb") as opened:
                stream = opened.read(MAX_STREAM_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BitstreamError(f"It cannot be read: {reason}.") from error
    if len(stream) > MAX_STREAM_BYTES:
        raise BitstreamError(f"It has over {MAX_STREAM_BYTES:,} bytes: too many for a stream.")
    return stream
