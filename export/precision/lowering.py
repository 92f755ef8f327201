"""The step that takes one of a model's graphs below fp32."""

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splitrun.signals import check_stopped

from ..formats.base import Integers, Lower
from ..options import Keep

MOST_IMAGES = 128
"""Images that ranges are taken from; more change them little, and take as much longer."""

Inputs = Iterator[Mapping[str, NDArray[Any]]]
"""Inputs of a graph by name, for one image after another."""


class Lowering:
    """Writes an fp32 ONNX graph again in another precision.

    Args:
        precision: Precision of the graph.
        inputs: Function that gives the graph's inputs for the images that int8 takes its ranges
            from; of more than 128, the first.
        keep: Parts that int8 leaves in fp32.

    Attributes:
        kept: Names of the nodes that were left in fp32; filled by writing.
        calibrated: Number of images that int8 took its ranges from; counted by writing.
    """

    def __init__(
        self,
        precision: str = "fp32",
        inputs: Callable[[], Inputs] = lambda: iter(()),
        keep: Collection[Keep] = (),
    ) -> None:
        self.precision, self._inputs_of, self._keep = precision, inputs, keep
        self.kept: list[str] = []
        self.calibrated = 0

    @property
    def lower(self) -> Lower | None:
        """The step; None where the file stays as it is: the engine computes bf16 by itself."""
        return {
            "fp16": self._to_fp16,
            "int8": self._to_int8,
            "fp16-weights": self._lower_weights,
            "int8-weights": self._lower_weights,
        }.get(self.precision)

    def _to_fp16(self, source: Path, target: Path, _integers: Integers) -> None:
        from .fp16 import to_fp16

        to_fp16(source, target)

    def _to_int8(self, source: Path, target: Path, integers: Integers) -> None:
        from .int8 import to_int8

        lowered = to_int8(source, target, self._inputs(), keep=self._keep, integers=integers)
        self.kept = list(lowered.kept)

    def _lower_weights(self, source: Path, target: Path, _integers: Integers) -> None:
        from .weights import lower_weights

        lower_weights(source, target, "fp16" if self.precision == "fp16-weights" else "int8")

    def choose_int8(self, source: Path, ranges: Path) -> list[str]:
        """Return the nodes of an fp32 ONNX file that int8 takes, and write the inputs to a file.

        The file holds an array (images, …) of each input, by its name.
        """
        from .int8 import choose_convolutions
        from .node_roles import read_named

        lowered = choose_convolutions(read_named(source), self._keep)
        self.kept = list(lowered.kept)
        found = list(self._inputs())
        np.savez(
            ranges, **{name: np.concatenate([one[name] for one in found]) for name in found[0]}
        )
        return list(lowered.nodes)

    def _inputs(self) -> Inputs:
        for inputs in islice(self._inputs_of(), MOST_IMAGES):
            check_stopped()
            self.calibrated += 1
            yield inputs
