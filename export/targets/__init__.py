"""Where a half can run. Adding a target is one file here and one line below."""

from ...registry import Registry
from .base import Target
from .cpu import CpuTarget

TARGETS: Registry[Target] = Registry("target", next_step="See: splitzoo export split --help")
TARGETS.register(CpuTarget.name, CpuTarget())

__all__ = ["TARGETS", "Target"]
