"""Describe this machine, for measurements and records."""

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_INSTRUCTIONS = {
    **{"avx2": "AVX2", "avx512f": "AVX-512", "avx_vnni": "VNNI", "avx512_vnni": "VNNI"},
    **{"avx512_bf16": "BF16", "amx_int8": "AMX", "asimd": "NEON", "asimddp": "dot product"},
    **{"i8mm": "I8MM", "bf16": "BF16", "sve": "SVE"},
}
"""Instructions that make networks fast, by the kernel's names for them, on x86 and Arm."""


def machine() -> dict[str, str]:
    """Return the processor, its cores and instructions for networks, the system and Python."""
    cpu, flags = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = (line.partition(":") for line in info.read_text(errors="replace").splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        # x86 has "model name"; Arm boards name the board under "Model" or "Hardware".
        cpu = fields.get("model name") or fields.get("Model") or fields.get("Hardware") or cpu
        flags = fields.get("flags") or fields.get("Features") or ""
    names = (name for flag, name in _INSTRUCTIONS.items() if flag in flags.split())
    return {
        "cpu": cpu,
        "cores": str(cores()),
        "instructions": ", ".join(dict.fromkeys(names)),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def short_name(environment: Mapping[str, str]) -> str:
    """Return processor and instructions from :func:`machine`, for the name of a file."""
    words = f"{environment['cpu']} {environment['instructions']}".lower()
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages, by the names that pip gives them."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
