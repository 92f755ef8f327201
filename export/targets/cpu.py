"""A computer with ONNX Runtime: x86 or Arm, Linux, macOS or Windows."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..onnx_graph import check_onnx, write_onnx

if TYPE_CHECKING:
    from torch import Tensor, nn

OPSET = 20
"""The newest opset that TensorRT 10.1's parser documents too, so one file serves both."""


class CpuTarget:
    """ONNX files, run by ONNX Runtime's CPU provider in fp32."""

    name = "cpu"
    description = "ONNX for ONNX Runtime on any CPU, fp32"
    engine = "onnxruntime"
    suffix = ".onnx"
    requirements = ("onnxruntime",)

    def available(self) -> str:
        """Return which package is missing, or an empty string."""
        missing = [
            package
            for package in ("onnx", "onnxscript", "onnxruntime")
            if importlib.util.find_spec(package) is None
        ]
        return f"not installed: {', '.join(missing)}" if missing else ""

    def export(
        self,
        graph: "nn.Module",
        examples: "Sequence[Tensor]",
        path: Path,
        *,
        input_names: Sequence[str],
        output_names: Sequence[str],
        dynamic_batch: bool,
    ) -> None:
        """Write the graph as one ONNX file of opset 20."""
        write_onnx(
            graph,
            examples,
            path,
            input_names=input_names,
            output_names=output_names,
            dynamic_batch=dynamic_batch,
            opset=OPSET,
        )

    def check(self, path: Path) -> None:
        """Check the file with onnx, and that its output hangs on its input."""
        check_onnx(path)
