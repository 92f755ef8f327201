"""Tables of CSV whose rows are checked as they are read. Imports no torch."""

import csv
from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import Annotated, TypeVar, get_args

from pydantic import Field, ValidationError

from splitrun.errors import ReportError
from splitrun.files import new_file
from splitrun.text import check_texts

from .bottleneck_specs import Part

_MOST_BYTES = 1 << 24

Text = Annotated[str, Field(min_length=1, max_length=400)]
MaybeText = Annotated[str, Field(max_length=400)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, lt=1 << 63)]

_Row = TypeVar("_Row", bound=Part)


def write_rows(kind: type[_Row], rows: Iterable[_Row], path: Path) -> None:
    """Write rows of a kind, whole or not at all; None is left empty.

    Raises:
        OutputError: The file cannot be written.
    """
    with (
        new_file(path, force=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(kind.model_fields), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.model_dump(mode="json") for row in rows)


def read_rows(kind: type[_Row], path: Path) -> list[_Row]:
    """Read what :func:`write_rows` wrote of the same kind.

    Raises:
        ReportError: The file cannot be read, or a row is not valid.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ReportError(f"{path} is larger than {_MOST_BYTES >> 20} MiB.")
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            if reader.fieldnames != list(kind.model_fields):
                raise ReportError(f"{path} has other columns than {', '.join(kind.model_fields)}.")
            return [_row(kind, cells, path, number) for number, cells in enumerate(reader, 2)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ReportError(f"Cannot read {path}: {reason}.") from error


def _row(kind: type[_Row], cells: dict[str, str], path: Path, number: int) -> _Row:
    try:
        if None in cells:
            raise ValueError("it has more cells than there are columns")
        check_texts(cells)
        fields = kind.model_fields
        return kind.model_validate(
            {
                name: None if not cell and NoneType in get_args(fields[name].annotation) else cell
                for name, cell in cells.items()
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ReportError(f"{path}, row {number}: {where}: {first['msg']}.") from error
    except (KeyError, ValueError, TypeError) as error:  # too few cells, too many, or hostile ones
        raise ReportError(f"{path}, row {number}, is not valid: {error}.") from error
