"""Read what a request sends: its query, its keys, and one stream or several, within limits."""

import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NoReturn

import anyio
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from ..errors import RequestError
from ..protocol import KEY
from .answers import PNG
from .questions import Question, one_each, read_sizes, read_top
from .settings import Settings

BATCH_TYPE = "application/x-splitrun-batch"
STREAM_TYPE = "application/octet-stream"
FORM_TYPE = "multipart/form-data"

_QUERY = ("top", "tail", "image_size", "mask")
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Item:
    """One stream of a request."""

    stream: bytes
    key: str | None
    question: Question


@dataclass(frozen=True)
class Sending:
    """All of a request.

    Attributes:
        items: Streams with their questions.
        tail: Name of the tail, where one is named.
        several: Whether several streams could have come: then the answer is a list.
    """

    items: list[Item]
    tail: str | None
    several: bool


async def read_sending(request: Request, settings: Settings) -> Sending:
    """Read a request for predictions.

    Raises:
        RequestError: It is not one, or too large, or too slow.
    """
    query = request.query_params
    for name in query:
        if name not in _QUERY:
            raise RequestError(f"There is no parameter {name!r}; there are {', '.join(_QUERY)}.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (STREAM_TYPE, BATCH_TYPE, FORM_TYPE):
        raise RequestError(
            f"The body is {kind or 'of no type'}; a stream is {STREAM_TYPE}.",
            415,
            next_step=f"Send one stream as {STREAM_TYPE}, several as {BATCH_TYPE} or {FORM_TYPE}.",
        )
    body = await read_body(request, settings)
    own_keys: list[str | None] = []
    if kind == STREAM_TYPE:
        streams = [body]
    elif kind == BATCH_TYPE:
        streams = split_batch(body, settings.max_streams)
    else:
        streams, own_keys = await _read_form(request, body, settings.max_streams)
    if not streams:
        raise RequestError("The body holds no stream.")
    named = request.headers.get("idempotency-key")
    if named is not None:
        own_keys = [*one_each([key.strip() for key in named.split(",")], streams, "keys")]
    keys = own_keys or [None] * len(streams)
    for key in keys:
        if key is not None and not KEY.fullmatch(key):
            raise RequestError(
                "The Idempotency-Key is not 1 to 200 characters of A-Z a-z 0-9 . _ : / + = -"
            )
    sizes = read_sizes(query.get("image_size"), streams)
    mask = query.get("mask", "")
    if mask not in ("", "png", "rle"):
        raise RequestError(f"mask is {mask!r}, not png or rle.")
    as_image = mask == "png" and kind == STREAM_TYPE and request.headers.get("accept") == PNG
    top = read_top(query.get("top", "5"))
    items = [
        Item(stream, key, Question(top, size, mask, as_image))
        for stream, key, size in zip(streams, keys, sizes, strict=True)
    ]
    return Sending(items, query.get("tail"), kind != STREAM_TYPE)


async def read_body(request: Request, settings: Settings) -> bytes:
    """Read a body within the limits of size and time.

    Raises:
        RequestError: It goes beyond them.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError("The body is compressed; streams are sent as they are.", 415)
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > settings.max_body:
        _refuse_size(settings)

    body = bytearray()
    try:
        with anyio.fail_after(settings.body_timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > settings.max_body:
                    _refuse_size(settings)
    except TimeoutError as error:
        seconds = f"{settings.body_timeout_s:g} s"
        raise RequestError(f"The body did not come within {seconds}.", 408) from error
    except ClientDisconnect as error:
        raise RequestError("The client went away within the body.", 408) from error
    return bytes(body)


def split_batch(body: bytes, limit: int) -> list[bytes]:
    """Take apart streams that come each after its length, 4 bytes, little-endian.

    Raises:
        RequestError: A length goes beyond the body, or there are more streams than the limit.
    """
    streams, place = [], 0
    while place < len(body):
        start = place + _LENGTH.size
        end = start + (_LENGTH.unpack_from(body, place)[0] if start <= len(body) else 1)
        if end > len(body):
            raise RequestError(f"The batch ends within stream {len(streams)}.")
        if len(streams) == limit:
            _refuse_number(limit)
        streams.append(body[start:end])
        place = end
    return streams


async def _read_form(
    request: Request, body: bytes, limit: int
) -> tuple[list[bytes], list[str | None]]:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, once(), max_files=limit, max_fields=limit, max_part_size=len(body)
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many" in error.message:
            _refuse_number(limit)
        raise RequestError(f"The form cannot be read: {error.message}") from error
    parts = [part for _, part in form.multi_items()]
    if len(parts) > limit:
        _refuse_number(limit)
    # A part without a file name is text to the parser.
    if not all(isinstance(part, UploadFile) for part in parts):
        raise RequestError("A part of the form has no filename=: streams are sent as files.")
    files = [part for part in parts if isinstance(part, UploadFile)]
    streams = [await file.read() for file in files]
    keys = [file.headers.get("idempotency-key") for file in files]
    await form.close()
    return streams, keys


def _refuse_size(settings: Settings) -> NoReturn:
    raise RequestError(f"The body has more than {settings.max_body:,} bytes.", 413)


def _refuse_number(limit: int) -> NoReturn:
    raise RequestError(f"The body has more than {limit} streams.", 413)
