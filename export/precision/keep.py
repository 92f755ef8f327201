"""What int8 can leave in fp32. Imports nothing: the command line names it."""

from typing import Literal

Keep = Literal["last", "gdn"]
"""``last``: the convolutions whose output is rounded. ``gdn``: those that compute GDN's norms."""

KEPT: tuple[Keep, ...] = ("last",)
"""By default: the last convolution decides what every symbol is."""
