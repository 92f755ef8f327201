"""A computer with OpenVINO: Intel's and AMD's x86 processors."""

from ..formats.onnx_file import OnnxFormat
from ..formats.openvino_ir import OpenVinoFormat
from .base import Target

OPENVINO = Target(
    name="openvino",
    description="OpenVINO's IR on x86 processors",
    device=OpenVinoFormat(),
    edges=(OpenVinoFormat(), OnnxFormat()),
    precisions=("fp32", "bf16", "int8"),
    # The file is fp32's; OpenVINO computes it in bf16, on processors that have that.
    hints={"bf16": "bf16"},
)
