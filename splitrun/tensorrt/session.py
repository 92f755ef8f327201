"""Run TensorRT engines that were built on this machine."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bundle_layout import ENGINES_FOLDER
from ..errors import BundleError
from ..files import sha256_file
from ..strict_json import read_strictly
from .cuda import open_cuda
from .key import BUILD, EngineKey, jetpack_version
from .library import import_tensorrt, last_words, logger_of, start

RECORD_NAME = "engine.json"
_MAX_RECORD_BYTES = 1 << 20


class TensorRTSession:
    """The engine that was built of an ONNX file. Not executed by its authors on a Jetson.

    Threads and hint are unused: the GPU does the work, and the engine says how precisely.
    """

    thread_safe = False  # one context, with memory of its own
    floats_only = False

    def __init__(self, path: Path, threads: int = 0, hint: str = "") -> None:
        trt = import_tensorrt()
        self.version = f"tensorrt {trt.__version__}"
        self._cuda = open_cuda()
        plan = find_plan(path, here(trt, self._cuda, path))
        self._logger = logger_of(trt)
        self._runtime = start(trt.Runtime, self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan.read_bytes())
        if self._engine is None:
            raise BundleError(
                f"TensorRT cannot load {plan.name}: {last_words(self._logger)}",
                next_step=f"Build it again: {BUILD} --force",
            )
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise BundleError(
                f"TensorRT cannot prepare {plan.name} to run: {last_words(self._logger)}",
                next_step="Free memory of the GPU, which on a Jetson is the board's own.",
            )
        self._types = {
            name: np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
            for name in map(self._engine.get_tensor_name, range(self._engine.num_io_tensors))
        }
        mode, output = self._engine.get_tensor_mode, trt.TensorIOMode.OUTPUT
        self._outputs = tuple(name for name in self._types if mode(name) == output)
        self._buffers: dict[str, tuple[int, int]] = {}

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs of the graph."""
        context, cuda = self._context, self._cuda
        arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
        for name, array in arrays.items():
            # An address says nothing of what lies there.
            typed = name in self._types and self._types[name] == array.dtype
            if not typed or not context.set_input_shape(name, tuple(array.shape)):
                shape = f"{array.dtype} {array.shape}"
                raise BundleError(f"The engine does not take {name} as {shape}.")
            address = self._buffer(name, array.nbytes)
            cuda.upload(address, array)
            self._bind(name, address)
        found: dict[str, NDArray[Any]] = {}
        for name in self._outputs:
            found[name] = np.empty(tuple(context.get_tensor_shape(name)), self._types[name])
            self._bind(name, self._buffer(name, found[name].nbytes))
        if not context.execute_async_v3(cuda.stream):
            raise BundleError(f"TensorRT failed: {last_words(self._logger)}")
        for name, array in found.items():
            cuda.download(array, self._buffers[name][0])
        cuda.synchronise()
        try:
            return [found[name] for name in outputs]
        except KeyError as error:
            raise BundleError(f"The engine gives no {error}.") from error

    def _bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise BundleError(f"The engine has no tensor {name}.")

    def _buffer(self, name: str, size_bytes: int) -> int:
        """Return the address of a tensor's memory, allocated once for each size."""
        address, size = self._buffers.get(name, (0, -1))
        if size < size_bytes:
            address = self._cuda.allocate(max(size_bytes, 1))
            self._buffers[name] = address, size_bytes
        return address


def here(trt: Any, cuda: Any, onnx: Path) -> EngineKey:
    """Return the key that an engine of an ONNX file has on this machine."""
    return EngineKey(
        tensorrt=trt.__version__,
        capability=cuda.capability(),
        gpu=cuda.gpu(),
        jetpack=jetpack_version(),
        onnx_sha256=sha256_file(onnx),
    )


def find_plan(onnx: Path, key: EngineKey) -> Path:
    """Return the engine of an ONNX file, in a folder of a bundle, that was built here.

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
        found = read_strictly(EngineKey, entry["key"], "key")
        digest = entry["plan_sha256"]
        # The process that builds it may run it, to compare it.
        if "compared" not in entry and entry.get("building") != os.getpid():
            raise ValueError("it was not compared with the record")
        plan = record.parent / f"{Path(name).stem}.plan"
        if not plan.is_file() or sha256_file(plan) != digest:
            raise ValueError(f"{plan.name} is missing or was changed")
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        detail = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"{ENGINES_FOLDER}/{RECORD_NAME} does not describe an engine of {name}: {detail}.",
            next_step=f"Build it again: {BUILD} --force",
        ) from error
    key.check_same(found, name)
    return plan
