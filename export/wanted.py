"""What was asked of an export, and whether a model and a target can have it."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError, CalibrationError
from ..zoo.spec import ModelSpec
from ..zoo.split_model import SplitModel
from .lowering import KEPT, Keep
from .targets import TARGETS

_WITH_SCALES = ("scale-hyperprior", "mean-scale-hyperprior", "neural-input-codec")
"""Bottlenecks whose device graph may compute scale indexes."""


@dataclass(frozen=True)
class Wanted:
    """What :func:`splitzoo.export.export_split` was asked for; see there."""

    target: str
    precision: str
    edge: str | None = None
    aot: bool = False
    dynamic_batch: bool = False
    calibration: Path | None = None
    keep_tables: bool = False
    keep_fp32: tuple[Keep, ...] = KEPT
    accept: bool = False

    def refuse_impossible(self, spec: ModelSpec) -> None:
        """Refuse what the target or the model cannot have, before anything is loaded.

        Raises:
            UnknownNameError: The target has no such precision.
            BundleError: The model cannot have this precision, or graphs for any number of images.
            CalibrationError: int8 is given no photographs.
        """
        target = TARGETS.get(self.target)
        target.refuse_precision(self.precision)
        if self.dynamic_batch and spec.task == "object-detection":
            raise BundleError(
                f"The second stage of {spec.name}, a detector, takes one image.",
                next_step="Leave --dynamic-batch out.",
            )
        if self.precision == "int8" and self.calibration is None:
            raise CalibrationError(
                "int8 takes its ranges from photographs, and none were given.",
                next_step="Give some hundred like those that the camera will see: "
                "--calibration DIR",
            )
        if self.precision in target.hints and spec.bottleneck.kind in _WITH_SCALES:
            others = (one for one in target.precisions if one not in target.hints)
            raise BundleError(
                f"{spec.name} cannot be computed in {self.precision}: device and edge must compute "
                "the same scale indexes, and the engine would round all of the device's.",
                next_step=f"Possible: --precision {' or --precision '.join(others)}",
            )

    def command(self, model: SplitModel) -> str:
        """Return the command line that makes the bundle again."""
        target = TARGETS.get(self.target)
        words = ["splitzoo", "export", "split", model.source, "--target", self.target]
        words += ["--precision", self.precision] * (self.precision != target.precisions[0])
        words += [] if self.edge is None else ["--edge", self.edge]
        for flag in ("aot", "dynamic_batch", "keep_tables", "accept"):
            words += [f"--{flag.replace('_', '-')}"] * getattr(self, flag)
        # Of another machine's folder, the last name says enough.
        words += [] if self.calibration is None else ["--calibration", self.calibration.name]
        if self.precision == "int8" and self.keep_fp32 != KEPT:
            for one in self.keep_fp32 or ("nothing",):
                words += ["--keep-fp32", one]
        seed = model.random_seed
        words += [] if seed is None else ["--random-weights", "--seed", str(seed)]
        return shlex.join(words)
