"""A computer with PyTorch: exported programs, or libraries compiled of them."""

from ..formats.torch_files import AotInductorFormat, ExportedFormat
from .base import Target

TORCH = Target(
    name="torch",
    description="torch.export programs, with --aot compiled by AOTInductor",
    device=ExportedFormat(),
    edges=(ExportedFormat(),),
    aot=AotInductorFormat(),
)
