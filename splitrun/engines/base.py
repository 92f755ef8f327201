"""What every engine offers, and the error for one that is not installed."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ..errors import DependencyError


class Session(Protocol):
    """A loaded graph; ``open_session`` says what each engine is made from, and what it raises.

    Attributes:
        version: Name and version of the engine.
        thread_safe: Several threads may call :meth:`run` at once.
        floats_only: All outputs are float32, integers too.
    """

    version: str
    thread_safe: bool = False
    floats_only: bool = False

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs of the graph.

        Args:
            inputs: All inputs of the graph, in its order, of its shapes and types.
            outputs: Names of all outputs, in the graph's order.

        Raises:
            BundleError: The engine refused; the message has its reason.
        """
        ...


def not_importable(name: str, package: str, error: ImportError) -> DependencyError:
    """Return the error for an engine whose package, under its name at pip, cannot be imported."""
    if getattr(error, "name", None) == package.replace("-", "_"):
        return DependencyError(f"{name} is not installed.", next_step=f"pip install {package}")
    return DependencyError(f"{name} cannot be imported: {error}")
