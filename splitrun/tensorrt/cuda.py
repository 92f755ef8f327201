"""The part of CUDA that running an engine takes, by cuda-python or by torch."""

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, DependencyError

_WHERE = "Run this on the Jetson; a container needs --runtime nvidia."


class Cuda(Protocol):
    """A GPU's memory, and a stream that is not the default one.

    Attributes:
        stream: Handle of the stream.
    """

    stream: int

    def allocate(self, size_bytes: int) -> int:
        """Return the address of so many bytes, which live as long as this."""
        ...

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to an address."""
        ...

    def download(self, array: NDArray[Any], address: int) -> None:
        """Copy from an address into a contiguous array."""
        ...

    def synchronise(self) -> None:
        """Wait until the stream has done all its work."""
        ...

    def capability(self) -> str:
        """Return the compute capability, such as ``"8.7"``."""
        ...

    def gpu(self) -> str:
        """Return the GPU's name and how many multiprocessors it has, such as ``"Orin, 16 SMs"``."""
        ...


def open_cuda() -> Cuda:
    """Return the first GPU, by cuda-python, else by torch."""
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return _CudaPython(importlib.import_module(name))
        except ImportError:
            continue
        # Bindings without the library that they load.
        except RuntimeError as error:
            raise BundleError(f"CUDA does not start: {error}", next_step=_WHERE) from error
    try:
        torch: Any = importlib.import_module("torch")
        torch.cuda.current_stream()
    # torch made for the CPU alone, as PyPI has it for Arm, fails an assertion of its own.
    except (ImportError, AssertionError) as error:
        raise DependencyError(
            "Running an engine takes cuda-python, or torch made for CUDA, and neither is here.",
            next_step='pip install "cuda-python<13" for JetPack 6, pip install cuda-python for 7',
        ) from error
    except RuntimeError as error:
        raise BundleError(f"CUDA does not start: {error}", next_step=_WHERE) from error
    return _CudaTorch(torch)


class _CudaPython:
    """CUDA by the runtime's bindings, whose calls return an error code first."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self._kind = runtime.cudaMemcpyKind
        self._call("cudaSetDevice", 0)
        self._stream = self._call("cudaStreamCreate")
        self.stream = int(self._stream)
        self._owned: list[int] = []

    def _call(self, name: str, *words: Any) -> Any:
        code, *values = getattr(self._runtime, name)(*words)
        if int(code):
            raise BundleError(f"CUDA failed in {name}: {code.name}.", next_step=_WHERE)
        return values[0] if values else None

    def allocate(self, size_bytes: int) -> int:
        address = int(self._call("cudaMalloc", size_bytes))
        self._owned.append(address)
        return address

    def upload(self, address: int, array: NDArray[Any]) -> None:
        kind = self._kind.cudaMemcpyHostToDevice
        self._copy(address, array.ctypes.data, array.nbytes, kind)

    def download(self, array: NDArray[Any], address: int) -> None:
        kind = self._kind.cudaMemcpyDeviceToHost
        self._copy(array.ctypes.data, address, array.nbytes, kind)

    def _copy(self, to: int, source: int, size_bytes: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", to, source, size_bytes, kind, self._stream)

    def synchronise(self) -> None:
        self._call("cudaStreamSynchronize", self._stream)

    def capability(self) -> str:
        names = ("cudaDevAttrComputeCapabilityMajor", "cudaDevAttrComputeCapabilityMinor")
        attributes = (getattr(self._runtime.cudaDeviceAttr, name) for name in names)
        return ".".join(str(self._call("cudaDeviceGetAttribute", kind, 0)) for kind in attributes)

    def gpu(self) -> str:
        found = self._call("cudaGetDeviceProperties", 0)
        name = found.name.decode(errors="replace")
        return f"{name}, {found.multiProcessorCount} SMs"

    def __del__(self) -> None:
        for address in getattr(self, "_owned", ()):
            self._runtime.cudaFree(address)


class _CudaTorch:
    """CUDA by torch, with tensors of bytes."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._side = torch.cuda.Stream()
        self.stream = int(self._side.cuda_stream)
        self._owned: dict[int, Any] = {}

    def allocate(self, size_bytes: int) -> int:
        tensor = self._torch.empty(size_bytes, dtype=self._torch.uint8, device="cuda")
        self._owned[tensor.data_ptr()] = tensor
        return tensor.data_ptr()

    def upload(self, address: int, array: NDArray[Any]) -> None:
        with self._torch.cuda.stream(self._side):
            self._bytes(address, array.nbytes).copy_(self._host(array))

    def download(self, array: NDArray[Any], address: int) -> None:
        with self._torch.cuda.stream(self._side):
            self._host(array).copy_(self._bytes(address, array.nbytes))

    def _bytes(self, address: int, size_bytes: int) -> Any:
        return self._owned[address][:size_bytes]

    def _host(self, array: NDArray[Any]) -> Any:
        return self._torch.from_numpy(array.reshape(-1).view(np.uint8))

    def synchronise(self) -> None:
        self._side.synchronize()

    def capability(self) -> str:
        return ".".join(map(str, self._torch.cuda.get_device_capability()))

    def gpu(self) -> str:
        found = self._torch.cuda.get_device_properties(0)
        return f"{found.name}, {found.multi_processor_count} SMs"
