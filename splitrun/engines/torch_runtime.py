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
from .base import not_importable

_FAILURES = (
    *(RuntimeError, ValueError, TypeError, AssertionError, KeyError, OSError, EOFError),
    zipfile.BadZipFile,
)
"""What torch raises on files and tensors that it does not like; it has no error of its own."""


class _TorchSession(ABC):
    """A file, loaded as a function of tensors.

    Args:
        path: Of the file.
        threads: For torch, in the whole process; 0 leaves it as it is.
        hint: Unused: the file says how precisely to compute.

    Raises:
        DependencyError: torch is not installed.
        BundleError: It cannot load the file.
    """

    _place = "cpu"

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
                # Of TorchScript, that it is deprecated: the exporter has said so.
                warnings.simplefilter("ignore")
                self._function = self._load(path)
        except _FAILURES as error:
            raise BundleError(f"PyTorch cannot load {path}: {error}") from error

    @abstractmethod
    def _load(self, path: Path) -> Callable[..., Any]: ...

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs, in the file's order; the file does not know their names.

        Raises:
            BundleError: PyTorch refused; the message has its reason.
        """
        torch = self._torch
        # torch warns of arrays that it could write to by mistake.
        arrays = (np.require(one, requirements=["C", "W"]) for one in inputs.values())
        try:
            with torch.inference_mode():
                given = self._function(*(torch.from_numpy(one).to(self._place) for one in arrays))
                given = [one.cpu().numpy() for one in given]
        except _FAILURES as error:
            raise BundleError(f"PyTorch failed: {error}") from error
        if len(given) != len(outputs):
            raise BundleError(f"The graph gave {len(given)} tensors, not {len(outputs)}.")
        return given


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

    _place = "cuda"

    def _load(self, path: Path) -> Callable[..., Any]:
        try:
            # It registers what the file's engines are called by. Without a driver it raises
            # RuntimeError, which is told as any other.
            torch_tensorrt: Any = importlib.import_module("torch_tensorrt")
        except ImportError as error:
            raise not_importable("Torch-TensorRT", "torch_tensorrt", error) from error
        self.version += f", torch-tensorrt {torch_tensorrt.__version__}"
        from torch import export

        return export.load(str(path)).module()
