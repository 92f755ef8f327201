"""What a target has to offer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class Target(Protocol):
    """A kind of machine, and the format and engine that it runs.

    Attributes:
        name: As given to ``--target``.
        description: One line for people.
        engine: Name of the runtime's engine that runs the graphs: a key of
            ``export.runtime.engines.ENGINES``.
        suffix: Of a graph's file.
        requirements: What ``pip install`` needs on the machine beside numpy, pillow, constriction.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  # see Attributes
    @property
    def description(self) -> str: ...  # noqa: D102
    @property
    def engine(self) -> str: ...  # noqa: D102
    @property
    def suffix(self) -> str: ...  # noqa: D102
    @property
    def requirements(self) -> tuple[str, ...]: ...  # noqa: D102

    def available(self) -> str:
        """Return why the target cannot be exported to from here, or an empty string."""
        ...

    def export(
        self,
        graph: "nn.Module",
        examples: "Sequence[Tensor]",
        path: Path,
        *,
        input_names: Sequence[str],
        output_names: Sequence[str],
        dynamic_batch: bool,
    ) -> None:
        """Write a graph.

        Args:
            graph: In evaluation mode; its ``forward`` takes ``*tensors`` and gives a tuple.
            examples: One for each input, for shapes and types.
            path: Of the file to write.
            input_names: In the file.
            output_names: In the file.
            dynamic_batch: Leave the first dimension of all of them open.
        """
        ...

    def check(self, path: Path) -> None:
        """Raise ``BundleError`` if the file is not a graph that computes something of its input."""
        ...
