"""Parity of each architecture with the reference implementation, with the same random weights."""

from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.sc2bench_parity import check_parity
from benchmarks.sc2bench_reference import bottleneck_of, build_reference
from splitrun.errors import ParityError
from splitzoo.zoo.bottleneck_specs import NeuralCodecBottleneck
from splitzoo.zoo.bottlenecks.neural_codec import build as build_codec
from splitzoo.zoo.catalog import build
from splitzoo.zoo.conversion.keys import map_tensors
from splitzoo.zoo.deprecations import quiet_torchscript
from splitzoo.zoo.resolve import is_assembled
from splitzoo.zoo.spec import ModelSpec

with quiet_torchscript():
    from compressai.zoo.image import model_architectures

_TOLERANCE = 1e-4
_SIDE = 128


def compare(spec: ModelSpec) -> str:
    """Say how a model compares with its reference.

    Raises:
        ParityError: They differ by more than rounding.
        DependencyError: The reference is not installed.
    """
    bottleneck = spec.bottleneck
    if isinstance(bottleneck, NeuralCodecBottleneck):
        return _compare_codec(bottleneck)
    if is_assembled(spec):
        return "none: an image codec, and the network"
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        reference = build_reference(spec)
        for layer in bottleneck_of(reference, spec).modules():
            # PyTorch's own initialisation would leave nearly every symbol at 0.
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    tensors = reference.state_dict()
    model = build(spec)
    mapped, _ = map_tensors(spec, tensors, model.state_dict())
    model.load_state_dict(model.state_dict() | mapped)
    model.update()
    parity = check_parity(model, tensors)
    if parity.not_checked:
        return parity.not_checked
    symbols = (
        f"{parity.symbols - parity.symbols_differing:,} of {parity.symbols:,} symbols equal, "
        if parity.symbols
        else ""
    )
    return f"{parity.reference}: {symbols}outputs {_within(parity.output_max_relative_error or 0)}"


def _within(error: float) -> str:
    return f"within {error:.0e}" if error else "equal"


@torch.no_grad()
def _compare_codec(sizes: NeuralCodecBottleneck) -> str:
    """Compare a learned codec with CompressAI's, through the bytes of both, in floats as there."""
    if sizes.architecture != "bmshj2018-factorized":
        sizes = sizes.model_copy(update={"float_hyperprior": True})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        parts = build_codec(sizes, (_SIDE, _SIDE))
        peer: Any = model_architectures[sizes.architecture](*sizes.sizes).eval()
    encoder, bottleneck, decoder = parts
    bottleneck.update()
    coder = bottleneck.entropy_coder()
    whole = nn.ModuleDict({"encoder": encoder, "bottleneck": bottleneck, "decoder": decoder})
    whole.eval()
    peer.load_state_dict(
        {name.partition(".")[2]: tensor for name, tensor in whole.state_dict().items()}
    )
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 9, 9, generator=generator)
    image = nn.functional.interpolate(coarse, size=(_SIDE, _SIDE), mode="bicubic").clamp(0, 1)
    quantised = _record_symbols(peer)
    expected = peer.decompress(**peer.compress(image))["x_hat"]
    sent = dict(zip(bottleneck.wire_names, bottleneck.to_wire(encoder(image)), strict=True))
    wire = [tensor[0].numpy() for tensor in sent.values()]

    def hyper(symbols: NDArray[np.int32]) -> tuple[NDArray[Any], ...]:
        given = bottleneck.hyper_decode(torch.from_numpy(np.stack([symbols])))
        return tuple(tensor[0].numpy() for tensor in given)

    received = coder.decode(coder.encode(*wire), *coder.shape(*wire), hyper)
    found = decoder(bottleneck.from_wire(*(torch.from_numpy(tensor[None]) for tensor in received)))
    error = float((found - expected).abs().max() / expected.abs().max())
    if not error <= _TOLERANCE:
        raise ParityError(f"the image differs from CompressAI's by {error:.0e} of its range")
    # The joint codec rounds y position by position: only its symbols of z can be compared.
    integers = [sent[name] for name in ("hyper_symbols", "symbols") if name in sent]
    pairs = list(zip(integers, quantised, strict=False))
    count = sum(ours.numel() for ours, _ in pairs)
    equal = sum(int((ours == theirs).sum()) for ours, theirs in pairs)
    return (
        f"compressai {version('compressai')}: {equal:,} of {count:,} symbols equal, "
        f"decoded image {_within(error)}"
    )


def _record_symbols(peer: Any) -> list[Tensor]:
    """Return a list that CompressAI's model fills with what it quantises: z, if any, then y."""
    recorded: list[Tensor] = []

    def watch(model: Any) -> None:
        quantize = model.quantize

        def record(*given: Any, **named: Any) -> Tensor:
            recorded.append(quantize(*given, **named))
            return recorded[-1]

        model.quantize = record

    for name in ("entropy_bottleneck", "gaussian_conditional"):
        if hasattr(peer, name):
            watch(getattr(peer, name))
    return recorded
