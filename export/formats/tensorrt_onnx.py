"""ONNX files that TensorRT builds an engine of, on the board that is to run it."""

from pathlib import Path

from ..precision.integers import SYMMETRIC
from ..tensorrt_operators import check_supported
from .base import Source
from .onnx_file import OnnxFormat


class TensorRTFormat(OnnxFormat):
    """One typed ONNX file, of operators and types that TensorRT's parser documents."""

    engine = "tensorrt"
    integers = SYMMETRIC
    # TensorRT itself comes with JetPack. JetPack 6 has Python 3.10 and CUDA 12, JetPack 7 has
    # Python 3.12 and CUDA 13.
    requirements = (
        'cuda-python>=12.6,<13; python_version < "3.12"',
        'cuda-python>=13; python_version >= "3.12"',
    )

    def write(self, source: Source, path: Path) -> None:
        """Write the graph, in the precision that is wanted.

        Raises:
            BundleError: TensorRT documents no support for one of its operators or types.
        """
        super().write(source, path)
        check_supported(path)

    def check(self, path: Path) -> None:
        """Check the file with onnx and against the operators that TensorRT documents."""
        super().check(path)
        check_supported(path)
