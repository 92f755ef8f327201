"""How far an exported graph may be from PyTorch, by the precision that it computes in."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """What parity and self-tests allow.

    Attributes:
        tie_margin: Distance to a rounding boundary, in steps of a symbol, within which float
            arithmetic of another order may round to the neighbour. float32 sums of a few thousand
            products taken in another order differ by some 1e-6 of their size; latents reach some
            tens, so 1e-4 covers them with room. About one symbol in 5,000 lies so close.
        changed: Share of the symbols that are not 0 that may differ elsewhere. Most of a trained
            model's symbols are 0, and stay so whatever a graph has lost.
        difference: Largest difference of a symbol.
        wire_tolerance: Largest difference of floats on the wire, relative to the largest.
        output_tolerance: Largest difference of the edge's outputs, relative to the largest: float32
            through fifty layers, in another order of additions.
    """

    tie_margin: float = 1e-4
    changed: float = 0.0
    difference: int = 1
    wire_tolerance: float = 1e-4
    output_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        shares = (self.tie_margin, self.changed, self.wire_tolerance, self.output_tolerance)
        if not all(0 <= share <= 1e9 for share in shares):
            raise ValueError(f"a limit of parity is not a number from 0 on: {shares}")
        if type(self.difference) is not int or self.difference < 1:
            raise ValueError(f"symbols cannot differ by up to {self.difference!r}")


LIMITS: dict[str, Limits] = {
    "fp32": Limits(),
    "fp16": Limits(changed=0.01, wire_tolerance=0.01),
    "bf16": Limits(changed=0.1, difference=2, wire_tolerance=0.05),
    "int8": Limits(changed=0.2, difference=2, wire_tolerance=0.2),
}
"""Limits by precision of the device graph."""

EDGE_TOLERANCES: dict[str, float] = {
    "fp32": Limits().output_tolerance,
    "fp16": 0.01,
    "bf16": 0.05,
    "int8": 0.2,
    "fp16-weights": 0.01,
    "int8-weights": 0.05,
}
"""``output_tolerance`` by precision of the edge graph; ``…-weights`` computes in fp32."""

_OWN_RANGE = 16
"""Levels of 256 by which 8-bit values may differ below fp32: the range of the latent is sent with
them, so one other extreme moves all of them."""


def limits_of(precision: str, edge: str = "fp32", *, quantised: bool) -> Limits:
    """Return the limits of the precisions of both halves, for a coder that is quantised or not."""
    limits = replace(LIMITS[precision], output_tolerance=EDGE_TOLERANCES[edge])
    if precision == "fp32" or not quantised:
        return limits
    return replace(limits, changed=1.0, difference=_OWN_RANGE)
