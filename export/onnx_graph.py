"""Write modules as ONNX files, and check such files."""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from splitrun.errors import BundleError

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn


_MAX_ELEMENTS = 1 << 28


def write_onnx(
    graph: "nn.Module",
    examples: "Sequence[Tensor]",
    path: Path,
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic_batch: bool,
    opset: int,
) -> None:
    """Write a module whose ``forward`` takes ``*tensors`` as one ONNX file, weights inside.

    Raises:
        BundleError: The exporter failed.
    """
    import torch

    if dynamic_batch:
        # From an example of one image, the exporter would fix the batch to 1.
        examples = [torch.cat([example[:1], example[:1]]) for example in examples]
    batch = {0: torch.export.Dim("batch", min=1, max=1 << 16)}
    shapes = (tuple(batch for _ in examples),) if dynamic_batch else None
    graph = graph.eval()
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                tuple(examples),
                dynamo=True,
                opset_version=opset,
                input_names=list(input_names),
                output_names=list(output_names),
                dynamic_shapes=shapes,
                external_data=False,
                optimize=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise BundleError(f"PyTorch cannot export {path.name} to ONNX: {error}") from error
    if program is None:
        raise BundleError(f"PyTorch exported nothing for {path.name}.")
    proto = program.model_proto
    _strip_origins(proto)
    path.write_bytes(proto.SerializeToString())


def check_onnx(path: Path) -> None:
    """Refuse a file that is not valid ONNX, has no input, or has outputs that ignore it.

    Raises:
        BundleError: The file is one of those.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        onnx.checker.check_model(str(path), full_check=True)
        model = onnx.load(path, load_external_data=False)
        shaped = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        DecodeError,
        ValueError,
    ) as error:
        raise BundleError(f"{path} is not valid ONNX: {error}") from error
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in _tensors(model.graph)):
        raise BundleError(f"{path} keeps weights in other files; a bundle's graph is one file.")
    _check_sizes(path, shaped.graph)
    if not model.graph.input:
        raise BundleError(f"{path} has no input: the exporter froze its output into a constant.")
    outputs = {value.name for value in model.graph.output}
    if not outputs or not outputs <= _reached(model):
        raise BundleError(f"{path} gives the same output for every input.")


def _check_sizes(path: Path, graph: "onnx.GraphProto") -> None:
    """Refuse a graph with a tensor that no network of images has; the batch counts as one."""
    for value in (*graph.value_info, *graph.output):
        sizes = [dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim]
        if math.prod(sizes) > _MAX_ELEMENTS:
            shape = "×".join(f"{size:,}" for size in sizes)
            raise BundleError(f"{path} is not run: its tensor {value.name} is {shape} large.")


def _reached(model: "onnx.ModelProto") -> set[str]:
    """Return the names of the values that depend on an input. Nodes are in topological order."""
    reached = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _tensors(graph: "onnx.GraphProto") -> "Iterator[onnx.TensorProto]":
    """Go through all constants of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            if inner.node or inner.initializer:
                yield from _tensors(inner)


def _strip_origins(proto: "onnx.ModelProto") -> None:
    """Remove stack traces and source paths of the exporting machine."""
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]
    proto.graph.doc_string = ""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
        value.doc_string = ""


@contextlib.contextmanager
def _quiet():
    """Keep the exporter's progress lines and its own deprecations off the terminal."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
