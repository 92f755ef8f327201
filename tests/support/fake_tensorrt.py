"""Stand-ins for TensorRT and for CUDA's runtime, on a machine that has neither.

A plan is the ONNX file itself, ONNX Runtime computes what the engine would, and the GPU's memory is
the host's. What tests with them show: which calls are made, in which order, with which shapes,
types, sizes and addresses, on which stream, that results are read only after it was waited for, and
what is said where a call fails. They show nothing of how TensorRT or a GPU behave.
"""

import ctypes
import enum
import types

import numpy as np
import onnx
import onnxruntime

STREAM = 7


class FakeRuntime:
    """``cuda.bindings.runtime``: each call returns a code first, and a stream does nothing early.

    Args:
        failing: Name of a call that fails.
    """

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.memory: dict[int, ctypes.Array] = {}
        self.waiting: list = []

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    class cudaDeviceAttr(enum.IntEnum):
        cudaDevAttrComputeCapabilityMajor = 75
        cudaDevAttrComputeCapabilityMinor = 76

    class cudaError_t(enum.IntEnum):
        cudaSuccess = 0
        cudaErrorNoDevice = 100

    def _done(self, name: str, *values: object) -> tuple:
        return self.cudaError_t(100 if name == self.failing else 0), *values

    def cudaSetDevice(self, number):
        return self._done("cudaSetDevice")

    def cudaStreamCreate(self):
        return self._done("cudaStreamCreate", STREAM)

    def cudaMalloc(self, size):
        buffer = (ctypes.c_char * size)()
        self.memory[ctypes.addressof(buffer)] = buffer
        return self._done("cudaMalloc", ctypes.addressof(buffer))

    def cudaFree(self, address):
        del self.memory[address]
        return self._done("cudaFree")

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        on_gpu = to if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice else source
        assert len(self.memory[on_gpu]) >= size
        assert int(stream) == STREAM
        self.waiting.append(lambda: ctypes.memmove(to, source, size))
        return self._done("cudaMemcpyAsync")

    def cudaStreamSynchronize(self, stream):
        for work in self.waiting:
            work()
        self.waiting.clear()
        return self._done("cudaStreamSynchronize")

    def cudaDeviceGetAttribute(self, attribute, number):
        return self._done("cudaDeviceGetAttribute", 8 if attribute == 75 else 7)

    def cudaGetDeviceProperties(self, number):
        found = types.SimpleNamespace(name=b"Orin", multiProcessorCount=16)
        return self._done("cudaGetDeviceProperties", found)


class FakeTensorRT:
    """The module ``tensorrt``, as far as the runtime uses it.

    Args:
        cuda: Owner of the memory that engines read and write.
        failing: What fails, by the name of the call; it then gives what TensorRT's gives.
        shift: Added to all integers that an engine computes.
    """

    def __init__(self, cuda: FakeRuntime, failing: str = "", shift: int = 0) -> None:
        self.__version__ = "10.3.0"
        self.cuda, self.failing, self.shift = cuda, failing, shift
        self.caches: list[bytes] = []
        self.built_with_tf32: list[bool] = []
        self.plugins: list[str] = []
        for cls in (Builder, OnnxParser, Runtime):
            setattr(self, cls.__name__, self._made(cls))

    def init_libnvinfer_plugins(self, logger, namespace):
        self.plugins.append(namespace)
        return True

    def _made(self, cls):
        def create(*words):
            if self.failing == cls.__name__:
                raise TypeError("pybind11::init(): factory function returned nullptr")
            return cls(self, *words)

        return create

    class NetworkDefinitionCreationFlag(enum.IntEnum):
        STRONGLY_TYPED = 1

    class MemoryPoolType(enum.Enum):
        WORKSPACE = 0

    class BuilderFlag(enum.Enum):
        TF32 = 0

    class TensorIOMode(enum.Enum):
        INPUT = 1
        OUTPUT = 2

    class ILogger:
        class Severity(enum.Enum):
            INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    @staticmethod
    def nptype(dtype):
        return dtype

    def fails(self, name: str, logger) -> bool:
        if name == self.failing:
            logger.log(self.ILogger.Severity.ERROR, f"words about {name}")
            logger.log(self.ILogger.Severity.INFO, "chatter")
        return name == self.failing


class Network:
    num_layers = 5
    content = b""


class Builder:
    def __init__(self, trt, logger) -> None:
        self.trt, self.logger = trt, logger

    def create_network(self, flags):
        assert flags == 1 << 1
        return Network()

    def create_builder_config(self):
        return Config(self.trt, self.logger)

    def create_optimization_profile(self):
        return types.SimpleNamespace(set_shape=lambda name, *shapes: None)

    def build_serialized_network(self, network, config):
        self.trt.built_with_tf32.append(config.get_flag(self.trt.BuilderFlag.TF32))
        failed = self.trt.fails("build_serialized_network", self.logger)
        return None if failed else network.content


class Config:
    def __init__(self, trt, logger) -> None:
        self.trt, self.logger = trt, logger
        self.flags = {trt.BuilderFlag.TF32}  # as TensorRT's: see test_tensorrt_build.py

    def set_memory_pool_limit(self, pool, size):
        assert size > 0

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def get_flag(self, flag):
        return flag in self.flags

    def create_timing_cache(self, content):
        self.trt.caches.append(content)
        return types.SimpleNamespace(serialize=lambda: b"timings")

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache

    def get_timing_cache(self):
        return self.cache

    def add_optimization_profile(self, profile):
        return -1 if self.trt.fails("add_optimization_profile", self.logger) else 0


class OnnxParser:
    num_errors = 1

    def __init__(self, trt, network, logger) -> None:
        self.trt, self.network, self.logger = trt, network, logger

    def parse_from_file(self, path):
        with open(path, "rb") as file:  # noqa: PTH123  # as TensorRT does, from a text
            self.network.content = file.read()
        return not self.trt.fails("parse_from_file", self.logger)

    def get_error(self, number):
        words = {"node_name": "node_7", "node_operator": "Odd", "desc": "no importer"}
        found = {name: lambda said=said: said for name, said in words.items()}
        return types.SimpleNamespace(**found)


class Runtime:
    def __init__(self, trt, logger) -> None:
        self.trt, self.logger = trt, logger

    def deserialize_cuda_engine(self, plan):
        failed = self.trt.fails("deserialize_cuda_engine", self.logger)
        return None if failed else Engine(self.trt, self.logger, plan)


class Engine:
    def __init__(self, trt, logger, plan: bytes) -> None:
        self.trt, self.logger = trt, logger
        self.session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        graph = onnx.load_from_string(plan).graph
        self.inputs = {one.name: one for one in graph.input}
        self.tensors = {one.name: one for one in (*graph.input, *graph.output)}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, number):
        return list(self.tensors)[number]

    def get_tensor_mode(self, name):
        mode = self.trt.TensorIOMode
        return mode.INPUT if name in self.inputs else mode.OUTPUT

    def get_tensor_dtype(self, name):
        kind = self.tensors[name].type.tensor_type.elem_type
        return onnx.helper.tensor_dtype_to_np_dtype(kind)

    def create_execution_context(self):
        failed = self.trt.fails("create_execution_context", self.logger)
        return None if failed else Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.trt = engine, engine.trt
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def _dimensions(self, name, batch):
        found = self.engine.tensors[name].type.tensor_type.shape.dim
        return tuple(one.dim_value or batch for one in found)

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return shape == self._dimensions(name, shape[0])

    def get_tensor_shape(self, name):
        (batch,) = {shape[0] for shape in self.shapes.values()}
        return self._dimensions(name, batch)

    def set_tensor_address(self, name, address):
        assert address in self.trt.cuda.memory
        self.addresses[name] = address
        return name in self.engine.tensors

    def execute_async_v3(self, stream):
        assert stream == STREAM
        if self.trt.fails("execute_async_v3", self.engine.logger):
            return False
        assert set(self.addresses) == set(self.engine.tensors)
        self.trt.cuda.waiting.append(self._compute)
        return True

    def _compute(self):
        given = {}
        for name in self.engine.inputs:
            shape, dtype = self.shapes[name], np.dtype(self.engine.get_tensor_dtype(name))
            size = int(np.prod(shape)) * dtype.itemsize
            content = self.trt.cuda.memory[self.addresses[name]].raw[:size]
            given[name] = np.frombuffer(content, dtype).reshape(shape)
        names = [one.name for one in self.engine.session.get_outputs()]
        for name, one in zip(names, self.engine.session.run(names, given), strict=True):
            result = one + self.trt.shift if one.dtype.kind == "i" else one
            buffer = self.trt.cuda.memory[self.addresses[name]]
            assert len(buffer) >= result.nbytes
            buffer[: result.nbytes] = result.astype(one.dtype).tobytes()
