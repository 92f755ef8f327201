"""What a bundle's folder holds, by name; of use before anything that is in it is loaded."""

from typing import Literal

MANIFEST_NAME = "manifest.json"
REQUIREMENTS_NAME = "requirements.txt"
ENGINES_FOLDER = "engines"
"""Holds what was built on the machine that the bundle lies on; no manifest can name it."""
LIBRARIES = "splitrun/coding/c/*.so"
"""What ``splitrun compile`` made there; no manifest names it either."""

Half = Literal["device", "edge"]
HALVES: tuple[Half, ...] = ("device", "edge")
