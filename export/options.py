"""What was asked of an export, and whether a model and a target can have it."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from splitrun.errors import BundleError, CalibrationError

from ..zoo.spec import ModelSpec
from ..zoo.split_model import SplitModel
from .lowering import KEPT, Keep
from .targets import TARGETS


def has_hyperprior(spec: ModelSpec) -> bool:
    """Say whether both sides compute the scales of y, which must then be the same."""
    kind = spec.bottleneck.kind
    architecture = getattr(spec.bottleneck, "architecture", "")
    return "hyperprior" in kind or (
        kind == "neural-input-codec" and architecture != "bmshj2018-factorized"
    )


@dataclass(frozen=True)
class ExportOptions:
    """What :func:`splitzoo.export.split` was asked for; see there."""

    target: str
    precision: str
    edge: str | None = None
    aot: bool = False
    dynamic_batch: bool = False
    calibration: Path | None = None
    keep_tables: bool = False
    keep_fp32: tuple[Keep, ...] = KEPT
    accept: bool = False

    def check_possible(self, spec: ModelSpec) -> None:
        """Refuse what the target or the model cannot have, before anything is loaded.

        Raises:
            UnknownNameError: The target has no such precision.
            BundleError: The model cannot have this precision, or graphs for any number of images.
            CalibrationError: int8 is given no images.
        """
        target = TARGETS.get(self.target)
        target.check_precision(self.precision)
        if self.dynamic_batch and spec.task == "object-detection":
            raise BundleError(
                f"The second stage of {spec.name}, a detector, takes one image.",
                next_step="Leave --dynamic-batch out.",
            )
        if self.precision == "int8" and self.calibration is None:
            raise CalibrationError(
                "int8 takes its ranges from images, and none were given.",
                next_step="Give some hundred like those that the camera will see: "
                "--calibration DIR",
            )
        if self.precision == "fp32" and self.accept:
            raise BundleError(
                "--accept takes what a precision below fp32 changes, and this export is in fp32.",
                next_step="Leave --accept out.",
            )
        if self.precision != "int8" and self.keep_fp32 != KEPT:
            raise BundleError(
                f"--keep-fp32 is about int8, and this export is in {self.precision}.",
                next_step="Leave --keep-fp32 out.",
            )
        engine = self.engine_of_edge(spec)
        if self.edge is not None and engine != self.edge:
            raise BundleError(
                f"{spec.name} has a hyperprior, whose scales device and edge both compute: "
                f"{self.edge} would compute others than {engine} for some images, which are lost.",
                next_step=f"Leave --edge out: both sides then run {engine}.",
            )
        if self.precision in target.hints and has_hyperprior(spec):
            others = (one for one in target.precisions if one not in target.hints)
            raise BundleError(
                f"{spec.name} cannot be computed in {self.precision}: device and edge must compute "
                "the same scale indexes, and the engine would round all of the device's.",
                next_step=f"Possible: --precision {' or --precision '.join(others)}",
            )

    def engine_of_edge(self, spec: ModelSpec) -> str | None:
        """Return what the edge runs; None leaves it to the target.

        With a hyperprior, it is what the device runs.
        """
        target = TARGETS.get(self.target)
        if self.aot or not has_hyperprior(spec):
            return self.edge
        return target.device.engine

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
