"""What runs a graph. Adding an engine is one file here and one line in ``ENGINES``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError, SplitzooError
from ..tensorrt.session import TensorRTSession
from .base import Session
from .onnx_runtime import OnnxRuntimeSession
from .openvino_runtime import OpenVinoSession
from .torch_runtime import (
    AotInductorSession,
    ExportedSession,
    TorchScriptSession,
    TorchTensorRTSession,
)

__all__ = ["ENGINES", "Engine", "Session", "open_session"]


@dataclass(frozen=True)
class Engine:
    """What runs a graph.

    Attributes:
        open: Function that loads a file, with a number of threads (0: it chooses) and a hint at the
            precision.
        runs_code: Whether its files can hold code beside the graph: they are to be trusted like a
            program.
        stand_in: Engine that runs the same file where this one cannot be.
    """

    open: Callable[[Path, int, str], Session]
    runs_code: bool = False
    stand_in: str = ""


ENGINES: dict[str, Engine] = {
    "onnxruntime": Engine(OnnxRuntimeSession),
    "openvino": Engine(OpenVinoSession),
    # Its engines are built where they run; another machine can run the ONNX file.
    "tensorrt": Engine(TensorRTSession, stand_in="onnxruntime"),
    "torchscript": Engine(TorchScriptSession, runs_code=True),
    "torch": Engine(ExportedSession, runs_code=True),
    "aotinductor": Engine(AotInductorSession, runs_code=True),
    "torch-tensorrt": Engine(TorchTensorRTSession, runs_code=True),
}


def open_session(
    engine: str, path: Path, threads: int = 0, hint: str = "", *, stand_in: bool = False
) -> Session:
    """Load a graph.

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
    try:
        return found.open(path, threads, hint)
    except SplitzooError:
        if not (stand_in and found.stand_in):
            raise
    return ENGINES[found.stand_in].open(path, threads, hint)
