"""PyTorch's own formats: TorchScript, exported programs, AOTInductor and Torch-TensorRT packages.

Files of all of them can hold code: only those of someone trusted are to be run.
"""

import importlib
import logging
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .base import Session, not_importable

_FAILURES = (
    *(RuntimeError, ValueError, TypeError, AssertionError, KeyError, OSError, EOFError),
    zipfile.BadZipFile,
)
"""What torch raises for files and tensors that it refuses; it has no error of its own."""


class _TorchSession(Session, ABC):
    """A file, loaded as a function of tensors; it says how precisely to compute.

    Threads are those of torch, in the whole process. Not every kind of file promises that several
    of them may call it at once.
    """

    _device = "cpu"

    def __init__(self, path: Path, threads: int = 0, hint: str = "") -> None:
        try:
            import torch
        except ImportError as error:
            raise not_importable("PyTorch", "torch", error) from error
        self._torch = torch
        self.version = f"torch {torch.__version__.partition('+')[0]}"
        if threads:
            torch.set_num_threads(threads)
        try:
            with warnings.catch_warnings():
                # TorchScript is deprecated, which the exporter has said.
                warnings.simplefilter("ignore")
                self._function = self._load(path)
        except _FAILURES as error:
            raise BundleError(f"PyTorch cannot load {path}: {error}") from error

    @abstractmethod
    def _load(self, path: Path) -> Callable[..., Any]: ...

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs, in the file's order; the file does not know their names."""
        torch = self._torch
        # torch warns of arrays that it could write to by mistake.
        arrays = (np.require(array, requirements=["C", "W"]) for array in inputs.values())
        tensors = (torch.from_numpy(array).to(self._device) for array in arrays)
        try:
            with torch.inference_mode():
                found = [tensor.cpu().numpy() for tensor in self._function(*tensors)]
        except _FAILURES as error:
            raise BundleError(f"PyTorch failed: {error}") from error
        if len(found) != len(outputs):
            raise BundleError(f"The graph gave {len(found)} tensors, not {len(outputs)}.")
        return found


class TorchScriptSession(_TorchSession):
    """A frozen TorchScript file, ``.ts``."""

    def _load(self, path: Path) -> Callable[..., Any]:
        return self._torch.jit.load(str(path), map_location="cpu")


class ExportedSession(_TorchSession):
    """An exported program, ``.pt2``."""

    def _load(self, path: Path) -> Callable[..., Any]:
        from torch import export

        return export.load(str(path)).module()


class AotInductorSession(_TorchSession):
    """A package of AOTInductor, ``.pt2``: a library compiled for the exporting kind of CPU."""

    def _load(self, path: Path) -> Callable[..., Any]:
        from torch import _inductor

        # It warns that there is no CUDA, for which nothing was compiled.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        return _inductor.aoti_load_package(str(path))


class TorchTensorRTSession(_TorchSession):
    """An exported program with TensorRT engines inside, ``.pt2``; on an NVIDIA GPU."""

    _device = "cuda"

    def _load(self, path: Path) -> Callable[..., Any]:
        try:
            # It registers the operators that call the file's engines. Without a driver it raises
            # RuntimeError, which is reported as any other.
            torch_tensorrt: Any = importlib.import_module("torch_tensorrt")
        except ImportError as error:
            raise not_importable("Torch-TensorRT", "torch_tensorrt", error) from error
        self.version += f", torch-tensorrt {torch_tensorrt.__version__}"
        from torch import export

        return export.load(str(path)).module()
