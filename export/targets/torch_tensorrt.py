"""A workstation or server with an NVIDIA GPU, PyTorch and Torch-TensorRT."""

from ..formats.torch_files import ExportedFormat
from ..formats.torch_tensorrt import TorchTensorRTFormat
from .base import Target

TORCH_TENSORRT = Target(
    name="torch-tensorrt",
    description="torch.export programs with TensorRT engines, for this machine's NVIDIA GPU",
    device=TorchTensorRTFormat(),
    edges=(TorchTensorRTFormat(), ExportedFormat()),
    note="The engines run on this kind of GPU, with this TensorRT, alone.",
)
