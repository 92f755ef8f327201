"""LiteRT's files, formerly TensorFlow Lite's, on the CPU."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import BundleError
from .base import Session, not_importable


class LiteRtSession(Session):
    """A ``.tflite`` file, whose tensors have the names and shapes of the manifest.

    Attributes:
        inputs: Description of each input by name.
        outputs: Description of each output by name.
    """

    def __init__(self, path: Path, threads: int = 0, hint: str = "") -> None:
        try:
            from ai_edge_litert import interpreter
        except ImportError as error:
            raise not_importable("LiteRT", "ai-edge-litert", error) from error
        self.version = f"litert {version('ai-edge-litert')}"
        try:
            made: Any = interpreter.Interpreter(str(path), num_threads=threads or None)
            made.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise BundleError(f"LiteRT cannot load {path}: {error}") from error
        self._interpreter = made
        self.inputs = {str(one["name"]): one for one in made.get_input_details()}
        self.outputs = {str(one["name"]): one for one in made.get_output_details()}

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Compute all outputs of the graph."""
        try:
            for name, array in inputs.items():
                self._interpreter.set_tensor(self.inputs[name]["index"], array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(self.outputs[name]["index"]) for name in outputs]
        except (ValueError, RuntimeError, KeyError) as error:
            raise BundleError(f"LiteRT failed: {error}") from error
