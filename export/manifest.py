"""What ``manifest.json`` of a bundle holds, for writing and for checking the whole of it.

The runtime on the board reads the same file with :mod:`splitrun.bundle`, which needs
no pydantic.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..zoo.calibration.record import CalibrationRecord
from ..zoo.spec import ModelSpec

Sha256 = str


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Tensor(_Part):
    """An input or output of a graph; ``-1`` stands for an open batch dimension."""

    name: str
    dtype: Literal["float32", "int32", "uint8"]
    shape: list[int]


class Graph(_Part):
    """One graph: its file, the engine that runs it, its inputs and outputs in order."""

    file: str
    weights: str | None = Field(default=None, description="a second file, read with the first")
    engine: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    threads: int = Field(default=0, ge=0, description="for the engine; 0 lets it choose")
    hint: str = Field(default="", description="to the engine: the type to compute in")


class Coding(_Part):
    """What the coder needs beside the tables."""

    kind: str
    settings: dict[str, str | int]
    tables: str
    model_id: str = Field(pattern="^[0-9a-f]{8}$")
    shape: tuple[int, int] = Field(
        description="height and width, of the tensor that is decoded first, that are not sent"
    )
    calibration: CalibrationRecord | None = Field(
        default=None, description="how the tables were fitted to images, if they were"
    )


class Allowed(_Part):
    """How far the graphs may be from PyTorch: :class:`.runtime.limits.Limits`, on disk."""

    tie_margin: float = Field(description="in units of a symbol")
    changed: float = Field(
        ge=0, le=1, description="share of the symbols not 0 that may differ elsewhere"
    )
    difference: int = Field(ge=1, description="of a symbol, at most")
    sent_tolerance: float
    output_tolerance: float


class Pair(_Part):
    """Two engines, by name and version, of which the second read what the first wrote."""

    device: str
    edge: str


class Parity(_Part):
    """How the exported graphs compare with PyTorch on the same inputs."""

    images: int = Field(default=0, description="seeded test images compared")
    symbols: int = Field(default=0, description="symbols compared, over all images")
    symbols_differing: int = 0
    symbols_tied: int = Field(
        default=0,
        description="symbols whose latent lies so close to a rounding boundary that float "
        "arithmetic of another order may round it the other way; they may differ by 1",
    )
    largest_difference: int = Field(default=0, description="of a symbol")
    output_max_relative_error: float = Field(
        default=0.0, description="largest |difference| / largest |output|"
    )
    limits: Allowed
    streams_decoded: bool = Field(
        default=False,
        description="every stream gave back what went in; behind an image codec, what the codec "
        "gave back to PyTorch",
    )
    pairs: list[Pair] = Field(default=[], description="whose streams were read across")


class PrecisionReport(_Part):
    """What a precision below fp32 changes, on images that it was not calibrated to."""

    calibrated: int = Field(description="images that ranges were taken from")
    skipped: int = Field(description="images of the folder that could not be read")
    held_out: int = Field(description="others, or made images, that were compared")
    real_images: bool = Field(description="whether photographs were compared; else made images")
    symbols: int = Field(description="compared")
    flips: float = Field(description="share of the symbols that differ from fp32's")
    changed: float = Field(description="how many differ for each that is not 0")
    most_changed: float = Field(
        description="likewise, of one tensor of one image at most, those of parity among them"
    )
    largest_difference: int = Field(description="of a symbol, on all of these")
    sent_error: float = Field(description="of floats that are sent, relative to the largest")
    payload_bytes_fp32: float = Field(description="mean")
    payload_bytes: float = Field(description="mean")
    labelled: int = Field(default=0, description="of those held out, with a class of the model")
    correct_fp32: int | None = Field(default=None, description="of these, named correctly")
    correct: int | None = None
    kept_fp32: list[str] = Field(default=[], description="parts left in fp32")
    accepted: list[str] = Field(default=[], description="limits that it is beyond, and accepted")

    @property
    def rate_inflation(self) -> float:
        """By how much the payload grows, as a share."""
        return self.payload_bytes / self.payload_bytes_fp32 - 1


class Provenance(_Part):
    """Where the bundle comes from."""

    source: str = Field(description="what zoo.load was given: a name or a folder")
    weights: Literal["random", "trained"]
    seed: int | None = None
    model_sha256: Sha256 = Field(description="of all tensors of the model, tables included")
    versions: dict[str, str]
    command: str


class Manifest(_Part):
    """All of ``manifest.json``."""

    schema_version: int
    spec: ModelSpec
    target: str
    precision: Literal["fp32", "fp16", "bf16", "int8"] = Field(description="of the device graph")
    graphs: dict[Literal["device", "edge", "hyper", "boxes"], Graph]
    coding: Coding
    postprocessing: dict[str, Any] = Field(
        default={}, description="of the edge graph's outputs, where the task has any"
    )
    labels: str
    selftest: str
    requirements: list[str]
    parity: Parity
    precision_report: PrecisionReport | None = Field(
        default=None, description="what a precision below fp32 changes"
    )
    provenance: Provenance
    files: dict[str, Sha256] = Field(description="SHA-256 of every file but this one")
