"""What an engine has to offer, and how a missing one is told."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ..errors import DependencyError


class Session(Protocol):
    """A loaded graph.

    Attributes:
        version: Of the engine, with its name.
    """

    version: str

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs of the graph.

        Args:
            inputs: All of the graph's, in its order, of its shapes and types.
            outputs: The names of all of them, in the graph's order.

        Raises:
            BundleError: The engine refused; the message has its reason.
        """
        ...


def not_importable(name: str, package: str, error: ImportError) -> DependencyError:
    """Return the error for an engine that cannot be imported.

    Args:
        name: Of the engine, for people.
        package: That is imported, and installed with pip, under this name.
        error: That importing raised.
    """
    if getattr(error, "name", None) == package:
        return DependencyError(f"{name} is not installed.", next_step=f"pip install {package}")
    return DependencyError(f"{name} cannot be imported: {error}")
