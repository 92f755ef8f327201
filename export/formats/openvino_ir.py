"""OpenVINO's intermediate representation (IR)."""

import re
import tempfile
from pathlib import Path
from types import MappingProxyType

from splitrun.engines import check_graph
from splitrun.engines.openvino_runtime import import_openvino, openvino_core
from splitrun.errors import BundleError
from splitrun.openvino_file import read_layers

from .base import Format, Integers, Source
from .onnx_file import OnnxFormat


class _SevenBitOnnx(OnnxFormat):
    integers = edge_integers = Integers(weight_bits=7)


class OpenVinoFormat(Format):
    """An ``.xml`` file with the graph, and beside it a ``.bin`` file with the weights."""

    engine = "openvino"
    suffix = ".xml"
    packages = (*OnnxFormat.packages, "openvino")
    extra = "openvino"
    edge_precisions = ("fp32", "bf16", "int8", "fp16-weights", "int8-weights")
    # The file is fp32's; OpenVINO computes it in bf16 on processors that have bf16.
    hints = MappingProxyType({"bf16": "bf16"})

    @property
    def requirements(self) -> tuple[str, ...]:
        """OpenVINO, of any release."""
        return ("openvino",)

    def write(self, source: Source, path: Path) -> Path:
        """Write the graph by way of ONNX, so that its precision is the same as on other targets."""
        openvino = import_openvino()
        with tempfile.TemporaryDirectory() as folder:
            onnx = Path(folder) / "graph.onnx"
            _SevenBitOnnx().write(source, onnx)
            try:
                model = openvino_core().read_model(onnx)
                # By default it would store weights as fp16.
                openvino.save_model(model, path, compress_to_fp16=False)
            except RuntimeError as error:
                raise BundleError(f"OpenVINO cannot convert {path.stem}: {error}") from error
        # Its notes on the conversion name folders of the exporting machine.
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"\s*<rt_info>.*?</rt_info>", "", text, flags=re.DOTALL), "utf-8")
        self.check(path)
        weights = path.with_suffix(".bin")
        check_graph(self.engine, path, weights)
        return weights

    def check(self, path: Path) -> None:
        """Check that the file says that it is a graph with an input and an output."""
        try:
            read_layers(path)
        except ValueError as error:
            raise BundleError(f"{path}: {error}.") from error
