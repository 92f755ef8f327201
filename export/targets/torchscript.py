"""A computer with PyTorch, and programs that still load TorchScript."""

from ..formats.torch_files import TorchScriptFormat
from .base import Target

TORCHSCRIPT = Target(
    name="torchscript",
    description="traced and frozen TorchScript, for PyTorch",
    device=TorchScriptFormat(),
    edges=(TorchScriptFormat(),),
    note="PyTorch deprecates TorchScript: it still loads and runs these files, but will not "
    "improve, and may drop it. The same model without it: --target torch.",
)
