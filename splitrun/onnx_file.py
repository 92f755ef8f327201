"""ONNX files that may be hostile: nothing in them but what splitzoo's exporters write.

A board has ONNX Runtime and not the onnx package, so the few messages of the format are walked
here, as protobuf's encoding says: one pass, no recursion, weights are not copied.
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .errors import BundleError

_NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast
    CastLike Ceil Celu Clip Col2Im Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh
    CumSum DeformConv DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten
    Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool MatMul Max MaxPool MaxUnpool Mean MeanVarianceNormalization
    Min Mish Mod Mul Neg Not Or PRelu Pad Pow QuantizeLinear Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Resize RoiAlign Round ScatterElements ScatterND Selu Shape Shrink
    Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub
    Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""
OPERATORS = frozenset(_NAMES.split())
"""Those of ONNX's own that make tensors of tensors: no loops, branches, sequences, randomness or
strings, and none whose work or output has no bound in the sizes that it is given."""

_MAX_FIELDS = 1 << 20

# Fields by number: those that occur once, and those that may occur again. Whatever is not here,
# such as functions, inner graphs, training and references to other files, is refused.
_MODEL = {1, 2, 3, 4, 5, 6, 7}, {8, 14}
_GRAPH = {2, 10}, {1, 5, 11, 12, 13, 16}
_NODE = {3, 4, 6, 7, 8}, {1, 2, 5, 9}
_ATTRIBUTE = {1, 2, 3, 4, 5, 13, 20}, {7, 8, 9, 10}
_TENSOR = {2, 8, 9, 12, 14}, {1, 4, 5, 7, 10, 11, 13, 16}
_GRAPH_OF_MODEL, _NODES, _INITIALISERS, _ATTRIBUTES = 7, 1, 5, 5
_OPERATOR, _DOMAIN, _OVERLOAD, _TENSORS = 4, 7, 8, (5, 10)
_SIZES, _TYPE, _RAW, _OTHER_FILE, _LOCATION = 1, 2, 9, 13, 14

# Bytes of an element by data type, and the fields beside raw_data that hold elements: of a fixed
# number of bytes each, or, 0, numbers of 7 bits a byte.
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
_ELEMENTS = {4: 4, 5: 0, 7: 0, 10: 8, 11: 0}


def check_onnx_file(path: Path) -> None:
    """Refuse a file that is not a plain graph of :data:`OPERATORS` with its weights inside.

    Raises:
        BundleError: It is not; says what it holds.
    """
    try:
        with path.open("rb") as file:
            _check_model(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} is not run: {error}.",
            next_step="If you or someone you trust made the bundle: --trust",
        ) from error


_Field = tuple[int, memoryview | int]


def _check_model(data: memoryview) -> None:
    graphs = [value for number, value in _fields(data, _MODEL) if number == _GRAPH_OF_MODEL]
    if not graphs:
        raise ValueError("it holds no graph")
    for number, value in _fields(graphs[0], _GRAPH):
        if number == _NODES:
            _check_node(value)
        elif number == _INITIALISERS:
            _check_tensor(value)


def _check_node(data: memoryview | int) -> None:
    fields = list(_fields(data, _NODE))
    words = {number: _text(value) for number, value in fields if number in (4, 7, 8)}
    operator, domain = words.get(_OPERATOR, ""), words.get(_DOMAIN, "")
    if domain not in ("", "ai.onnx") or operator not in OPERATORS or words.get(_OVERLOAD):
        name = f"{domain}.{operator}".lstrip(".")
        raise ValueError(f"it holds the operator {name!r}, which splitzoo does not write")
    for number, attribute in fields:
        if number == _ATTRIBUTES:
            for part, value in _fields(attribute, _ATTRIBUTE):
                if part in _TENSORS:
                    _check_tensor(value)


def _check_tensor(data: memoryview | int) -> None:
    """See that a tensor's elements are in the file, as many as its sizes say."""
    fields = list(_fields(data, _TENSOR))
    kinds = [value for number, value in fields if number == _TYPE and isinstance(value, int)]
    if kinds and kinds[0] not in _BYTES:
        raise ValueError(f"it holds a tensor of type {kinds[0]}, which splitzoo does not write")
    if any(number == _OTHER_FILE or (number == _LOCATION and value) for number, value in fields):
        raise ValueError("it keeps weights in another file, which the manifest does not name")
    sizes = [size for number, value in fields if number == _SIZES for size in _varints(value)]
    expected = math.prod(sizes)
    found = 0
    for number, value in fields:
        if number == _RAW and kinds and not isinstance(value, int):
            found += len(value) // _BYTES[kinds[0]]
        elif number in _ELEMENTS:
            found += _count(value, _ELEMENTS[number])
    if found != expected:
        raise ValueError(f"it holds a tensor of {found:,} elements that says it has {expected:,}")


def _fields(data: memoryview | int, known: tuple[set[int], set[int]]) -> Iterator[_Field]:
    """Go through the fields of a message: numbers, and for those with a length what they hold."""
    once, again = known
    seen: set[int] = set()
    place, count = 0, 0
    if isinstance(data, int):
        raise ValueError("it is damaged")
    while place < len(data):
        key, place = _varint(data, place)
        number, kind, count = key >> 3, key & 7, count + 1
        if number not in again and (number not in once or number in seen):
            raise ValueError(f"it holds what splitzoo does not write (field {number})")
        if count > _MAX_FIELDS:
            raise ValueError("it has too many parts")
        seen.add(number)
        value, size = 0, {1: 8, 2: 0, 5: 4}.get(kind)
        if kind == 0:
            value, place = _varint(data, place)
        elif size is None:
            raise ValueError("it is damaged")
        else:
            if kind == 2:
                size, place = _varint(data, place)
            if place + size > len(data):
                raise ValueError("it is cut short")
            value = data[place : place + size] if kind == 2 else 0
            place += size
        yield number, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """Return a number of 7 bits a byte, and the place behind it."""
    for length in range(min(10, len(data) - place)):
        if data[place + length] < 128:
            groups = data[place : place + length + 1]
            return sum((byte & 127) << 7 * i for i, byte in enumerate(groups)), place + length + 1
    raise ValueError("it is damaged")


def _count(value: memoryview | int, size: int) -> int:
    if isinstance(value, int):
        return 1  # one number, not packed with others
    return len(value) // size if size else int((np.frombuffer(value, np.uint8) < 128).sum())


def _varints(value: memoryview | int) -> Iterator[int]:
    if isinstance(value, int):
        yield value
        return
    place = 0
    while place < len(value):
        number, place = _varint(value, place)
        yield number


def _text(value: memoryview | int) -> str:
    return "" if isinstance(value, int) else bytes(value[:200]).decode("utf-8", "replace")
