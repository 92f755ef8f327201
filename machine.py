"""What machine this is, for measurements and records. Travels inside bundles."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine() -> dict[str, str]:
    """Name the processor, its cores, the system and Python."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        pairs = (line.partition(":") for line in info.read_text(errors="replace").splitlines())
        fields = {name.strip(): value.strip() for name, _, value in pairs}
        # x86 has "model name"; Arm boards name the board under "Model" or "Hardware".
        cpu = fields.get("model name") or fields.get("Model") or fields.get("Hardware") or cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": cpu,
        "cores": str(cores),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of packages, by the names that pip gives them."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
