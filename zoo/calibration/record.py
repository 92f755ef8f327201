"""What calibration gave: a coder in parts, and what it saves. Imports no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from splitrun.errors import TablesError

if TYPE_CHECKING:
    from splitrun.coding.coder import Array, Coder

CALIBRATED = (
    *("factorized", "context", "hyperprior", "hyperprior-context"),
    "quantised-context",
    "quantised-relu",
)
"""Kinds of coders that calibration makes."""


class CalibrationRecord(BaseModel):
    """How a coder was fitted, and what it saves on images that it was not fitted to.

    Attributes:
        kind: Of the coder that was kept.
        fitted: Images that it was fitted to.
        held_out: Others, on which the codings were compared.
        payload_bytes: Mean over these, by coding: as the model was trained, and others.
        kept: The coding that was kept, a key of these.
        command: That calibrated the model; empty where Python did.
    """

    model_config = ConfigDict(extra="forbid")

    kind: str
    fitted: int = Field(ge=1)
    held_out: int = Field(ge=1)
    payload_bytes: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    kept: str
    command: str = ""

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        if self.kind not in CALIBRATED:
            raise ValueError(f"the coder {self.kind!r} is none of {', '.join(CALIBRATED)}")
        if self.kept not in self.payload_bytes:
            raise ValueError(f"{self.kept!r} was kept, and has no bytes")
        return self

    @property
    def before(self) -> float:
        """Mean payload of the tables that the model was trained with."""
        return next(iter(self.payload_bytes.values()))

    @property
    def after(self) -> float:
        """Mean payload of what was kept."""
        return self.payload_bytes[self.kept]


@dataclass(frozen=True)
class Calibration:
    """A coder in place of the one that a model was trained with.

    Attributes:
        arrays: Of the coder, by name.
        record: How they were fitted.
    """

    arrays: "dict[str, Array]"
    record: CalibrationRecord

    def coder(self) -> "Coder":
        """Make the coder.

        Raises:
            TablesError: The arrays are not valid.
        """
        from splitrun.coding.coders import CODERS  # what reads configurations needs none of them

        kind = CODERS[self.record.kind]
        if self.arrays.keys() != set(kind.array_names()):
            raise TablesError(f"A coder of kind {kind.kind} has other tables than those found.")
        return kind.from_parts({}, self.arrays)
