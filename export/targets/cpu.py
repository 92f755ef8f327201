"""A computer with ONNX Runtime: x86 or Arm, Linux, macOS or Windows."""

from ..formats.onnx_file import OnnxFormat
from .base import Target

CPU = Target(
    name="cpu",
    description="ONNX for ONNX Runtime on any CPU",
    device=OnnxFormat(),
    precisions=("fp32", "int8"),
)
