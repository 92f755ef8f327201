"""The fastest that a library multiplies and adds on this machine, in a process of its own.

    python benchmarks/speed_peaks.py LIBRARY PRECISION FILE

What is timed is what libraries are best at: large products of matrices, and convolutions of many
channels, four in a row, whose weights are constant and may be packed beforehand. The fastest run
counts. Writes a list of :class:`Peak` to the file.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from speed_report import Peak
from speed_tasks import THREADS

LAYERS = 4
SIDE = 1024  # of the matrices
CHANNELS, KERNEL, PIXELS = 128, 5, 56  # 5×5: no library has a shortcut for it
WARMUP, RUNS = 5, 25
CHOICES = (  # library, precision, and instructions without which it is slow, or another
    ("torch", "fp32", ""),
    ("onnxruntime", "fp32", ""),
    ("openvino", "fp32", ""),
    ("torch", "bf16", "BF16"),
    ("openvino", "bf16", "BF16"),
    ("torch", "int8", "VNNI"),
    ("onnxruntime", "int8", ""),
    ("openvino", "int8", ""),
)
OPERATIONS = ("matrix products", "convolutions")
NOWHERE_TO_BE_HAD = ("torch", "int8", "convolutions")


def macs(operation: str) -> int:
    """Count the multiply-accumulates of all layers."""
    if operation == "matrix products":
        return LAYERS * SIDE**3
    sides = [PIXELS - (KERNEL - 1) * layer for layer in range(1, LAYERS + 1)]
    return sum(CHANNELS**2 * KERNEL**2 * side**2 for side in sides)


def build_onnx(operation: str, quantised: bool) -> bytes:
    """Return an ONNX file of the layers; quantised ones read and write uint8, weights are int8."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    product = operation == "matrix products"
    shape = (SIDE, SIDE) if product else (CHANNELS, CHANNELS, KERNEL, KERNEL)
    scale = {"activation_scale": np.float32(0.02), "weight_scale": np.float32(0.01)}
    zero = {"activation_zero": np.uint8(0), "weight_zero": np.int8(0)}
    constants = [numpy_helper.from_array(np.array(v), n) for n, v in (scale | zero).items()]
    nodes, value = [], "input"
    for layer in range(LAYERS):
        weight = f"weight_{layer}"
        if quantised:
            nodes += [
                helper.make_node("QuantizeLinear", [value, *ACTIVATION], [f"quantised_{layer}"]),
                helper.make_node(
                    "DequantizeLinear", [f"quantised_{layer}", *ACTIVATION], [f"x_{layer}"]
                ),
                helper.make_node("DequantizeLinear", [weight, *WEIGHT], [f"w_{layer}"]),
            ]
            array = random.integers(-127, 127, shape, np.int8, endpoint=True)
            operands = [f"x_{layer}", f"w_{layer}"]
        else:
            array = random.normal(size=shape, scale=0.03).astype(np.float32)
            operands = [value, weight]
        constants.append(numpy_helper.from_array(array, weight))
        value = f"output_{layer}"
        nodes.append(helper.make_node("MatMul" if product else "Conv", operands, [value]))
    if quantised:
        nodes.append(helper.make_node("QuantizeLinear", [value, *ACTIVATION], ["output"]))
        value = "output"
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape(operation))],
        [helper.make_empty_tensor_value_info(value)],
        constants,
    )
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


ACTIVATION = ("activation_scale", "activation_zero")
WEIGHT = ("weight_scale", "weight_zero")


def input_shape(operation: str) -> tuple[int, ...]:
    """Return the shape of the first layer's input."""
    return (SIDE, SIDE) if operation == "matrix products" else (1, CHANNELS, PIXELS, PIXELS)


def in_onnxruntime(operation: str, precision: str) -> Callable[[], object]:
    """Return what runs the layers."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    model = build_onnx(operation, precision == "int8")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random(input_shape(operation), np.float32)
    return lambda: session.run(None, {"input": image})


def in_openvino(operation: str, precision: str) -> Callable[[], object]:
    """Return what runs the layers."""
    from splitrun.engines.openvino_runtime import openvino_core

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": THREADS,
    }
    core = openvino_core()
    model = core.read_model(build_onnx(operation, precision == "int8"))
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    image = np.random.default_rng(0).random(input_shape(operation), np.float32)
    return lambda: request.infer([image], share_inputs=True, share_outputs=True)


def in_torch(operation: str, precision: str) -> Callable[[], object]:
    """Return what runs the layers."""
    import torch

    torch.set_num_threads(THREADS)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}[precision]
    random = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randint(-8, 8, shape, generator=random).to(kind)

    image = tensor(*input_shape(operation))
    if operation == "matrix products":
        weight = tensor(SIDE, SIDE)
        multiply = torch._int_mm if precision == "int8" else torch.mm
        return lambda: [multiply(image, weight) for _ in range(LAYERS)]
    layers = [
        torch.nn.Conv2d(CHANNELS, CHANNELS, KERNEL, bias=False).to(kind) for _ in range(LAYERS)
    ]
    run = torch.nn.Sequential(*layers).eval()

    def convolve() -> torch.Tensor:
        with torch.inference_mode():
            return run(image)

    return convolve


def measure(library: str, precision: str) -> list[Peak]:
    """Time what the library has."""
    builders = {"torch": in_torch, "onnxruntime": in_onnxruntime, "openvino": in_openvino}
    found = []
    for operation in OPERATIONS:
        if (library, precision, operation) == NOWHERE_TO_BE_HAD:
            continue
        run = builders[library](operation, precision)
        seconds = []
        for _ in range(WARMUP + RUNS):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        rate = macs(operation) / min(seconds[WARMUP:]) / 1e9
        found.append(Peak(library, precision, operation, rate))
    return found


if __name__ == "__main__":
    peaks = measure(*sys.argv[1:3])
    Path(sys.argv[3]).write_text(json.dumps([asdict(one) for one in peaks]))
