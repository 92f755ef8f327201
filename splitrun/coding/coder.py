"""The contract of entropy coders: the tensors of one image to a payload, and back."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import RateError, TablesError

Array = NDArray[Any]
Setting = str | int
HyperDecoder = Callable[[NDArray[np.int32]], tuple[Array, ...]]
"""The hyper-decoder on the edge: symbols of z (C, h, w) int32 to the scale indexes of y (int32) and
whatever else the edge graph takes; for an autoregressive coder, to its parameters (float32)."""

AnyCoder = TypeVar("AnyCoder", bound="Coder")
"""Type of the coder itself: Python 3.10, which boards run, has no ``Self``."""


class Coder(ABC):
    """Turns the wire tensors of one image into a payload, and a payload into the edge's inputs.

    Tensors have no batch dimension. A coder is made of settings and integer tables that travel with
    the model; nothing of it is computed on a device. It does not change once it is made: several
    threads may use one at a time.

    Attributes:
        kind: Key in ``CODERS``.
        lossless: Whether decoding gives back exactly what :meth:`decoded` says.
        num_inputs: Number of tensors that are encoded: the device graph's outputs.
        num_outputs: Number of tensors that the coder decodes by itself; the hyper-decoder's outputs
            after its first follow them.
        needs_hyper: Whether decoding calls the hyper-decoder.
        is_context: Whether symbols decoded before pick the table of the next one.
        is_quantised: Whether values of 8 bits are sent with the range of their own image.
    """

    kind: ClassVar[str]
    lossless: ClassVar[bool]
    num_inputs: ClassVar[int] = 1
    num_outputs: ClassVar[int] = 1
    needs_hyper: ClassVar[bool] = False
    is_context: ClassVar[bool] = False
    is_quantised: ClassVar[bool] = False

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of the tensor that is decoded first; bounds what a stream may claim."""

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of the tensor that is decoded first."""
        height, width = tensors[0].shape[-2:]
        return height, width

    @property
    def betas(self) -> tuple[float, ...]:
        """The β of each level of rate, rising; none where the rate is fixed."""
        return ()

    @property
    def beta(self) -> float | None:
        """The β of the level to encode at, where the rate is not fixed."""
        return None

    def at(self: AnyCoder, beta: float) -> AnyCoder:
        """Return the coder that encodes at the level whose β is nearest.

        Raises:
            RateError: The rate is fixed, or β is outside the levels' range.
        """
        raise RateError(
            f"The model's rate is fixed: it cannot encode with β {beta:g}.",
            next_step="Leave β out, or take a model of variable rate: its name ends in -variable.",
        )

    @abstractmethod
    def encode(self, *tensors: Array) -> bytes:
        """Code the device graph's outputs for one image, each (C, h, w), in their order."""

    @abstractmethod
    def decode(
        self, payload: bytes, height: int, width: int, hyper: HyperDecoder | None = None
    ) -> tuple[Array, ...]:
        """Return the edge graph's inputs for one image, in their order.

        Time and memory are bounded by ``channels * height * width`` and by the size of what the
        hyper-decoder returns, whatever the payload holds.

        Args:
            payload: Result of :meth:`encode`.
            height: Height of the tensor that is decoded first, see :meth:`shape`.
            width: Width of that tensor.
            hyper: Hyper-decoder, for coders that need one.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
            DesyncError: The hyper-decoder here gives other scale indexes than the device's.
        """

    def decoded(self, *tensors: Array) -> tuple[Array, ...]:
        """Return what a lossless coder gives back of the device graph's outputs, in their order.

        These are the outputs themselves, except where the edge computes the same from others.
        """
        return tensors

    def versions(self) -> dict[str, str]:
        """Return the programs outside Python that code here, and their versions, for records."""
        return {}

    @abstractmethod
    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""

    def settings(self) -> dict[str, Setting]:
        """Return what a manifest says about the coder beside its kind; nothing, where tables do."""
        return {}

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """Return the tables by name, for an ``.npz`` file."""

    @classmethod
    @abstractmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""

    @classmethod
    @abstractmethod
    def from_parts(
        cls: type[AnyCoder], settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> AnyCoder:
        """Make a coder from :meth:`settings` and :meth:`arrays`, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """


class SettingsCoder(Coder):
    """Base of coders without tables.

    Attributes:
        setting_names: Names of the settings, which are the constructor's arguments.
    """

    setting_names: ClassVar[tuple[str, ...]]

    def digest(self) -> bytes:
        """Return the SHA-256 of kind and settings."""
        content = " ".join(map(str, (self.kind, *self.settings().values())))
        return hashlib.sha256(content.encode()).digest()

    def arrays(self) -> dict[str, Array]:
        """Return nothing: there are no tables."""
        return {}

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return no names: there are no tables."""
        return ()

    @classmethod
    def from_parts(
        cls: type[AnyCoder], settings: Mapping[str, Setting], arrays: Mapping[str, Array]
    ) -> AnyCoder:
        """Make a coder from its settings, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        names = cls.setting_names  # pyright: ignore[reportAttributeAccessIssue]  # bound to Coder
        if set(settings) != set(names) or arrays:
            raise TablesError(
                f"A coder of kind {cls.kind} has the settings {', '.join(names)} and no tables; "
                f"found were {', '.join(map(str, settings)) or 'no settings'} and "
                f"{len(arrays)} tables."
            )
        return cls(**settings)
