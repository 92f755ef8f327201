"""The result of calibration: a coder's arrays, and how they were fitted. Imports no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from splitrun.errors import TablesError
from splitrun.image_files import UnreadCount

if TYPE_CHECKING:
    from splitrun.coding import Coder
    from splitrun.coding.coder import Array

CALIBRATED = (
    "factorized",
    "context",
    "hyperprior",
    "hyperprior-context",
    "integer-hyperprior",
    "integer-hyperprior-context",
    "variable-rate",
    "variable-rate-context",
    "quantised-relu",
)
"""Kinds of coders that calibration makes."""


class CalibrationRecord(BaseModel):
    """How a coder was fitted, and what it saves on images that it was not fitted to.

    Attributes:
        kind: Kind of the coder that was kept.
        fitted: Number of images that it was fitted to.
        held_out: Number of other images, on which the codings were compared.
        payload_bytes: Mean payload of these by coding, first of the model as it was trained; of
            variable rate, over all levels.
        float_payload_bytes: Mean payload of the model as it was trained, with its hyperprior in
            floats; None where none is in integers.
        kept: Coding that was kept, a key of ``payload_bytes``.
        unread: Files of the folder that were not read, by reason and ending.
        warnings: What speaks against relying on the images, in words.
        command: Command that calibrated the model; empty where Python did.
    """

    model_config = ConfigDict(extra="forbid")

    kind: str
    fitted: int = Field(ge=1)
    held_out: int = Field(ge=1)
    payload_bytes: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    float_payload_bytes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    kept: str
    unread: tuple[UnreadCount, ...] = ()
    warnings: tuple[str, ...] = ()
    command: str = ""

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> Self:
        if self.kind not in CALIBRATED:
            raise ValueError(f"the coder {self.kind!r} is none of {', '.join(CALIBRATED)}")
        if self.kept not in self.payload_bytes:
            raise ValueError(f"{self.kept!r} was kept, and has no bytes")
        return self

    @property
    def integers_cost(self) -> float | None:
        """Share of the payload that a hyperprior in integers adds."""
        floats = self.float_payload_bytes
        return None if floats is None else self.before / floats - 1

    @property
    def before(self) -> float:
        """Mean payload of the tables that the model was trained with."""
        return next(iter(self.payload_bytes.values()))

    @property
    def after(self) -> float:
        """Mean payload of the coding that was kept."""
        return self.payload_bytes[self.kept]


@dataclass(frozen=True)
class Calibration:
    """A coder in place of the one that a model was trained with.

    Attributes:
        arrays: Arrays of the coder, by name.
        record: Record of how they were fitted.
    """

    arrays: "dict[str, Array]"
    record: CalibrationRecord

    def coder(self) -> "Coder":
        """Make the coder.

        Raises:
            TablesError: The arrays are not valid.
        """
        from splitrun.coding import CODERS  # whoever reads configurations needs none of them

        kind = CODERS[self.record.kind]
        if self.arrays.keys() != set(kind.array_names()):
            raise TablesError(f"A coder of kind {kind.kind} has other tables than those found.")
        return kind.from_parts({}, self.arrays)
