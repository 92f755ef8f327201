"""LiteRT's files, formerly TensorFlow Lite's, by way of ONNX."""

import json
import tempfile
from pathlib import Path

from splitrun.engines.litert_runtime import LiteRtSession
from splitrun.errors import BundleError

from ..environments import Environment
from .base import Format, Source
from .onnx_file import OnnxFormat

_IDENTIFIER = b"TFL3"
_CONVERTER = Environment(
    "litert",
    ("onnx2tf==2.6.9", "ai-edge-litert==2.1.2", "ai-edge-quantizer==0.5.1"),
    python=(3, 12),
)


class LiteRtFormat(Format):
    """A ``.tflite`` file of the shapes that the graph has, not turned to (N, H, W, C)."""

    engine = "litert"
    suffix = ".tflite"
    packages = (*OnnxFormat.packages, "ai_edge_litert")
    extra = "litert"
    any_batch = False
    environment = _CONVERTER

    @property
    def requirements(self) -> tuple[str, ...]:
        """LiteRT, of a release from 2 on."""
        return ("ai-edge-litert>=2",)

    def write(self, source: Source, path: Path) -> None:
        """Write ONNX, let onnx2tf convert it, and ai-edge-quantizer quantise what int8 takes."""
        with tempfile.TemporaryDirectory() as folder:
            onnx, ranges = Path(folder) / f"{path.stem}.onnx", Path(folder) / "ranges.npz"
            OnnxFormat().write(source.in_fp32, onnx)
            words = [str(onnx), str(path)]
            if source.precision == "int8" and source.choose_int8:
                words += [str(ranges), json.dumps(source.choose_int8(onnx, ranges))]
            _CONVERTER.run("onnx_to_tflite", *words)
        self.check(path)
        _check_tensors(source, path)

    def check(self, path: Path) -> None:
        """Check that the file says that it is one of LiteRT's."""
        with path.open("rb") as file:
            if file.read(8)[4:] != _IDENTIFIER:
                raise BundleError(f"{path} is not a file of LiteRT.")


def _check_tensors(source: Source, path: Path) -> None:
    """Refuse what the converter has dropped, renamed or turned."""
    session = LiteRtSession(path)
    for name in source.output_names:
        if name not in session.outputs:
            raise BundleError(f"onnx2tf dropped the output {name} of {path.stem}.")
    for name, example in zip(source.input_names, source.examples, strict=True):
        found = session.inputs.get(name, {"shape": ()})["shape"]
        if tuple(found) != tuple(example.shape):
            raise BundleError(
                f"onnx2tf changed the input {name} of {path.stem} from {tuple(example.shape)} to "
                f"{tuple(map(int, found))}."
            )
