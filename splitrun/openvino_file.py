"""OpenVINO's pair of files that may be hostile: nothing but what splitzoo's exporters write."""

import math
from pathlib import Path
from xml.etree import ElementTree

from .errors import BundleError

_NAMES = """
    Abs Acos Acosh Add Asin Asinh Atan Atanh AvgPool BatchNormInference Broadcast Ceiling Clamp
    Col2Im Concat Const Convert ConvertLike Convolution ConvolutionBackpropData Cos Cosh CumSum
    DeformableConvolution DepthToSpace Divide Einsum Elu Equal Erf Exp FakeQuantize Floor FloorMod
    Gather GatherElements GatherND Gelu Greater GreaterEqual GridSample GroupConvolution
    GroupConvolutionBackpropData GroupNormalization HSigmoid HSwish HardSigmoid Interpolate IsInf
    IsNaN LRN Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr LogicalXor MVN MatMul
    MaxPool Maximum Minimum Mish Mod Multiply Negative NormalizeL2 NotEqual PReLU Pad Parameter
    Power ROIAlign ROIPooling Range ReLU ReduceL1 ReduceL2 ReduceLogicalAnd ReduceLogicalOr
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Reshape Result Round ScatterElementsUpdate
    ScatterNDUpdate ScatterUpdate Select Selu ShapeOf Sigmoid Sign Sin Sinh Slice SoftMax SoftPlus
    SoftSign SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tan Tanh
    Tile TopK Transpose Unsqueeze VariadicSplit
"""
OPERATORS = frozenset(_NAMES.split())

_MAX_XML_BYTES = 1 << 26
_BITS = {"boolean": 8, "bf16": 16}
"""Bits of an element where its type's name does not end in them, such as those of ``f32``."""


def check_openvino_files(path: Path, weights: Path | None) -> None:
    """Refuse files that are not a plain graph of :data:`OPERATORS` and the weights beside it.

    Raises:
        BundleError: They are not; says what they hold.
    """
    try:
        # OpenVINO looks for the weights there, whatever the manifest says.
        if path.suffix != ".xml" or weights is None or weights != path.with_suffix(".bin"):
            raise ValueError("it is not an .xml file whose weights are the .bin file beside it")
        for layer in read_layers(path):
            _check_layer(layer, weights.stat().st_size)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} is not run: {error}.",
            next_step="If you or someone you trust made the bundle: --trust",
        ) from error


def read_layers(path: Path) -> list[ElementTree.Element]:
    """Return the layers of a graph's ``.xml`` file.

    Raises:
        ValueError: The file is not what OpenVINO writes.
    """
    content = b"<!" if path.stat().st_size > _MAX_XML_BYTES else path.read_bytes()
    # Entities, which can grow without bound, are declared with <!. OpenVINO writes none, and
    # only ASCII.
    if not content.isascii() or b"<!" in content or b"\0" in content:
        raise ValueError("it is not what OpenVINO writes")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not valid XML: {error}") from error
    layers = root.findall("./layers/layer")
    kinds = [layer.get("type") for layer in layers]
    if root.tag != "net" or "Parameter" not in kinds or "Result" not in kinds:
        raise ValueError("it is not a graph with an input and an output")
    if foreign := {part.tag for part in root} - {"layers", "edges", "rt_info", "meta_data"}:
        raise ValueError(f"it holds {min(foreign)!r}, which splitzoo does not write")
    return layers


def _check_layer(layer: ElementTree.Element, weights_bytes: int) -> None:
    kind, version = layer.get("type", ""), layer.get("version", "")
    inner = {part.tag for part in layer} - {"data", "input", "output", "rt_info"}
    if kind not in OPERATORS or not version.startswith("opset") or inner:
        name = f"{version}.{kind}".lstrip(".")
        raise ValueError(f"it holds the operator {name!r}, which splitzoo does not write")
    data = layer.find("data")
    if kind != "Const" or data is None:
        return
    element = data.get("element_type", "")
    sizes = [int(size) for size in data.get("shape", "").split(",") if size.strip()]
    bits = _BITS.get(element) or int(element.lstrip("abcdefghijklmnopqrstuvwxyz") or -1)
    size, offset = int(data.get("size", -1)), int(data.get("offset", -1))
    if (
        size != -(-math.prod(sizes) * bits // 8)
        or min([size, offset, *sizes]) < 0
        or offset + size > weights_bytes
    ):
        raise ValueError("a constant is not in the file of weights, or not as large as it says")
