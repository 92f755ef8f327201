"""Options of an export, and whether a model and a target can have them."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from splitrun.errors import BundleError, CalibrationError
from splitrun.text import visible

from .targets import TARGETS, Halves, Target

if TYPE_CHECKING:
    from ..zoo.spec import ModelSpec
    from ..zoo.split_model import SplitModel

Keep = Literal["last", "gdn"]
"""``last``: the convolutions whose output is rounded. ``gdn``: those that compute GDN's norms."""

KEPT: tuple[Keep, ...] = ("last",)
"""What int8 leaves in fp32 by default: the last convolution decides what every symbol is."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of :func:`splitzoo.export.split`.

    Attributes:
        target: Name of a registered target: where the halves will run.
        precision: Precision of the device graph: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        edge: Engine of the edge's graphs; None takes the target's first.
        edge_precision: Precision of the edge graph: ``fp32``, ``fp16``, ``bf16`` or ``int8``, or
            ``fp16-weights`` or ``int8-weights``, which compute in fp32. A hyperprior and a
            detector's second stage stay in fp32.
        aot: Whether both halves are compiled ahead of time.
        dynamic_batch: Whether the graphs take any number of images at once; else they take one.
        calibration: Folder of images. The entropy tables are fitted to them first, in place (see
            :func:`splitzoo.zoo.calibrate`), and int8 takes its ranges from them.
        keep_tables: Whether the entropy tables stay as they are, calibration or not.
        keep_fp32: Parts of the device graph that int8 leaves in fp32.
        accept: Whether precisions below fp32 may change more than the limits allow.
        float_hyperprior: Whether the engines compute a hyperprior's scales in floats, as the
            model was trained: then both halves must run the same engine.
    """

    target: str = "cpu"
    precision: str = "fp32"
    edge: str | None = None
    edge_precision: str = "fp32"
    aot: bool = False
    dynamic_batch: bool = False
    calibration: Path | None = None
    keep_tables: bool = False
    keep_fp32: tuple[Keep, ...] = KEPT
    accept: bool = False
    float_hyperprior: bool = False

    @property
    def chosen_target(self) -> Target:
        """The target itself.

        Raises:
            UnknownNameError: No target has that name.
        """
        return TARGETS.get(self.target)

    @property
    def takes_ranges(self) -> bool:
        """Whether a half computes in int8, in ranges taken from images."""
        return "int8" in (self.precision, self.edge_precision)

    def exported(self, spec: "ModelSpec") -> "ModelSpec":
        """Return the spec of what is exported of a model."""
        return spec.in_floats() if self.float_hyperprior else spec

    def halves(self, spec: "ModelSpec") -> Halves:
        """Return the formats; with a hyperprior in floats, both sides run the device's engine.

        Raises:
            UnknownNameError: There is no such target, or its edge cannot have that engine.
            BundleError: Nothing can be compiled ahead of time for this target.
            DependencyError: A package that the target needs is not installed.
        """
        halves = self.chosen_target.halves(self.edge, aot=self.aot)
        return Halves(halves.device, halves.device) if spec.has_float_hyperprior else halves

    def check_possible(self, spec: "ModelSpec") -> None:
        """Refuse what the target or the model cannot have, and options without effect.

        This needs no weights: those of a detector are hundreds of megabytes.

        Raises:
            UnknownNameError: There is no such target, or it or its edge has no such precision.
            DependencyError: A package that the target needs is not installed.
            BundleError: The model cannot have this precision, this engine of the edge, or graphs
                for any number of images; or an option has no effect.
            CalibrationError: int8 is given no images.
        """
        target = self.chosen_target
        target.check_precision(self.precision)
        if self.dynamic_batch and spec.task == "object-detection":
            raise BundleError(
                f"The second stage of {spec.name}, a detector, takes one image at a time.",
                next_step="Leave --dynamic-batch out.",
            )
        halves = self.halves(spec)
        target.check_edge_precision(self.edge_precision, halves.edge)
        for format in (halves.device, halves.edge):
            if self.dynamic_batch and not format.any_batch:
                raise BundleError(
                    f"{format.engine} takes one image at a time.",
                    next_step="Leave --dynamic-batch out.",
                )
        if self.takes_ranges and self.calibration is None:
            raise CalibrationError(
                "int8 takes its ranges from images, and none were given.",
                next_step="Give 100 or more like those that the camera will see: --calibration DIR",
            )
        if self.precision == self.edge_precision == "fp32" and self.accept:
            raise BundleError(
                "--accept is for precisions below fp32, and this export is in fp32.",
                next_step="Leave --accept out.",
            )
        if self.precision != "int8" and self.keep_fp32 != KEPT:
            raise BundleError(
                f"--keep-fp32 is for int8, and this export is in {self.precision}.",
                next_step="Leave --keep-fp32 out.",
            )
        if self.float_hyperprior and not spec.has_float_hyperprior:
            raise BundleError(
                f"--float-hyperprior is for models with a hyperprior, and {spec.name} has none.",
                next_step="Leave --float-hyperprior out.",
            )
        engine = target.device.engine
        if self.edge not in (None, engine) and not self.aot and spec.has_float_hyperprior:
            raise BundleError(
                f"The hyperprior of {spec.name} is in floats, whose scales are computed on the "
                f"device and again on the edge: {engine} and {self.edge} would disagree on some "
                "images, which could not be decoded.",
                next_step="Leave --float-hyperprior out: in integers, any two engines agree.",
            )
        if self.precision in halves.device.hints and spec.has_float_hyperprior:
            raise BundleError(
                f"The hyperprior of {spec.name} is in floats, and cannot be computed in "
                f"{self.precision}: device and edge must compute the same scale indexes, and the "
                "device's engine would round everything.",
                next_step="Leave --float-hyperprior out: in integers, any precision will do.",
            )

    def command(self, model: "SplitModel") -> str:
        """Return the command line that makes the bundle again."""
        words = ["splitzoo", "export", "split", model.source, "--target", self.target]
        words += ["--precision", self.precision] * (self.precision != "fp32")
        words += ["--edge", self.edge] if self.edge else []
        if self.edge_precision != "fp32":
            words += ["--edge-precision", self.edge_precision]
        for flag in ("aot", "dynamic_batch", "keep_tables", "accept", "float_hyperprior"):
            words += [f"--{flag.replace('_', '-')}"] * getattr(self, flag)
        # The last name says enough of a folder on another machine.
        words += ["--calibration", self.calibration.name] if self.calibration else []
        if self.precision == "int8" and self.keep_fp32 != KEPT:
            for part in self.keep_fp32 or ("nothing",):
                words += ["--keep-fp32", part]
        if model.random_seed is not None:
            words += ["--random-weights", "--seed", str(model.random_seed)]
        return visible(shlex.join(words), keep="")
