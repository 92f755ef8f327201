"""The registry of models: builder and metadata of each in one place. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..registry import Registry
from .spec import ModelSpec

if TYPE_CHECKING:
    from .split_model import SplitModel


@dataclass(frozen=True)
class ModelEntry:
    """One registered model.

    Attributes:
        spec: What it is.
        build: Makes it from a spec of its family, with the weights that torch's generator gives.
    """

    spec: ModelSpec
    build: Callable[[ModelSpec], "SplitModel"]


MODELS: Registry[ModelEntry] = Registry("model", next_step="See: splitzoo zoo list")
