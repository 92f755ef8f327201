"""TensorRT engines, run."""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....errors import BundleError, DependencyError
from ....files import sha256_file
from .builder import _logger
from .cuda import open_cuda
from .key import BUILD, EngineKey, jetpack_version

ENGINES_FOLDER = "engines"
RECORD_NAME = "engine.json"
_MAX_RECORD_BYTES = 1 << 20
_COMES_WITH = (
    "It comes with JetPack (6.1 and 6.2: TensorRT 10.3; 7.1: 10.13; 7.2: 10.16), not from pip: run "
    "this on the Jetson, with its own Python, or an environment made with --system-site-packages."
)


def import_tensorrt() -> Any:
    """Import TensorRT.

    Raises:
        DependencyError: It is not installed; says where it comes from.
    """
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        missing = getattr(error, "name", None) == "tensorrt"
        raise DependencyError(
            "TensorRT is not installed." if missing else f"TensorRT cannot be imported: {error}",
            next_step=_COMES_WITH,
        ) from error


class TensorRTSession:
    """The engine that was built of an ONNX file, loaded. Not executed by its authors on a Jetson.

    Args:
        path: Of the ONNX file, in a folder of the bundle.
        threads: Unused: the GPU does the work.
        hint: Unused: the engine says how precisely to compute.

    Raises:
        DependencyError: TensorRT, or what reaches the GPU, is not installed.
        BundleError: No engine was built of the file here, or it cannot be loaded.
    """

    def __init__(self, path: Path, threads: int = 0, hint: str = "") -> None:
        trt = import_tensorrt()
        self.version = f"tensorrt {trt.__version__}"
        self._trt, self._cuda = trt, open_cuda()
        plan = find_plan(path, here(trt, self._cuda, path))
        self._runtime = trt.Runtime(_logger(trt))
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise BundleError(
                f"TensorRT cannot load {plan.name}.", next_step=f"Build it again: {BUILD} --force"
            )
        self._context = self._engine.create_execution_context()
        self._buffers: dict[str, tuple[int, int]] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute the named outputs for inputs of the graph's shapes and types.

        Raises:
            BundleError: TensorRT refuses the shapes, or fails.
        """
        context, cuda = self._context, self._cuda
        arrays = {name: np.ascontiguousarray(one) for name, one in inputs.items()}
        for name, array in arrays.items():
            if not context.set_input_shape(name, tuple(array.shape)):
                raise BundleError(f"The engine does not take {name} as {array.shape}.")
            address = self._buffer(name, array.nbytes)
            cuda.upload(address, array)
            self._bind(name, address)
        given: dict[str, NDArray[Any]] = {}
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            if self._engine.get_tensor_mode(name) == self._trt.TensorIOMode.OUTPUT:
                dtype = self._trt.nptype(self._engine.get_tensor_dtype(name))
                given[name] = np.empty(tuple(context.get_tensor_shape(name)), dtype)
                self._bind(name, self._buffer(name, given[name].nbytes))
        if not context.execute_async_v3(cuda.stream):
            raise BundleError(f"TensorRT failed: {' '.join(_logger(self._trt).messages[-3:])}")
        for name, array in given.items():
            cuda.download(array, self._buffers[name][0])
        cuda.synchronise()
        try:
            return [given[name] for name in outputs]
        except KeyError as error:
            raise BundleError(f"The engine gives no {error}.") from error

    def _bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise BundleError(f"The engine has no tensor {name}.")

    def _buffer(self, name: str, size_bytes: int) -> int:
        """Return the address of a tensor's memory; it is allocated once for each size."""
        address, size = self._buffers.get(name, (0, -1))
        if size < size_bytes:
            address = self._cuda.allocate(max(size_bytes, 1))
            self._buffers[name] = address, size_bytes
        return address


def here(trt: Any, cuda: Any, onnx: Path) -> EngineKey:
    """Return the key that an engine of an ONNX file has on this machine."""
    return EngineKey(trt.__version__, cuda.capability(), jetpack_version(), sha256_file(onnx))


def find_plan(onnx: Path, key: EngineKey) -> Path:
    """Return the engine of an ONNX file that was built here.

    Args:
        onnx: In a folder of the bundle.
        key: Of this machine and the file.

    Raises:
        BundleError: There is none, it was built elsewhere or of another file, or its record is
            damaged.
    """
    bundle = onnx.parents[1]
    name = onnx.relative_to(bundle).as_posix()
    record = bundle / ENGINES_FOLDER / RECORD_NAME
    if not record.is_file():
        raise BundleError(
            f"No engine of {name} has been built on this machine.", next_step=f"Build it: {BUILD}"
        )
    try:
        if record.stat().st_size > _MAX_RECORD_BYTES:
            raise ValueError("it is too large")
        entry = json.loads(record.read_text(encoding="utf-8"))["graphs"][name]
        found = EngineKey.from_dict(entry["key"])
        digest = entry["plan_sha256"]
        plan = record.parent / f"{Path(name).stem}.plan"
        if not plan.is_file() or sha256_file(plan) != digest:
            raise ValueError(f"{plan.name} is missing or was changed")
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{ENGINES_FOLDER}/{RECORD_NAME} does not describe an engine of {name}: {said}.",
            next_step=f"Build it again: {BUILD} --force",
        ) from error
    key.refuse_other(found, name)
    return plan
