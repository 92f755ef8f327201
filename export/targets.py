"""Targets: where the halves can run. A new target is one entry of the table at the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from splitrun.errors import BundleError, DependencyError, UnknownNameError
from splitrun.registry import Registry

from . import jetson
from .formats.base import Format, missing_packages
from .formats.executorch_program import ExecuTorchFormat
from .formats.ncnn_files import NcnnFormat
from .formats.onnx_file import OnnxFormat, TensorRTFormat
from .formats.openvino_ir import OpenVinoFormat
from .formats.tflite import LiteRtFormat
from .formats.torch_files import AotInductorFormat, ExportedFormat, TorchScriptFormat
from .formats.torch_tensorrt import TorchTensorRTFormat

if TYPE_CHECKING:
    from splitrun.manifest import Manifest

    from ..progress import Progress


@dataclass(frozen=True)
class Halves:
    """Formats of the device graph and of the edge's graphs."""

    device: Format
    edge: Format


@dataclass(frozen=True)
class Target:
    """A kind of machine, and how the two halves of a model are written for it.

    Attributes:
        name: Name, as given to ``--target``.
        description: Description in one line.
        device: Format of the device graph.
        edges: Formats that the edge's graphs can have; the first is the default.
        precisions: Precisions that the device graph can have.
        aot: Format of both halves when they are compiled ahead of time; None where they cannot be.
        threads: Number of threads for the device graph; 0 lets the engine choose.
        note: Advice that follows an export.
        files: Contents of files that a bundle holds beside its graphs, by name.
        page: Function that returns what a bundle's page and a card say of the target, as Markdown.
        finish: Function that does with a finished bundle what this machine can, and tells its
            steps.
    """

    name: str
    description: str
    device: Format
    edges: tuple[Format, ...] = (OnnxFormat(),)
    precisions: tuple[str, ...] = ("fp32",)
    aot: Format | None = None
    threads: int = 0
    note: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    page: "Callable[[Manifest], str]" = lambda manifest: ""
    finish: "Callable[[Path, Progress], None]" = lambda folder, progress: None

    def halves(self, edge: str | None = None, *, aot: bool = False) -> Halves:
        """Choose the formats.

        Args:
            edge: Engine of the edge; None takes the default.
            aot: Compile ahead of time.

        Raises:
            UnknownNameError: The target's edge cannot have that engine.
            BundleError: Nothing can be compiled ahead of time for this target.
            DependencyError: A package that writing needs is not installed, or the environment of
                the converter is not made.
        """
        if aot and self.aot is None:
            raise BundleError(
                f"The target {self.name} cannot be compiled ahead of time.",
                next_step="Use --aot with --target torch.",
            )
        device, edges = (self.aot, (self.aot,)) if aot and self.aot else (self.device, self.edges)
        engines = {format.engine: format for format in edges}
        self._check_has("edge", edges[0].engine if edge is None else edge, tuple(engines))
        chosen = Halves(device, engines[edge] if edge else edges[0])
        for format in (chosen.device, chosen.edge):
            if missing := missing_packages(format):
                install = f"splitzoo[{format.extra}]" if format.extra else missing[0]
                raise DependencyError(
                    f"Exporting to the target {self.name} needs {', '.join(missing)}, which is not "
                    "installed.",
                    next_step=f"pip install '{install}'",
                )
            if format.environment:
                format.environment.check_made()
                format.environment.offer()
        return chosen

    def missing(self) -> tuple[str, ...]:
        """Return the packages, and the environment, that writing for it needs and are not here."""
        apart = self.device.environment
        made = () if apart is None or apart.is_made else (f"{apart.name} ({apart.command})",)
        return (*missing_packages(self.device, self.edges[0]), *made)

    @property
    def formats(self) -> dict[str, Format]:
        """All formats that a bundle's graphs can have, by their engines."""
        formats = (self.device, *self.edges, *((self.aot,) if self.aot else ()))
        return {format.engine: format for format in formats}

    def check_precision(self, precision: str) -> None:
        """Refuse a precision that the target does not have.

        Raises:
            UnknownNameError: It has others.
        """
        self._check_has("precision", precision, self.precisions)

    def check_edge_precision(self, precision: str, edge: Format) -> None:
        """Refuse a precision that the edge graph cannot have in its format.

        Raises:
            UnknownNameError: It has others.
        """
        of = f"precision of {edge.engine} on the edge of"
        self._check_has("edge-precision", precision, edge.edge_precisions, of)

    def _check_has(self, option: str, value: str, choices: tuple[str, ...], of: str = "") -> None:
        if value not in choices:
            raise UnknownNameError(
                f"{of or f'{option} of'} the target {self.name}",
                value,
                list(choices),
                next_step=f"Choose with: --{option} {f' or --{option} '.join(choices)}",
            )


TARGETS: Registry[Target] = Registry("target", next_step="See: splitzoo export targets")
for _target in (
    Target(
        name="cpu",
        description="ONNX for ONNX Runtime on any CPU",
        device=OnnxFormat(),
        precisions=("fp32", "int8"),
    ),
    Target(
        name="raspberrypi",
        description="ONNX for ONNX Runtime on the four cores of a Raspberry Pi",
        device=OnnxFormat(),
        precisions=("fp32", "int8"),
        threads=4,
        note="Not executed on a Raspberry Pi yet. To check one: python -m splitrun selftest",
    ),
    Target(
        name="jetson",
        description="typed ONNX and a build script for TensorRT 10.3 to 11 on a Jetson",
        device=TensorRTFormat(),
        edges=(OnnxFormat(), TensorRTFormat()),
        precisions=("fp32", "fp16", "int8"),
        note="Parsed and checked here, not executed on a Jetson. On the board: "
        "python build_engine.py",
        files={"build_engine.py": jetson.BUILD_SCRIPT},
        page=jetson.page,
        finish=jetson.build_here,
    ),
    Target(
        name="openvino",
        description="OpenVINO's IR on x86 processors",
        device=OpenVinoFormat(),
        edges=(OpenVinoFormat(), OnnxFormat()),
        precisions=("fp32", "bf16", "int8"),
    ),
    Target(
        name="litert",
        description="LiteRT's files (TensorFlow Lite), for Android, small boards and phones",
        device=LiteRtFormat(),
        edges=(OnnxFormat(), LiteRtFormat()),
        precisions=("fp32", "int8"),
        note="Run here on x86-64 alone, not on a phone. To check a board: python -m splitrun "
        "selftest",
    ),
    Target(
        name="executorch",
        description="ExecuTorch's programs for XNNPACK, on phones and small boards",
        device=ExecuTorchFormat(),
        note="Run here on x86-64 alone, not on a phone. To check a board: python -m splitrun "
        "selftest",
    ),
    Target(
        name="ncnn",
        description="ncnn's files, for the processors of phones and small boards",
        device=NcnnFormat(),
        edges=(OnnxFormat(), NcnnFormat()),
        precisions=("fp32", "fp16"),
        note="Run here on x86-64 alone, not on a phone. To check a board: python -m splitrun "
        "selftest",
    ),
    Target(
        name="torchscript",
        description="traced and frozen TorchScript, for PyTorch",
        device=TorchScriptFormat(),
        edges=(TorchScriptFormat(),),
        note="TorchScript is deprecated: PyTorch still loads and runs these files, but will not "
        "improve it and may drop it. The same model without it: --target torch",
    ),
    Target(
        name="torch",
        description="torch.export programs, with --aot compiled by AOTInductor",
        device=ExportedFormat(),
        edges=(ExportedFormat(),),
        aot=AotInductorFormat(),
    ),
    Target(
        name="torch-tensorrt",
        description="torch.export programs with TensorRT engines, for this machine's NVIDIA GPU",
        device=TorchTensorRTFormat(),
        edges=(TorchTensorRTFormat(), ExportedFormat()),
        note="The engines run only on this kind of GPU, with this release of TensorRT.",
    ),
):
    TARGETS.register(_target.name, _target)


def offer_engines() -> None:
    """Let engines that have environments of their own be run by this process and its own."""
    for target in TARGETS:
        if target.device.environment:
            target.device.environment.offer()
