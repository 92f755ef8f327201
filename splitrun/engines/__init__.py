"""What runs a graph. Adding an engine is one file here and one line in ``ENGINES``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError, SplitzooError
from ..onnx_file import check_onnx_file
from ..openvino_file import check_openvino_files
from ..tensorrt.session import TensorRTSession
from .apart import SessionApart, python_of
from .base import Session
from .executorch_runtime import ExecuTorchSession
from .litert_runtime import LiteRtSession
from .ncnn_runtime import NcnnSession
from .onnx_runtime import OnnxRuntimeSession
from .openvino_runtime import OpenVinoSession
from .torch_runtime import (
    AotInductorSession,
    ExportedSession,
    TorchScriptSession,
    TorchTensorRTSession,
)

__all__ = ["ENGINES", "Engine", "Session", "check_graph", "open_session"]


def _check_onnx(path: Path, weights: Path | None = None) -> None:
    if path.suffix != ".onnx" or weights is not None:
        raise BundleError(f"{path} is not run: it is not one .onnx file.")
    check_onnx_file(path)


@dataclass(frozen=True)
class Engine:
    """What runs a graph.

    Attributes:
        open: Function that loads a file, with a number of threads (0: it chooses) and a hint at the
            precision.
        check: Function that refuses files which hold more than a plain graph. None where there is
            none: the files are to be trusted like a program.
        risk: What files that are not checked can do, in words that follow the graph's name.
        stand_in: Engine that runs the same file where this one cannot be.
    """

    open: Callable[[Path, int, str], Session]
    check: Callable[[Path, Path | None], None] | None = None
    risk: str = "can hold code beside the network"
    stand_in: str = ""

    @property
    def runs_code(self) -> bool:
        """Whether the files are to be trusted like a program."""
        return self.check is None


_WRONG_SIZES = "can have sizes that lead the engine out of its memory"

ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine(OnnxRuntimeSession, _check_onnx),
    "openvino": Engine(OpenVinoSession, check_openvino_files),
    # Its engines are built where they run; another machine can run the ONNX file.
    "tensorrt": Engine(TensorRTSession, _check_onnx, stand_in="onnxruntime"),
    "torchscript": Engine(TorchScriptSession),
    "torch": Engine(ExportedSession),
    "aotinductor": Engine(AotInductorSession),
    "torch-tensorrt": Engine(TorchTensorRTSession),
    "litert": Engine(LiteRtSession, risk=_WRONG_SIZES),
    "executorch": Engine(ExecuTorchSession, risk=_WRONG_SIZES),
    "ncnn": Engine(NcnnSession, risk=_WRONG_SIZES),
}


def check_graph(engine: str, path: Path, weights: Path | None = None) -> None:
    """Refuse a graph that holds anything but the operators that splitzoo's exporters write.

    Files that are to be trusted like a program are not looked into.

    Raises:
        BundleError: The graph holds something else, or opens a file that no manifest names.
    """
    check = ENGINES[engine].check if engine in ENGINES else None
    if check is not None:
        check(path, weights)


def open_session(
    engine: str, path: Path, threads: int = 0, hint: str = "", *, stand_in: bool = False
) -> Session:
    """Load a graph, in the Python that the environment names for the engine, if it names one.

    Args:
        engine: Name of the engine.
        path: Path of the graph's file.
        threads: Number of threads for the engine; 0 lets it choose.
        hint: Precision to compute in, for engines that choose one.
        stand_in: Take the engine that stands in for one that cannot run the graph here.

    Raises:
        BundleError: No such engine, or it cannot load the file.
        DependencyError: The engine is not installed.
    """
    if engine not in ENGINES:
        raise BundleError(
            f"The bundle wants the engine {engine!r}; this runtime has {', '.join(ENGINES)}.",
            next_step="Use the splitrun inside the bundle, or: pip install --upgrade splitzoo",
        )
    found = ENGINES[engine]
    if python := python_of(engine):
        return SessionApart(python, engine, path, threads, hint)
    try:
        return found.open(path, threads, hint)
    except SplitzooError:
        if not (stand_in and found.stand_in):
            raise
    return ENGINES[found.stand_in].open(path, threads, hint)
