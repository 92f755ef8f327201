"""int8 graphs: explicit QuantizeLinear and DequantizeLinear, with ranges seen on images."""

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

from ..formats.base import Integers
from ..options import KEPT, Keep
from .node_roles import NodeRoles, is_convolution, read_named


@dataclass(frozen=True)
class Lowered:
    """Names of the nodes that compute in int8, and of the convolutions that were left in fp32."""

    nodes: tuple[str, ...]
    kept: tuple[str, ...]


def to_int8(
    source: Path,
    target: Path,
    inputs: Iterable[Mapping[str, NDArray[Any]]],
    *,
    keep: Collection[Keep] = KEPT,
    integers: Integers = Integers(),  # noqa: B008  # frozen
) -> Lowered:
    """Write an fp32 ONNX graph again with its convolutions in int8.

    Weights are symmetric per output channel, activations have one range per tensor, biases stay
    fp32. Whatever follows a rounding stays fp32 too, because the edge computes some of it again:
    one scale index that differs ends the decoding.

    Args:
        source: File of the fp32 graph.
        target: File to write.
        inputs: Inputs of the graph by name, for one image after another; gone through once.
        keep: Parts that stay in fp32.
        integers: Integers that the engine wants.

    Raises:
        BundleError: There are no inputs, or nothing in the graph can be quantised.
    """
    import onnx
    from onnxruntime import quantization

    model = read_named(source)
    to_rounding = NodeRoles(model).to_rounding
    remaining = iter(inputs)
    first = next(remaining, None)
    if first is None:
        raise BundleError("int8 takes its ranges from images, and there are none.")
    lowered = choose_convolutions(model, keep)
    chosen = lowered.nodes
    _unshare_weights(model, set(chosen))
    types = quantization.QuantType
    operators = sorted({node.op_type for node in model.graph.node if is_convolution(node)})
    with tempfile.TemporaryDirectory() as folder, _quiet():
        named = Path(folder) / "named.onnx"
        onnx.save(model, named)
        quantization.quantize_static(
            str(named),
            str(target),
            _Reader(chain([first], remaining)),  # pyright: ignore[reportArgumentType]  # it calls get_next only
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=operators,
            nodes_to_quantize=list(chosen),
            per_channel=True,
            reduce_range=integers.weight_bits == 7,
            activation_type=types.QUInt8 if integers.unsigned else types.QInt8,
            weight_type=types.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": not integers.unsigned,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": [] if integers.unsigned else operators,
            },
        )
    _finish(target, to_rounding - set(chosen))
    return lowered


def choose_convolutions(model: Any, keep: Collection[Keep]) -> Lowered:
    """Choose the convolutions of an ONNX model that compute in int8.

    Args:
        model: ONNX model in fp32, its nodes with names.
        keep: Parts that stay in fp32.

    Raises:
        BundleError: There are none.
    """
    roles = NodeRoles(model)
    stays = set(roles.after_rounding)
    stays |= roles.last_convolutions if "last" in keep else set()
    stays |= roles.gdn_norms if "gdn" in keep else set()
    convolutions = [node for node in model.graph.node if is_convolution(node)]
    constants = {tensor.name for tensor in model.graph.initializer}
    # A product of two activations gains nothing.
    chosen = [
        node.name
        for node in convolutions
        if node.name not in stays and not constants.isdisjoint(node.input[:2])
    ]
    if not chosen:
        raise BundleError(
            "The graph has nothing to compute in int8.",
            next_step="Export it in fp32, or keep less in fp32.",
        )
    # What could not have been lowered was not kept either.
    untouchable = roles.after_rounding.union(chosen)
    kept = (node.name for node in convolutions if node.name not in untouchable)
    return Lowered(tuple(chosen), tuple(kept))


def _finish(path: Path, to_rounding: set[str]) -> None:
    """Let nodes that lead to a rounding in fp32 read fp32, and remove the quantiser's notes.

    Where a latent is also quantised, for a hyperprior's analysis, the quantiser lets every node
    read the quantised values, even the subtraction of the means that gives y's symbols.
    """
    import onnx

    model = onnx.load(path)
    makers = {name: node for node in model.graph.node for name in node.output}

    def exact(name: str) -> str:
        node = makers.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in makers:
            return name
        source = makers[node.input[0]].input[0]
        return source if source in makers and makers[source].name in to_rounding else name

    for node in model.graph.node:
        if node.name in to_rounding:
            for place, name in enumerate(node.input):
                node.input[place] = exact(name)
    del model.metadata_props[:]
    onnx.save(model, path)


def _unshare_weights(model: Any, chosen: set[str]) -> None:
    """Give each chosen node weights of its own.

    ONNX Runtime, when told to be exact on x86 without VNNI, cannot load weights that two nodes
    share.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    taken: set[str] = set()
    for node in model.graph.node:
        for place, name in enumerate(node.input[:2] if node.name in chosen else ()):
            if name in constants and name in taken:
                own = type(constants[name])()
                own.CopyFrom(constants[name])
                own.name = node.input[place] = f"{name}_of_{node.name}"
                model.graph.initializer.append(own)
            taken.add(name)


class _Reader:
    """Gives ONNX Runtime's calibration one input after another."""

    def __init__(self, inputs: Iterable[Mapping[str, NDArray[Any]]]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """Return the next input, or None."""
        return next(self._inputs, None)


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
