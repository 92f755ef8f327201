"""ExecuTorch's programs, on the CPU."""

import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .base import Session, not_importable


class ExecuTorchSession(Session):
    """A ``.pte`` file; ExecuTorch chooses its threads."""

    def __init__(self, path: Path, threads: int = 0, hint: str = "") -> None:
        try:
            runtime: Any = importlib.import_module("executorch.runtime")
            self._torch: Any = importlib.import_module("torch")
        except ImportError as error:
            raise not_importable("ExecuTorch", "executorch", error) from error
        self.version = f"executorch {version('executorch')}"
        try:
            # The program is to live as long as its method.
            self._program = runtime.Runtime.get().load_program(str(path))
            self._method = self._program.load_method("forward")
        except (RuntimeError, ValueError, OSError) as error:
            raise BundleError(f"ExecuTorch cannot load {path}: {error}") from error

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs, in the file's order; the file does not know their names."""
        arrays = (np.require(array, requirements=["C", "W"]) for array in inputs.values())
        try:
            found = self._method.execute([self._torch.from_numpy(array) for array in arrays])
        except (RuntimeError, ValueError, TypeError) as error:
            raise BundleError(f"ExecuTorch failed: {error}") from error
        if len(found) != len(outputs):
            raise BundleError(f"The graph gave {len(found)} tensors, not {len(outputs)}.")
        # Its memory is the method's, and is written to by the next run.
        return [tensor.numpy().copy() for tensor in found]
