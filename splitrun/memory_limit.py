"""A limit of memory for what a bundle makes an engine do."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .errors import BundleError, SplitzooError

if TYPE_CHECKING:
    from .bundle import Bundle


def can_be_limited(bundle: "Bundle") -> bool:
    """Say whether the engines of a bundle run within a limit of memory."""
    from .halves import can_hold_code

    engines = {graph.engine for graph in bundle.graphs.values()}
    # CUDA asks for more memory than it takes.
    return not any(
        engine == "tensorrt" or can_hold_code(bundle.folder, engine) for engine in engines
    )


@contextlib.contextmanager
def memory_limit(gib: int | None) -> Iterator[None]:
    """Let this process have so much memory, where the system can limit it.

    Args:
        gib: Most memory, GiB; None for no limit.

    Raises:
        SplitzooError: More was asked for.
    """
    if gib is None:
        yield
        return
    try:
        with _data_limit(gib << 30):
            yield
    except BundleError as error:
        if "alloc" in error.message and not error.next_step:
            error.next_step = "If the bundle needs more memory: --memory-limit GIB"
        raise
    except MemoryError as error:
        raise SplitzooError(
            f"More than {gib} GiB of memory were asked for.",
            next_step="If the bundle is that large: --memory-limit GIB",
        ) from error


@contextlib.contextmanager
def _data_limit(size_bytes: int) -> Iterator[None]:
    try:
        import resource
    except ImportError:  # Windows
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [size_bytes, *(limit for limit in before if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
