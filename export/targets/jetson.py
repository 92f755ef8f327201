"""An NVIDIA Jetson: TensorRT builds its engine on the board, of the ONNX files in the bundle."""

from ..formats.onnx_file import OnnxFormat
from ..formats.tensorrt_onnx import TensorRTFormat
from ..jetson_files import build_here, complete, readme
from .base import Target

JETSON = Target(
    name="jetson",
    description="typed ONNX and a build script for TensorRT 10.3 to 11 on a Jetson",
    device=TensorRTFormat(),
    edges=(OnnxFormat(), TensorRTFormat()),
    precisions=("fp32", "fp16", "int8"),
    note="Parsed and checked here, not executed on a Jetson. On the board: python build_engine.py",
    complete=complete,
    readme=readme,
    finish=build_here,
)
