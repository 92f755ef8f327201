"""From a model and images to the step that takes its device graph below fp32."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from splitrun.signals import check_stopped

from ..zoo.split_model import SplitModel
from .formats.base import Lower
from .precision.integers import Integers
from .precision.keep import KEPT, Keep

if TYPE_CHECKING:
    from .precision.report import CalibrationImages

__all__ = ["KEPT", "Keep", "Lowering"]

_MOST_CALIBRATED = 128
"""CalibrationImages whose ranges are taken; more change them little, and take as much longer."""


class Lowering:
    """Writes an fp32 ONNX device graph again in another precision.

    Args:
        model: Whose graph it is.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        keep: Parts that int8 leaves in fp32.
        images: For int8, whose ranges are taken.

    Attributes:
        kept: Names of the nodes that were left in fp32; filled by writing.
    """

    def __init__(
        self,
        model: SplitModel,
        precision: str,
        keep: tuple[Keep, ...],
        images: "CalibrationImages | None",
    ) -> None:
        self._preprocessing = model.spec.preprocessing
        self._precision, self._keep, self._images = precision, keep, images
        self.kept: list[str] = []

    @property
    def lower(self) -> Lower | None:
        """The step, or None where the graph stays as it is: bf16 is up to the engine."""
        return {"fp16": self._to_half, "int8": self._to_int8}.get(self._precision)

    def _to_half(self, source: Path, target: Path, _integers: Integers) -> None:
        from .precision.fp16 import to_half

        to_half(source, target)

    def _to_int8(self, source: Path, target: Path, integers: Integers) -> None:
        from .precision.int8 import quantise

        done = quantise(source, target, self._inputs(), keep=self._keep, integers=integers)
        self.kept = list(done.kept)

    def _inputs(self) -> Iterator[Mapping[str, NDArray[Any]]]:
        assert self._images is not None  # as ExportOptions sees to
        for path in self._images.fitted[:_MOST_CALIBRATED]:
            check_stopped()
            yield {"image": self._preprocessing.load(path)}
