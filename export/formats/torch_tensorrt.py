"""Torch-TensorRT: exported programs with TensorRT engines inside."""

import importlib
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from splitrun.errors import BundleError, DependencyError

from .base import Source
from .torch_files import ExportedFormat, exported


class TorchTensorRTFormat(ExportedFormat):
    """A ``.pt2`` file for the kind of NVIDIA GPU that it was compiled on.

    Its authors have not executed it: that takes a GPU.
    """

    engine = "torch-tensorrt"
    packages = ("torch", "torch_tensorrt")
    extra = "torch-tensorrt"

    @property
    def requirements(self) -> tuple[str, ...]:
        """This release of Torch-TensorRT only, which brings its own PyTorch."""
        release = ".".join(version("torch-tensorrt").split(".")[:2])
        return (f"torch-tensorrt=={release}.*",)

    def write(self, source: Source, path: Path) -> None:
        """Export the graph, compile it on this machine's GPU, and save it with its engines.

        Raises:
            DependencyError: There is no GPU, or no driver for it.
        """
        import torch

        try:
            torch_tensorrt: Any = importlib.import_module("torch_tensorrt")
        except (ImportError, OSError, RuntimeError) as error:
            # It raises RuntimeError where there is no driver.
            raise DependencyError(
                f"Torch-TensorRT cannot be imported: {error}",
                next_step="It needs an NVIDIA GPU and its driver. For a Jetson: --target jetson",
            ) from error
        if not torch.cuda.is_available():
            raise DependencyError("Torch-TensorRT compiles on a GPU, and there is none here.")
        source = replace(source, examples=[example.cuda() for example in source.examples])
        inputs = [
            torch_tensorrt.Input(
                min_shape=(1, *example.shape[1:]),
                opt_shape=(1, *example.shape[1:]),
                max_shape=(16, *example.shape[1:]),
                dtype=example.dtype,
            )
            if source.dynamic_batch
            else example
            for example in source.examples
        ]
        source.module.cuda()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compiled = torch_tensorrt.dynamo.compile(
                    exported(source),
                    arg_inputs=inputs,
                    # TF32 keeps ten bits of each factor: one symbol in a hundred would differ.
                    disable_tf32=True,
                )
                torch_tensorrt.save(
                    compiled, str(path), output_format="exported_program", arg_inputs=inputs
                )
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            raise BundleError(f"Torch-TensorRT cannot compile {path.name}: {error}") from error
        finally:
            source.module.cpu()
