"""What stands between the device graph's outputs and the edge graph's inputs."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Setting = str | int
Hyper = Callable[[NDArray[np.int32]], tuple[Array, ...]]
"""The hyper-decoder on the edge: symbols of z (C, h, w) int32 to the scale indexes of y (int32) and
whatever else the edge graph takes; for an autoregressive coder, to its parameters (float32)."""


class Coder(Protocol):
    """Turns the tensors of one image into a payload, and a payload into what the edge graph takes.

    Tensors have no batch dimension. A coder is made of tables and settings that travel with the
    model; none of them is computed on a device.

    Attributes:
        kind: Key in ``CODERS``.
        lossless: Decoding gives back exactly what :meth:`received` says.
        takes: Tensors that it encodes: the device graph's outputs.
        gives: Tensors that it decodes by itself; those that the hyper-decoder gives after its first
            follow them.
        needs_hyper: Decoding calls the hyper-decoder.
    """

    kind: ClassVar[str]
    lossless: ClassVar[bool]
    takes: ClassVar[int]
    gives: ClassVar[int]
    needs_hyper: ClassVar[bool]

    @property
    def channels(self) -> int:
        """Channels of the tensor that is decoded first; bounds what a stream may claim."""
        ...

    def shape(self, *tensors: Array) -> tuple[int, int]:
        """Return height and width of the tensor that is decoded first."""
        ...

    def encode(self, *tensors: Array) -> bytes:
        """Code the device graph's outputs for one image, each (C, h, w), in their order."""
        ...

    def decode(
        self, payload: bytes, height: int, width: int, hyper: Hyper | None = None
    ) -> tuple[Array, ...]:
        """Return the edge graph's inputs for one image, in their order.

        Time and memory are bounded by ``channels * height * width``, whatever the payload holds.

        Args:
            payload: From :meth:`encode`.
            height: As :meth:`shape` said.
            width: Likewise.
            hyper: The hyper-decoder, for coders that need one.

        Raises:
            BitstreamError: The payload is not one that :meth:`encode` writes for this shape.
            DesyncError: The hyper-decoder here gives other scale indexes than the device's.
        """
        ...

    def received(self, *tensors: Array) -> tuple[Array, ...]:
        """Return what a lossless coder gives back of the device graph's outputs, in their order.

        All of it as it is, but where the edge computes the same from other values.
        """
        return tensors

    def digest(self) -> bytes:
        """Return the SHA-256 of all that coding depends on."""
        ...

    def settings(self) -> dict[str, Setting]:
        """Return what a manifest says of the coder beside its kind."""
        ...

    def arrays(self) -> dict[str, Array]:
        """Return the tables by name, for an ``.npz`` file."""
        ...

    @classmethod
    def array_names(cls) -> tuple[str, ...]:
        """Return the names of :meth:`arrays`."""
        ...

    @classmethod
    def from_parts(cls, settings: Mapping[str, Setting], arrays: Mapping[str, Array]) -> "Coder":
        """Make a coder from what :meth:`settings` and :meth:`arrays` gave, which may be hostile.

        Raises:
            TablesError: They are not valid.
        """
        ...
