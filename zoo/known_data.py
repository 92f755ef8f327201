"""What the data sets are that carried models were trained and measured on. Imports no torch."""

import functools
from pathlib import Path
from typing import Annotated

from pydantic import Field

from .bottleneck_specs import Part
from .csv_rows import Text, read_rows

FILE = Path(__file__).with_name("data.csv")


class KnownData(Part):
    """One data set.

    Attributes:
        sha256: Digest of the images' names and sizes, as reports and training records have it.
        about: Description for cards: what the images are, whose, and under which licence.
    """

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    about: Text


@functools.cache
def _known() -> dict[str, str]:
    return {one.sha256: one.about for one in read_rows(KnownData, FILE)}


def about(sha256: str) -> str:
    """Return what the images of a digest are, in words; empty where that is not known."""
    return _known().get(sha256, "")
