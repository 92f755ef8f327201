"""What a format is: how a graph is written to a file, and which engine runs it."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..environments import Environment


@dataclass(frozen=True)
class Integers:
    """How an engine wants int8 weights and activations, to compute with them fast and exactly.

    Attributes:
        unsigned: Whether activations are uint8 from their least value on, outputs of convolutions
            too: ONNX Runtime has fast kernels for that on x86. Else they are int8 around zero,
            which TensorRT wants.
        weight_bits: Bits of a weight: 8, or 7 where the engine's sums of two products saturate at
            16 bits on x86 without VNNI.
    """

    unsigned: bool = False
    weight_bits: int = 8


Lower = Callable[[Path, Path, Integers], None]
"""Step from an fp32 ONNX file to one of a lower precision: source, destination, integers."""


@dataclass(frozen=True)
class Source:
    """A graph to write.

    Attributes:
        module: Module in evaluation mode; its ``forward`` takes ``*tensors`` and gives a tuple.
        examples: Example of each input for one image: shapes and types.
        input_names: Names of the inputs, where the format has names.
        output_names: Names of the outputs, where the format has names.
        dynamic_batch: Whether the first dimension of all inputs and outputs stays open.
        precision: Precision to compute in.
        lower: Step to a lower precision; None writes fp32.
        on_edge: Whether it is one of the edge's.
        choose_int8: Function that, for formats with a quantiser of their own, names the nodes of an
            fp32 ONNX file that int8 takes, and writes the inputs that it takes its ranges from.
    """

    module: "nn.Module"
    examples: "Sequence[Tensor]"
    input_names: Sequence[str]
    output_names: Sequence[str]
    dynamic_batch: bool = False
    precision: str = "fp32"
    lower: Lower | None = None
    on_edge: bool = False
    choose_int8: Callable[[Path, Path], list[str]] | None = None

    @property
    def in_fp32(self) -> "Source":
        """The same graph in fp32."""
        return replace(self, precision="fp32", lower=None)


class Format(ABC):
    """A kind of file, and what runs it.

    Attributes:
        engine: Name of the engine, a key of ``splitrun.engines.ENGINES``.
        suffix: Suffix of the file.
        packages: Packages that writing needs, by the names they are imported with.
        extra: Extra of splitzoo that installs them; empty where they are always installed.
        environment: Environment that its converter runs in; None where it runs in splitzoo's own.
        any_batch: Whether its graphs can take any number of images at once.
        edge_precisions: Precisions that the edge graph can have.
        hints: Precisions that the engine is told of, because the file does not say them.
    """

    engine: str
    suffix: str
    packages: tuple[str, ...]
    extra: str = ""
    environment: "Environment | None" = None
    any_batch: bool = True
    edge_precisions: tuple[str, ...] = ("fp32",)
    hints: Mapping[str, str] = MappingProxyType({})

    @property
    @abstractmethod
    def requirements(self) -> tuple[str, ...]:
        """What ``pip install`` needs where the graph runs, beside numpy and pillow."""

    @abstractmethod
    def write(self, source: Source, path: Path) -> Path | None:
        """Write a graph, and return a second file where the format has one.

        Raises:
            BundleError: The graph cannot be written in this format.
        """

    @abstractmethod
    def check(self, path: Path) -> None:
        """Raise ``BundleError`` if the file is not a graph whose output depends on its input.

        Nothing that the file holds is run.
        """


def missing_packages(*formats: Format) -> tuple[str, ...]:
    """Return the packages that writing needs and that are not installed."""
    needed = dict.fromkeys(name for format in formats for name in format.packages)
    return tuple(name for name in needed if importlib.util.find_spec(name) is None)
