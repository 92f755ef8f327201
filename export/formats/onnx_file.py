"""ONNX files, for ONNX Runtime."""

import tempfile
from pathlib import Path

from ..onnx_graph import check_onnx, write_onnx
from ..precision.integers import Integers
from .base import Source

OPSET = 20
"""The newest opset that TensorRT 10.1's parser documents too, so one file serves both."""


class OnnxFormat:
    """One ONNX file with all weights, for ONNX Runtime's CPU provider."""

    engine = "onnxruntime"
    suffix = ".onnx"
    requirements: tuple[str, ...] = ("onnxruntime",)
    packages: tuple[str, ...] = ("onnx", "onnxscript", "onnxruntime")
    extra = ""
    integers = Integers(unsigned=True)

    def write(self, source: Source, path: Path) -> None:
        """Write the graph, in the precision that is wanted."""
        with tempfile.TemporaryDirectory() as folder:
            first = Path(folder) / path.name if source.lower else path
            write_onnx(
                source.module,
                source.examples,
                first,
                input_names=source.input_names,
                output_names=source.output_names,
                dynamic_batch=source.dynamic_batch,
                opset=OPSET,
            )
            if source.lower:
                source.lower(first, path, self.integers)
                check_onnx(path)

    def check(self, path: Path) -> None:
        """Check the file with onnx, and that its output hangs on its input."""
        check_onnx(path)
