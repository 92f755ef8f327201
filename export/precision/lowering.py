"""The step that takes a model's device graph below fp32."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitrun.preprocessing import Preprocessing
from splitrun.signals import check_stopped

from ..formats.base import Integers, Lower
from ..options import ExportOptions

_MOST_IMAGES = 128
"""Images that ranges are taken from; more change them little, and take as much longer."""


class Lowering:
    """Writes an fp32 ONNX device graph again in another precision.

    Args:
        options: Options with the precision, and with the parts that int8 leaves in fp32.
        preprocessing: Preprocessing of the model.
        images: Images that int8 takes its ranges from.

    Attributes:
        kept: Names of the nodes that were left in fp32; filled by writing.
        calibrated: Number of images that int8 took its ranges from; counted by writing.
    """

    def __init__(
        self, options: ExportOptions, preprocessing: Preprocessing, images: Sequence[Path]
    ) -> None:
        self._options, self._preprocessing, self._images = options, preprocessing, images
        self.kept: list[str] = []
        self.calibrated = 0

    @property
    def lower(self) -> Lower | None:
        """The step; None where the file stays as it is: the engine computes bf16 by itself."""
        return {"fp16": self._to_fp16, "int8": self._to_int8}.get(self._options.precision)

    def _to_fp16(self, source: Path, target: Path, _integers: Integers) -> None:
        from .fp16 import to_fp16

        to_fp16(source, target)

    def _to_int8(self, source: Path, target: Path, integers: Integers) -> None:
        from .int8 import to_int8

        lowered = to_int8(
            source, target, self._inputs(), keep=self._options.keep_fp32, integers=integers
        )
        self.kept = list(lowered.kept)

    def choose_int8(self, source: Path, ranges: Path) -> list[str]:
        """Return the nodes of an fp32 ONNX file that int8 takes, and write the images to a file.

        The file holds an array (images, 3, height, width) float32, ``image``.
        """
        from .int8 import choose_convolutions
        from .node_roles import read_named

        lowered = choose_convolutions(read_named(source), self._options.keep_fp32)
        self.kept = list(lowered.kept)
        images = [inputs["image"] for inputs in self._inputs()]
        np.savez(ranges, image=np.concatenate(images))
        return list(lowered.nodes)

    def _inputs(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        for path in self._images[:_MOST_IMAGES]:
            check_stopped()
            self.calibrated += 1
            yield {"image": self._preprocessing.load(path)}
