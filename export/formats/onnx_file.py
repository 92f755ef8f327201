"""ONNX files: for ONNX Runtime, and for TensorRT to build its engines from on the board."""

import tempfile
from pathlib import Path

from splitrun.engines import check_graph

from ..onnx_graph import check_onnx, write_onnx
from ..tensorrt_operators import check_supported
from .base import Format, Integers, Source

OPSET = 20
"""The newest opset that TensorRT 10.1's parser documents too, so one file serves both."""


class OnnxFormat(Format):
    """One ONNX file with all weights, for ONNX Runtime's CPU provider."""

    engine = "onnxruntime"
    suffix = ".onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    edge_precisions = ("fp32", "int8", "fp16-weights", "int8-weights")
    integers = Integers(unsigned=True)
    # Of eight bits, ONNX Runtime computes exactly at less than half the speed; what the edge
    # computes is not rounded to symbols.
    edge_integers = Integers(unsigned=True, weight_bits=7)

    @property
    def requirements(self) -> tuple[str, ...]:
        """ONNX Runtime, of any release."""
        return ("onnxruntime",)

    def write(self, source: Source, path: Path) -> Path | None:
        """Write the graph in the wanted precision, and check it."""
        with tempfile.TemporaryDirectory() as folder:
            fp32 = Path(folder) / path.name if source.lower else path
            write_onnx(
                source.module,
                source.examples,
                fp32,
                input_names=source.input_names,
                output_names=source.output_names,
                dynamic_batch=source.dynamic_batch,
                opset=OPSET,
            )
            if source.lower:
                integers = self.edge_integers if source.on_edge else self.integers
                source.lower(fp32, path, integers)
        self.check(path)
        check_graph(self.engine, path, None)

    def check(self, path: Path) -> None:
        """Check the file with onnx, and that its output depends on its input."""
        check_onnx(path)


class TensorRTFormat(OnnxFormat):
    """One typed ONNX file, of operators and types that TensorRT's parser documents."""

    engine = "tensorrt"
    edge_precisions = ("fp32", "fp16", "int8")
    integers = edge_integers = Integers()

    @property
    def requirements(self) -> tuple[str, ...]:
        """CUDA's bindings; TensorRT itself comes with JetPack.

        JetPack 6 has Python 3.10 and CUDA 12, JetPack 7 has Python 3.12 and CUDA 13.
        """
        return (
            'cuda-python>=12.6,<13; python_version < "3.12"',
            'cuda-python>=13; python_version >= "3.12"',
        )

    def check(self, path: Path) -> None:
        """Check the file with onnx, and against the operators that TensorRT documents."""
        super().check(path)
        check_supported(path)
