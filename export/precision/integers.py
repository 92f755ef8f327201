"""What int8 holds, by engine. Imports nothing: formats name it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Integers:
    """How an engine wants weights and activations, to compute with them fast and exactly.

    Attributes:
        unsigned: Activations are uint8 from their least value on, outputs of convolutions too: what
            ONNX Runtime has fast kernels for on x86. Else they are int8 around zero, which TensorRT
            wants.
        weight_bits: 8, or 7 where the engine's sums of two products saturate at 16 bits on x86
            without VNNI.
    """

    unsigned: bool = False
    weight_bits: int = 8


SYMMETRIC = Integers()
"""Eight bits around zero."""
