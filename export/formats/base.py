"""What a format has to offer."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from splitrun.errors import DependencyError

from ..precision.integers import Integers

if TYPE_CHECKING:
    from torch import Tensor, nn

Lower = Callable[[Path, Path, Integers], None]
"""Turns an fp32 ONNX file into one of a lower precision: source, then target."""


@dataclass(frozen=True)
class Source:
    """A graph to write.

    Attributes:
        module: In evaluation mode; its ``forward`` takes ``*tensors`` and gives a tuple.
        examples: One for each input, for shapes and types; of one image.
        input_names: In the file, where the format has names.
        output_names: Likewise.
        dynamic_batch: Leave the first dimension of all of them open.
        lower: To a lower precision, if that is wanted.
    """

    module: "nn.Module"
    examples: "Sequence[Tensor]"
    input_names: Sequence[str]
    output_names: Sequence[str]
    dynamic_batch: bool = False
    lower: Lower | None = None


class Format(Protocol):
    """A kind of file, and what runs it.

    Attributes:
        engine: A key of ``export.runtime.engines.ENGINES``.
        suffix: Of the file.
        requirements: What ``pip install`` needs where the graph runs, beside numpy and pillow.
        packages: That writing needs, as they are imported.
        extra: Of splitzoo, that installs them; empty where they are always installed.
    """

    @property
    def engine(self) -> str: ...  # noqa: D102  # see Attributes
    @property
    def suffix(self) -> str: ...  # noqa: D102
    @property
    def requirements(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def packages(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def extra(self) -> str: ...  # noqa: D102

    def write(self, source: Source, path: Path) -> Path | None:
        """Write a graph, and return a second file where the format has one.

        Raises:
            BundleError: It cannot be written in this format.
        """
        ...

    def check(self, path: Path) -> None:
        """Raise ``BundleError`` if the file is not a graph that computes something of its input.

        Nothing that the file holds is run.
        """
        ...


def missing_packages(*formats: Format) -> tuple[str, ...]:
    """Return the packages that writing needs and that are not installed."""
    needed = dict.fromkeys(name for one in formats for name in one.packages)
    return tuple(name for name in needed if importlib.util.find_spec(name) is None)


def check_packages(format: Format, target: str) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        DependencyError: One is not, with the command that installs it.
    """
    if missing := missing_packages(format):
        install = f"splitzoo[{format.extra}]" if format.extra else missing[0]
        raise DependencyError(
            f"The target {target} cannot be exported to: {', '.join(missing)} is not installed.",
            next_step=f"pip install '{install}'",
        )
