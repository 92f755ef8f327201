"""What calibration gave: a coder in parts, and what it saves. Imports no torch."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ...errors import TablesError
from ..coding.coder import Array, Coder

CALIBRATED = ("factorized", "context", "hyperprior-context", "quantised-context")
"""Kinds of coders that calibration makes."""


class CalibrationRecord(BaseModel):
    """How a coder was fitted, and what it saves on photographs that it was not fitted to.

    Attributes:
        kind: Of the coder that was kept.
        fitted: Photographs that it was fitted to.
        held_out: Others, on which the codings were compared.
        payload_bytes: Mean over these, by coding: as the model was trained, and others.
        kept: The coding that was kept, a key of these.
        command: That calibrated the model; empty where Python did.
    """

    model_config = ConfigDict(extra="forbid")

    kind: str
    fitted: int = Field(ge=1)
    held_out: int = Field(ge=1)
    payload_bytes: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    kept: str
    command: str = ""


@dataclass(frozen=True)
class Calibration:
    """A coder in place of the one that a model was trained with.

    Attributes:
        arrays: Of the coder, by name.
        record: How they were fitted.
    """

    arrays: dict[str, Array]
    record: CalibrationRecord

    def coder(self) -> Coder:
        """Make the coder.

        Raises:
            TablesError: The kind or the arrays are not valid.
        """
        from ..coding.coders import CODERS  # what reads configurations needs none of them

        if self.record.kind not in CALIBRATED:
            raise TablesError(
                f"The coder {self.record.kind!r} is none of {', '.join(CALIBRATED)}.",
                next_step="pip install --upgrade splitzoo",
            )
        kind = CODERS[self.record.kind]
        if self.arrays.keys() != set(kind.array_names()):
            raise TablesError(f"A coder of kind {kind.kind} has other tables than those found.")
        return kind.from_parts({}, self.arrays)
