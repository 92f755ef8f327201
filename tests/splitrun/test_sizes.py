"""Sizes as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.filesize import decimal

from splitrun.sizes import format_size


@pytest.mark.parametrize(
    ("size_bytes", "written"),
    [
        *((0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (42_130, "42.1 kB")),
        *((98_649, "98.6 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (9_312_345, "9.3 MB")),
        *((12_300_000_000, "12.3 GB"), (10**18, "1,000.0 PB")),
    ],
)
def test_a_size_is_written_in_a_unit_that_shows_something(size_bytes, written) -> None:
    assert format_size(size_bytes) == written


@given(st.integers(0, 10**17))
def test_sizes_are_those_of_rich(size_bytes) -> None:
    theirs = decimal(size_bytes)
    if not theirs.startswith("1,000.0"):  # ours goes on to the next unit there
        assert format_size(size_bytes) == theirs
