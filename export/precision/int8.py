"""int8 by explicit QuantizeLinear and DequantizeLinear, of ranges seen on images."""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from splitrun.errors import BundleError

from .integers import SYMMETRIC, Integers
from .keep import KEPT, Keep
from .onnx_nodes import Places, is_convolution, read_named


@dataclass(frozen=True)
class Quantised:
    """Names of the nodes that compute in int8, and of the convolutions that were left in fp32."""

    nodes: tuple[str, ...]
    kept: tuple[str, ...]


def quantise(
    source: Path,
    target: Path,
    inputs: Iterable[Mapping[str, NDArray[Any]]],
    *,
    keep: Collection[Keep] = KEPT,
    integers: Integers = SYMMETRIC,
) -> Quantised:
    """Write an fp32 ONNX device graph again with its convolutions in int8.

    Weights are symmetric per output channel, activations have one range per tensor, biases stay
    fp32. Whatever follows a rounding stays
    fp32, since the edge computes some of it again: one scale index that differs ends the decoding.

    Args:
        source: The fp32 file.
        target: To write.
        inputs: Of the graph, by name, one image each; gone through once.
        keep: Parts that stay in fp32.
        integers: What the engine wants.

    Raises:
        BundleError: There are no inputs, or nothing in the graph can be quantised.
    """
    import onnx
    from onnxruntime import quantization

    model = read_named(source)
    places = Places(model)
    given = iter(inputs)
    first = next(given, None)
    if first is None:
        raise BundleError("int8 takes its ranges from inputs of the graph, and there are none.")
    stays = set(places.after_rounding)
    stays |= places.last if "last" in keep else set()
    stays |= places.norms if "gdn" in keep else set()
    found = [node for node in model.graph.node if is_convolution(node)]
    chosen = [node.name for node in found if node.name not in stays and _has_weights(node, model)]
    if not chosen:
        raise BundleError(
            "The device graph has nothing to compute in int8.",
            next_step="Leave --precision int8 out, or keep less in fp32.",
        )
    _part_weights(model, set(chosen))
    kinds, kinds_found = quantization.QuantType, sorted({node.op_type for node in found})
    with tempfile.TemporaryDirectory() as folder, _quiet():
        named = Path(folder) / "named.onnx"
        onnx.save(model, named)
        quantization.quantize_static(
            str(named),
            str(target),
            _Reader(chain([first], given)),  # pyright: ignore[reportArgumentType]  # it asks for get_next alone
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=kinds_found,
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=integers.weight_bits == 7,
            activation_type=kinds.QUInt8 if integers.unsigned else kinds.QInt8,
            weight_type=kinds.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": not integers.unsigned,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": [] if integers.unsigned else kinds_found,
            },
        )
    _finish(target, places.rounded - set(chosen))
    # What nobody could have lowered is not what was kept.
    kept = (node.name for node in found if node.name not in (*chosen, *places.after_rounding))
    return Quantised(tuple(chosen), tuple(kept))


def _finish(path: Path, rounded: set[str]) -> None:
    """Let what leads to a rounding in fp32 read fp32 throughout, and remove the quantiser's notes.

    A latent that is also quantised, for a hyperprior's analysis, has its quantised values read by
    everyone: by the subtraction of the means too, which gives y's symbols.
    """
    import onnx

    model = onnx.load(path)
    made_by = {name: node for node in model.graph.node for name in node.output}

    def exact(name: str) -> str:
        node = made_by.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in made_by:
            return name
        source = made_by[node.input[0]].input[0]
        given = made_by.get(source)
        return source if given is not None and given.name in rounded else name

    for node in model.graph.node:
        if node.name in rounded:
            for place, name in enumerate(node.input):
                node.input[place] = exact(name)
    del model.metadata_props[:]
    onnx.save(model, path)


def _part_weights(model: Any, chosen: set[str]) -> None:
    """Give each chosen node weights of its own.

    ONNX Runtime, made to be exact on x86 without VNNI, cannot load weights that two share.
    """
    constants = {one.name: one for one in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        for place, name in enumerate(node.input[:2] if node.name in chosen else ()):
            if name in constants and name in taken:
                own = type(constants[name])()
                own.CopyFrom(constants[name])
                own.name = node.input[place] = f"{name}_of_{node.name}"
                model.graph.initializer.append(own)
            taken.add(name)


def _has_weights(node: Any, model: Any) -> bool:
    """Say whether one factor is constant: a product of two activations gains nothing."""
    constants = {one.name for one in model.graph.initializer}
    return any(name in constants for name in node.input[:2])


class _Reader:
    """Gives ONNX Runtime's calibration one input after another."""

    def __init__(self, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the next input, or None."""
        following = next(self._inputs, None)
        return None if following is None else dict(following)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser's advice, which is for other uses, off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
