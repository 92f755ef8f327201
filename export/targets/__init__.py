"""Where the halves can run. Adding a target is one file here and one line below."""

from splitrun.registry import Registry

from .base import Target
from .cpu import CPU
from .jetson import JETSON
from .openvino import OPENVINO
from .raspberrypi import RASPBERRY_PI
from .torch import TORCH
from .torch_tensorrt import TORCH_TENSORRT
from .torchscript import TORCHSCRIPT

TARGETS: Registry[Target] = Registry("target", next_step="See: splitzoo export targets")
for _target in (CPU, RASPBERRY_PI, JETSON, OPENVINO, TORCHSCRIPT, TORCH, TORCH_TENSORRT):
    TARGETS.register(_target.name, _target)

__all__ = ["TARGETS", "Target"]
