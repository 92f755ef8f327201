"""What TensorRT-RTX makes of the graphs for a Jetson: it parses and builds without a GPU."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from splitrun.bundle import Bundle
from splitrun.errors import BundleError
from splitrun.tensorrt.builder import build
from splitzoo.export.tensorrt_operators import check_supported


@dataclass(frozen=True)
class Built:
    """A graph that was given to TensorRT-RTX.

    Attributes:
        graph: Its name in the bundle.
        reason: Why nothing was built of it; empty where it was.
    """

    graph: str
    reason: str = ""


def rtx_version() -> str:
    """Return the version of TensorRT-RTX; empty where it cannot be imported."""
    module = _find()
    return str(module.__version__) if module else ""


def build_graphs(bundle: Bundle, names: Sequence[str] = ()) -> tuple[Built, ...]:
    """Have engines built of a bundle's ONNX files; they are not kept.

    Args:
        bundle: For one image at a time.
        names: Of graphs; by default, all.

    Returns:
        One for each graph; none where TensorRT-RTX cannot be imported.
    """
    module = _find()
    if module is None:
        return ()
    built = []
    for name in names or bundle.graphs:
        path = bundle.path(bundle.graphs[name].file)
        try:
            build(module, path)
            # Those of the edge were written for ONNX Runtime, and not checked yet.
            check_supported(path)
        except BundleError as error:
            built.append(Built(name, error.message))
        else:
            built.append(Built(name))
    return tuple(built)


def _find() -> ModuleType | None:
    try:
        return importlib.import_module("tensorrt_rtx")
    except (ImportError, OSError, RuntimeError):
        return None
