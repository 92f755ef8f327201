"""The parts of a bundle's manifest that only splitzoo reads: the model's spec and its calibration.

All the rest is :class:`splitrun.manifest.Manifest`, which the board reads too.
"""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from splitrun.bundle_layout import MANIFEST_NAME
from splitrun.errors import BundleError
from splitrun.manifest import Manifest

from ..zoo.calibration.record import CalibrationRecord
from ..zoo.spec import ModelSpec

M = TypeVar("M", bound=BaseModel)


def spec_of(manifest: Manifest) -> ModelSpec:
    """Return the spec of a bundle's model.

    Raises:
        BundleError: It is no valid spec.
    """
    return _validated(ModelSpec, manifest.spec, "spec")


def calibration_of(manifest: Manifest) -> CalibrationRecord | None:
    """Return how a bundle's tables were fitted to images, if they were.

    Raises:
        BundleError: It is no valid record.
    """
    found = manifest.coding.calibration
    return None if found is None else _validated(CalibrationRecord, found, "coding.calibration")


def _validated(model: type[M], value: dict[str, Any], where: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as invalid:
        first = invalid.errors()[0]
        place = ".".join(map(str, (where, *first["loc"])))
        raise BundleError(
            f"{MANIFEST_NAME} is damaged: {place}: {first['msg']}.",
            next_step="Copy or export the bundle again.",
        ) from invalid
