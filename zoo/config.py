"""``config.json`` of a saved model. Imports no torch, so that a download is checked quickly.

One format version is read: the present one.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from splitrun.bundle_layout import MANIFEST_NAME
from splitrun.errors import ModelFolderError

from .. import __version__
from ..documents import read_document
from .calibration.record import CalibrationRecord
from .spec import ModelSpec
from .train.record import TrainingRecord

FORMAT_VERSION = 5
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
MAX_CONFIG_BYTES = 1 << 20


class SharedTail(BaseModel):
    """The whole network whose tail a model has, and that tail's tensors."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=200, description="name of the whole network")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="digest of the tail's tensors")


class ModelConfig(BaseModel):
    """What ``config.json`` holds."""

    model_config = ConfigDict(extra="forbid")

    format_version: Literal[5] = FORMAT_VERSION
    library_name: str = "splitzoo"
    library_version: str = __version__
    spec: ModelSpec
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    random_seed: int | None = Field(
        default=None,
        ge=0,
        description="seed for the weights, where they are random and not trained",
    )
    origin: str = Field(default="", description="where the weights came from, in words")
    tail: SharedTail | None = Field(
        default=None, description="where the tail's weights are, if not in this folder"
    )
    training: TrainingRecord | None = Field(
        default=None, description="how the weights were trained, where splitzoo did that"
    )
    calibration: CalibrationRecord | None = Field(
        default=None, description="how the entropy tables were fitted to images, if they were"
    )


def read_config(folder: Path) -> ModelConfig:
    """Read ``config.json``.

    Raises:
        ModelFolderError: It is missing, damaged, or of a newer format.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        if (folder / MANIFEST_NAME).is_file():
            raise ModelFolderError(
                f"{folder} is a bundle, not a saved model: it has no {CONFIG_NAME}.",
                next_step=f"Commands that take bundles: splitzoo export verify {folder}, splitzoo "
                f"profile encoder {folder}, splitzoo cards build --bundle {folder}",
            )
        raise ModelFolderError(
            f"{folder} is not a saved model: it has no {CONFIG_NAME}.",
            next_step="Save one with zoo.save(model, folder), or name a model: splitzoo zoo list",
        )
    return read_document(
        ModelConfig,
        path,
        what="model config",
        version_field="format_version",
        supported=FORMAT_VERSION,
        limit_bytes=MAX_CONFIG_BYTES,
        error=ModelFolderError,
        next_step="Copy or save the model's folder again.",
    )
