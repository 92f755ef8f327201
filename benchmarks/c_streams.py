"""The coder in C, whole, called from Python: streams from symbols and back, by ``coder.bin`` alone.

For measurements and tests; what splitrun itself uses of it is ``c_ans``.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from splitrun.coding import c_library

STATUSES = ("ok", "tables", "argument", "memory", "space", "stream", "foreign", "desync")
_CODER_BYTES = 1 << 10


class StatusError(Exception):
    """A call ended in another status than ok, which is the message."""


class _Planes(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("channels", "height", "width")),
        *((name, ctypes.c_void_p) for name in ("symbols", "indexes")),
    )


class _Reader(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("coder", "state", "bytes", "size", "capacity")),
        ("check", ctypes.c_uint8 * 2),
        *((name, ctypes.c_int32) for name in ("level", "height", "width", "left")),
    )


class CCoder:
    """A model's coder in C.

    Args:
        content: Content of ``coder.bin``.
        library: Path of the compiled library.

    Raises:
        StatusError: The content is not valid.
    """

    def __init__(self, content: bytes, library: Path) -> None:
        self._library: Any = c_library.load(library)
        self._library.sz_memory_bytes.restype = ctypes.c_size_t
        self._content = np.frombuffer(content, np.uint8).copy()
        self._coder = (ctypes.c_uint64 * (_CODER_BYTES // 8))()
        size = ctypes.c_size_t(len(content))
        self._check(self._library.sz_open(self._coder, _pointer(self._content), size))

    def encode(
        self,
        symbols: np.ndarray,
        hyper_symbols: np.ndarray | None = None,
        indexes: np.ndarray | None = None,
        *,
        level: int = 0,
        capacity: int | None = None,
    ) -> bytes:
        """Return the stream of one image, of at most ``capacity`` bytes.

        Raises:
            StatusError: What is to be coded does not fit the coder.
        """
        y = _planes(symbols, indexes)
        z = None if hyper_symbols is None else _planes(hyper_symbols)
        memory = self._memory(y, *([z] if z else []))
        total = symbols.size + (0 if hyper_symbols is None else hyper_symbols.size)
        most = 32 + 9 * total if capacity is None else capacity
        stream, size = np.empty(most, np.uint8), ctypes.c_size_t()
        status = self._library.sz_encode(
            self._coder,
            level,
            ctypes.byref(y),
            z and ctypes.byref(z),
            _pointer(memory),
            ctypes.c_size_t(memory.nbytes),
            _pointer(stream),
            ctypes.c_size_t(stream.size),
            ctypes.byref(size),
        )
        self._check(status)
        return stream[: size.value].tobytes()

    def decode(
        self, stream: bytes, channels: int, indexes: np.ndarray | None = None
    ) -> tuple[int, list[np.ndarray]]:
        """Return a stream's level, and its symbols: of z where there is one, and of y.

        Args:
            stream: Result of :meth:`encode`.
            channels: Number of channels of what is decoded first.
            indexes: Scale indexes of y, where there is a z.

        Raises:
            StatusError: The stream is not one of this coder.
        """
        content, reader = np.frombuffer(stream, np.uint8), _Reader()
        size = ctypes.c_size_t(content.size)
        self._check(
            self._library.sz_begin(ctypes.byref(reader), self._coder, _pointer(content), size)
        )
        found = [np.empty((channels, reader.height, reader.width), np.int32)]
        found += [] if indexes is None else [np.empty(indexes.shape, np.int32)]
        for symbols, of in zip(found, (None, indexes), strict=False):
            planes = _planes(symbols, of)
            memory = self._memory(planes)
            size = ctypes.c_size_t(memory.nbytes)
            self._check(
                self._library.sz_read(
                    ctypes.byref(reader), ctypes.byref(planes), _pointer(memory), size
                )
            )
        return reader.level, found

    def memory_bytes(self, symbols: np.ndarray, indexes: np.ndarray | None = None) -> int:
        """Return how much memory coding takes beside symbols and stream."""
        planes = _planes(symbols, indexes)
        return self._library.sz_memory_bytes(self._coder, ctypes.byref(planes))

    def _memory(self, *planes: _Planes) -> np.ndarray:
        sizes = (self._library.sz_memory_bytes(self._coder, ctypes.byref(one)) for one in planes)
        return np.empty(max(sizes), np.uint8)

    def _check(self, status: int) -> None:
        if status:
            raise StatusError(STATUSES[status])


def _planes(symbols: np.ndarray, indexes: np.ndarray | None = None) -> _Planes:
    of_indexes = None if indexes is None else _pointer(indexes)
    return _Planes(*symbols.shape, _pointer(symbols), of_indexes)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
