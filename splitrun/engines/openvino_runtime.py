"""OpenVINO's intermediate representation, on the CPU."""

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .base import Session, not_importable

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry, or raise ``DependencyError``."""
    # OpenVINO goes without this package where it is missing.
    known = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # pyright: ignore[reportArgumentType]  # stops imports of it
    try:
        import openvino
    except ImportError as error:
        raise not_importable("OpenVINO", "openvino", error) from error
    finally:
        if known is None:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = known
    return openvino


@functools.cache
def openvino_core() -> Any:
    """Return the process's one core of OpenVINO, which lives as long as the process.

    Each core puts a stack of its own in place for signals; where a second one goes, it puts back
    that of the first, which may be gone, and the next Ctrl-C ends in a segmentation fault.
    """
    return import_openvino().Core()


class OpenVinoSession(Session):
    """A pair of files, ``.xml`` (the path) and ``.bin``; its one request has memory of its own."""

    def __init__(self, path: Path, threads: int = 0, hint: str = "") -> None:
        openvino = import_openvino()
        self.version = f"openvino {openvino.__version__.partition('-')[0]}"
        settings: dict[str, Any] = {
            # By itself it takes bf16 where the CPU has it, and rounds some 1% of the symbols to
            # their neighbours.
            "INFERENCE_PRECISION_HINT": hint or "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino_core()
            compiled = core.compile_model(core.read_model(path), "CPU", settings)
            self._request = compiled.create_infer_request()
        except (RuntimeError, ValueError, TypeError) as error:
            raise BundleError(f"OpenVINO cannot load {path}: {error}") from error

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs of the graph."""
        try:
            found = self._request.infer(dict(inputs), share_inputs=True)
            return [np.asarray(found[name]) for name in outputs]
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            raise BundleError(f"OpenVINO failed: {error}") from error
