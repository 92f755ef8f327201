"""The key of a TensorRT engine: it runs where all of this is the same, and nowhere else."""

import contextlib
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import BundleError

BUILD = "python build_engine.py"
_RELEASE = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class EngineKey:
    """The place where an engine was built, and its source.

    Attributes:
        tensorrt: Version of TensorRT.
        capability: Compute capability of the GPU, such as ``"8.7"``.
        gpu: Name of the GPU and its processors: boards of one capability differ in both.
        jetpack: Version of JetPack or of L4T, or empty on other machines.
        onnx_sha256: Digest of the file that it was built of.
    """

    tensorrt: str
    capability: str
    gpu: str
    jetpack: str
    onnx_sha256: str

    def check_same(self, other: "EngineKey", name: str) -> None:
        """Raise ``BundleError`` for an engine of another key: it says what differs."""
        mine, its = asdict(self), asdict(other)
        differing = [
            f"{field.replace('_', ' ')} {its[field] or 'none'} (here {mine[field] or 'none'})"
            for field in mine
            if mine[field] != its[field]
        ]
        if differing:
            raise BundleError(
                f"The engine of {name} was built for another place: {', '.join(differing)}.",
                next_step=f"Build it here: {BUILD}",
            )


def jetpack_version(release: Path = _RELEASE) -> str:
    """Return the version of L4T, which a container sees too, or else JetPack's, or nothing."""
    with contextlib.suppress(OSError):
        if found := l4t_version(release.read_text(errors="replace")):
            return found
    found = output_of("dpkg-query", "--showformat=${Version}", "--show", "nvidia-jetpack")
    return f"JetPack {found}" if found else ""


def output_of(*words: str) -> str:
    """Return what a program prints, on one line; nothing where it is missing or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else " ".join(done.stdout.split())


def l4t_version(text: str) -> str:
    """Read the version of L4T from what ``/etc/nv_tegra_release`` holds, or return nothing.

    >>> l4t_version("# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic")
    'L4T 36.4.3'
    """
    found = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    return f"L4T {found.group(1)}.{found.group(2)}" if found else ""
