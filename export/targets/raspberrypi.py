"""A Raspberry Pi with a 64-bit system: four cores, and the wheels that exist for aarch64."""

from ..formats.onnx_file import OnnxFormat
from .base import Target

RASPBERRY_PI = Target(
    name="raspberrypi",
    description="ONNX for ONNX Runtime on the four cores of a Raspberry Pi",
    device=OnnxFormat(),
    precisions=("fp32", "int8"),
    threads=4,
    note="Not executed on a Raspberry Pi: python -m splitrun selftest there says whether it holds.",
)
