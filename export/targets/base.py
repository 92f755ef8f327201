"""What a target is: how the two halves of a model are written for the machines that run them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from splitrun.errors import BundleError, UnknownNameError

from ..formats.base import Format, check_packages, missing_packages
from ..formats.onnx_file import OnnxFormat

if TYPE_CHECKING:
    from splitrun.manifest import Manifest

    from ...progress import Progress

Precision = str
"""``fp32``, ``fp16``, ``bf16`` or ``int8``: what the device graph computes in."""


@dataclass(frozen=True)
class Halves:
    """The formats of a device's graph and of the edge's."""

    device: Format
    edge: Format


@dataclass(frozen=True)
class Target:
    """A kind of machine.

    Attributes:
        name: As given to ``--target``.
        description: One line for people.
        device: Format of the device graph.
        edges: Formats that the edge's graphs can have; the first is the default.
        precisions: That the device graph can have; the first is the default. The edge computes in
            fp32.
        hints: What the engine is told of a precision, where the file does not say it.
        aot: Format of both halves that are compiled ahead of time, if they can be.
        threads: For the device graph; 0 lets the engine choose.
        note: What to know of the target, said after an export.
        complete: Writes what the bundle needs beside the graphs.
        readme: Returns what the bundle's page says of it.
        finish: Does with a bundle that is written what this machine can, and tells its steps.
    """

    name: str
    description: str
    device: Format
    edges: tuple[Format, ...] = (OnnxFormat(),)
    precisions: tuple[Precision, ...] = ("fp32",)
    hints: Mapping[Precision, str] = field(default_factory=dict)
    aot: Format | None = None
    threads: int = 0
    note: str = ""
    complete: "Callable[[Manifest, Path], None] | None" = None
    readme: "Callable[[Manifest], str] | None" = None
    finish: "Callable[[Path, Progress], None] | None" = None

    def halves(self, edge: str | None = None, *, aot: bool = False) -> Halves:
        """Choose the formats.

        Args:
            edge: Engine of the edge; None takes the default.
            aot: Compile ahead of time.

        Raises:
            UnknownNameError: The target's edge cannot have that engine.
            BundleError: Nothing can be compiled ahead of time for this target.
            DependencyError: A package that writing needs is not installed.
        """
        if aot and self.aot is None:
            raise BundleError(
                f"The target {self.name} has nothing to compile ahead of time.",
                next_step="Use --aot with --target torch.",
            )
        edges = {one.engine: one for one in ((self.aot,) if aot else self.edges) if one}
        if edge is not None and edge not in edges:
            raise UnknownNameError(
                f"edge of the target {self.name}",
                edge,
                list(edges),
                next_step=f"Choose with: --edge {' or --edge '.join(edges)}",
            )
        device = self.aot if aot and self.aot else self.device
        chosen = Halves(device, edges[edge] if edge else next(iter(edges.values())))
        for one in (chosen.device, chosen.edge):
            check_packages(one, self.name)
        return chosen

    def missing(self) -> tuple[str, ...]:
        """Return the packages that writing for it needs and that are not installed."""
        return missing_packages(self.device, self.edges[0])

    @property
    def formats(self) -> dict[str, Format]:
        """All formats that a bundle's graphs can have, by their engines."""
        every = (self.device, *self.edges, *((self.aot,) if self.aot else ()))
        return {one.engine: one for one in every}

    def check_precision(self, precision: Precision) -> None:
        """Refuse a precision that the target does not have.

        Raises:
            UnknownNameError: It has others.
        """
        if precision not in self.precisions:
            raise UnknownNameError(
                f"precision of the target {self.name}",
                precision,
                list(self.precisions),
                next_step=f"Choose with: --precision {' or --precision '.join(self.precisions)}",
            )
