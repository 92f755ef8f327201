"""Threads of the library that multiplies numpy's matrices: coders take one.

Its other threads stay awake for milliseconds after each product, on the cores that the engine
needs next. For the products of a coder, which are small, that costs more than they gain.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

_MODULES = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")
_PREFIXES = "scipy_openblas", "openblas"
_SUFFIXES = "64_", ""


class _OpenBlas:
    """The OpenBLAS that numpy runs on; where it runs on another library, calls have no effect."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 0

    @cached_property
    def _functions(self) -> tuple[Any, Any] | None:
        """Its functions that return and set the number of threads."""
        module = next(sys.modules[name] for name in _MODULES if name in sys.modules)
        try:
            # A name is looked up in what the module is linked with, too.
            library = ctypes.CDLL(str(module.__file__))
        except OSError:
            return None
        for prefix in _PREFIXES:
            for suffix in _SUFFIXES:
                names = (f"{prefix}_{verb}_num_threads{suffix}" for verb in ("get", "set"))
                found = [getattr(library, name, None) for name in names]
                if all(found):
                    return found[0], found[1]
        return None

    def enter(self) -> None:
        """Take one thread, if this is the first caller."""
        with self._lock:
            if not self._inside and self._functions:
                get, put = self._functions
                self._before = get()
                put(1)
            self._inside += 1

    def leave(self) -> None:
        """Give the threads back, if this is the last caller."""
        with self._lock:
            self._inside -= 1
            if not self._inside and self._functions:
                _, put = self._functions
                put(self._before)


_OPEN_BLAS = _OpenBlas()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let numpy's matrix products run in the thread that asks for them, in the whole process."""
    _OPEN_BLAS.enter()
    try:
        yield
    finally:
        _OPEN_BLAS.leave()
