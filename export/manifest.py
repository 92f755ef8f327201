"""What ``manifest.json`` of a bundle holds, for writing and for checking the whole of it.

The runtime on the board reads the same file with :mod:`splitzoo.export.runtime.bundle`, which needs
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
    engine: str
    inputs: list[Tensor]
    outputs: list[Tensor]


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
        default=None, description="how the tables were fitted to photographs, if they were"
    )


class Parity(_Part):
    """How the exported graphs compare with PyTorch on the same inputs."""

    images: int = Field(default=0, description="seeded test pictures compared")
    symbols: int = Field(default=0, description="symbols compared, over all pictures")
    symbols_differing: int = 0
    symbols_tied: int = Field(
        default=0,
        description="symbols whose latent lies so close to a rounding boundary that float "
        "arithmetic of another order may round it the other way; they may differ by 1",
    )
    tie_margin: float = Field(description="that distance, in units of a symbol")
    output_max_relative_error: float = Field(
        default=0.0, description="largest |difference| / largest |output|"
    )
    output_tolerance: float
    streams_decoded: bool = Field(
        default=False,
        description="every stream gave back what went in; behind an image codec, what the codec "
        "gave back to PyTorch",
    )


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
    precision: Literal["fp32"]
    graphs: dict[Literal["device", "edge", "hyper", "boxes"], Graph]
    coding: Coding
    postprocessing: dict[str, Any] = Field(
        default={}, description="of the edge graph's outputs, where the task has any"
    )
    labels: str
    selftest: str
    requirements: list[str]
    parity: Parity
    provenance: Provenance
    files: dict[str, Sha256] = Field(description="SHA-256 of every file but this one")
