"""Convert an ONNX file for LiteRT, in an environment that has onnx2tf.

    python onnx_to_tflite.py SOURCE TARGET [RANGES NODES]

NODES names the ONNX nodes that compute in int8, as JSON; RANGES is a file of arrays (images, …) by
input. Shapes stay (N, C, H, W).
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx2tf  # pyright: ignore[reportMissingImports]

_OPERATORS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")


def main(source: str, target: str, ranges: str = "", nodes: str = "[]") -> None:
    """Write the file."""
    names = [value.name for value in onnx.load(source).graph.input]
    stem = Path(source).stem
    with tempfile.TemporaryDirectory() as folder:
        onnx2tf.convert(
            input_onnx_file_path=source,
            output_folder_path=folder,
            keep_shape_absolutely_input_names=names,
            not_use_onnxsim=True,
            non_verbose=True,
        )
        fp32 = Path(folder) / f"{stem}_float32.tflite"
        if ranges:
            report = Path(folder) / f"{stem}_tensor_correspondence_report.json"
            quantise(fp32, target, names, np.load(ranges), made_of(report, json.loads(nodes)))
        else:
            Path(target).write_bytes(fp32.read_bytes())


def made_of(report: Path, nodes: list[str]) -> list[str]:
    """Return the names that the outputs of ONNX nodes have now."""
    records = json.loads(report.read_text(encoding="utf-8"))["records"]
    found = {one["onnx_op_name"]: one["resolved_tflite_tensor_name"] for one in records}
    if missing := [node for node in nodes if not found.get(node)]:
        raise SystemExit(f"onnx2tf dropped {missing[0]}")
    return [found[node] for node in nodes]


def quantise(source: Path, target: str, names: list[str], arrays: Any, outputs: list[str]) -> None:
    """Let the operators that make ``outputs`` compute in int8."""
    from ai_edge_quantizer import qtyping, quantizer  # pyright: ignore[reportMissingImports]

    made = quantizer.Quantizer(str(source))
    for operator in _OPERATORS:
        made.add_static_config(
            # The output's name is followed by a semicolon.
            regex=f"^({'|'.join(map(re.escape, outputs))});?$",
            operation_name=qtyping.TFLOperationName[operator],
            activation_num_bits=8,
            weight_num_bits=8,
        )
    images = len(arrays[names[0]])
    samples = [{name: arrays[name][n : n + 1] for name in names} for n in range(images)]
    ranges = made.calibrate({"serving_default": samples})
    made.quantize(ranges).export_model(target, overwrite=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
