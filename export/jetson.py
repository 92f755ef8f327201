"""The Jetson: its build script, its part of the bundle's page, and building here with a GPU."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from splitrun.errors import BundleError, DependencyError

if TYPE_CHECKING:
    from splitrun.manifest import GraphInfo, Manifest

    from ..progress import Progress

BUILD_SCRIPT = '''"""Build this bundle's TensorRT engines on the board that is to run them.

    python build_engine.py [--workspace-mib N] [--force] [--json]

Needs TensorRT, which comes with JetPack, and what requirements.txt names. It compares what the
engines compute with what was recorded, times them, and writes engines/engine.json.
"""

import sys
from pathlib import Path

BUNDLE = Path(__file__).resolve().parent
sys.path.insert(0, str(BUNDLE))
# The manifest names every file, and Python's caches are not among them.
sys.dont_write_bytecode = True

try:
    from splitrun.tensorrt.board import main
    from splitrun.signals import run_stoppable
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is not installed.\\n"
        "On the Jetson, in this folder: pip install -r requirements.txt (TensorRT is JetPack's)"
    )

sys.exit(run_stoppable(lambda: main(BUNDLE)))
'''


def build_here(folder: Path, progress: "Progress") -> None:
    """Build and check a bundle's engines, where this machine has TensorRT and a GPU.

    Raises:
        BundleError: TensorRT cannot build a graph.
        ParityError: An engine does not compute what was recorded.
    """
    from splitrun.bundle import open_bundle
    from splitrun.tensorrt.board import build_bundle
    from splitrun.tensorrt.cuda import open_cuda
    from splitrun.tensorrt.library import import_tensorrt

    bundle = open_bundle(folder)
    if all(graph.engine != "tensorrt" for graph in bundle.graphs.values()):
        return
    try:
        import_tensorrt()
        open_cuda()
    except (BundleError, DependencyError):
        return  # the board will build them
    build_bundle(bundle, say=progress.step)


def trtexec(graph: "GraphInfo", version: int) -> str:
    """Return the ``trtexec`` line that builds a graph's engine, for TensorRT 10 or 11.

    From 11 on, every network is strongly typed, and the option for it is deprecated.
    """
    words = ["trtexec", f"--onnx={graph.file}"]
    words += ["--stronglyTyped"] * (version < 11) + ["--noTF32"]
    open_inputs = [tensor for tensor in graph.inputs if tensor.shape[0] == -1]
    for bound, batch in (("min", 1), ("opt", 1), ("max", 16)) if open_inputs else ():
        sizes = (
            f"{tensor.name}:{'x'.join(map(str, (batch, *tensor.shape[1:])))}"
            for tensor in open_inputs
        )
        words.append(f"--{bound}Shapes={','.join(sizes)}")
    words += [f"--saveEngine=engines/trtexec-{Path(graph.file).stem}.plan"]
    return shlex.join([*words, "--skipInference"])


def page(manifest: "Manifest") -> str:
    """Return what a bundle's page and a card say of the Jetson, as Markdown."""
    built = [graph for graph in manifest.graphs.values() if graph.engine == "tensorrt"]
    lines = [
        "## On the Jetson",
        "",
        "The graphs were checked with ONNX Runtime and against the operators that TensorRT "
        "documents; **not executed on a Jetson**. There, with JetPack's TensorRT (10.3 or later):",
        "",
        "```",
        "python build_engine.py      # builds, compares symbols, times, writes engines/engine.json",
        "```",
        "",
        "An engine runs only with the TensorRT and on the GPU that built it. `splitrun` runs those "
        "of `build_engine.py`; to look at one, `trtexec` builds it too:",
        "",
        "```",
    ]
    for version in (10, 11):
        lines.append(f"mkdir -p engines  # TensorRT {version}")
        lines += [trtexec(graph, version) for graph in built]
    return "\n".join([*lines, "```", ""])
