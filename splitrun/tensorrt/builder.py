"""Build a TensorRT engine of an ONNX file, with TensorRT 10.3 to 11."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BundleError
from .library import last_words, logger_of, start

Shape = tuple[int, ...]
WORKSPACE_BYTES = 1 << 30


@dataclass(frozen=True)
class BuiltPlan:
    """A serialised engine, and what building it left.

    Attributes:
        plan: Engine, for this GPU and this TensorRT.
        timing_cache: Timings that make the next build quick; empty where the module keeps none.
        messages: Warnings and errors of TensorRT.
        layers: Number of layers of the network that was parsed.
    """

    plan: bytes
    timing_cache: bytes
    messages: tuple[str, ...]
    layers: int


def build(
    trt: Any,
    onnx: Path,
    shapes: Mapping[str, tuple[Shape, Shape, Shape]] | None = None,
    *,
    timing_cache: bytes = b"",
    workspace_bytes: int = WORKSPACE_BYTES,
) -> BuiltPlan:
    """Parse a typed ONNX file and build an engine of it.

    Precision is the file's: the network is strongly typed. TF32, which would round the factors of
    fp32 convolutions to ten bits and one symbol in a hundred to its neighbour, is switched off.

    Args:
        trt: The module ``tensorrt``, of version 10.3 or later, or one of its interface.
        onnx: Path of the ONNX file.
        shapes: Least, usual and largest shape of each input whose batch is open.
        timing_cache: Timing cache of an earlier build here.
        workspace_bytes: Memory that tactics may use.

    Raises:
        BundleError: TensorRT cannot parse the file, take the shapes, or build; with its words.
    """
    logger = logger_of(trt)
    logger.messages.clear()
    builder = start(trt.Builder, logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        faults = []
        for fault in map(parser.get_error, range(parser.num_errors)):
            place = f"{fault.node_operator()} {fault.node_name()}".strip()
            faults.append(f"{place}: {fault.desc()}" if place else fault.desc())
        raise BundleError(
            f"TensorRT cannot parse {onnx.name}: {'; '.join(faults) or last_words(logger)}"
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    config.clear_flag(trt.BuilderFlag.TF32)
    with _without_deprecations():
        cache = config.create_timing_cache(timing_cache)
        if cache is not None:
            config.set_timing_cache(cache, False)
    if shapes:
        profile = builder.create_optimization_profile()
        for name, (least, usual, largest) in shapes.items():
            try:
                profile.set_shape(name, least, usual, largest)
            except (ValueError, RuntimeError, TypeError) as error:
                refused = f"TensorRT refuses the shapes of {name} in {onnx.name}: {error}"
                raise BundleError(refused) from error
        if config.add_optimization_profile(profile) < 0:
            raise BundleError(
                f"TensorRT refuses the shapes for {onnx.name}: {shapes}. {last_words(logger)}"
            )
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BundleError(f"TensorRT cannot build an engine of {onnx.name}: {last_words(logger)}")
    with _without_deprecations():
        kept = config.get_timing_cache() if cache is not None else None
        grown = b"" if kept is None else bytes(kept.serialize())
    return BuiltPlan(bytes(plan), grown, tuple(logger.messages), network.num_layers)


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """TensorRT-RTX keeps no timing cache, and says so as a deprecation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
