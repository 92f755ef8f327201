"""``build_engine.py`` on the board: build engines, compare them with the record, time them."""

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..bundle import Bundle, open_bundle
from ..bundle_layout import ENGINES_FOLDER
from ..comparison import check_outputs
from ..errors import BundleError, SplitzooError
from ..files import new_file, sha256_file
from ..halves import Device, Edge, Graph, checked_graph
from ..machine import machine
from ..manifest import GraphInfo
from ..measure import measure_steps
from ..record import DeviceRecord, EdgeRecord
from ..selftest import check_device, check_edge_inputs, check_halves
from ..sizes import format_size
from .builder import WORKSPACE_BYTES, Shape, build
from .cuda import open_cuda
from .key import output_of
from .library import import_tensorrt
from .session import RECORD_NAME, find_plan, here

_LARGEST_BATCH = 16
_WARMUP, _ITERATIONS = 20, 200
_MOST_MEBIBYTES = 1 << 20


def main(bundle: Path, argv: list[str] | None = None) -> int:
    """Run ``build_engine.py`` in a bundle's folder and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python build_engine.py",
        description="Build this bundle's engines, compare them with the record, and time them.",
    )
    parser.add_argument(
        "--workspace-mib",
        type=_mebibytes,
        default=WORKSPACE_BYTES >> 20,
        help="memory that TensorRT may use to build, MiB (default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="build engines anew")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    try:
        record = build_bundle(
            open_bundle(bundle),
            workspace_bytes=arguments.workspace_mib << 20,
            force=arguments.force,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except SplitzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: The system refused: {where}{error.strerror or error}.", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(record, indent=2))
        return 0
    for name, entry in record["graphs"].items():
        print(f"{name}: {format_size(entry['plan_bytes'])}, TensorRT {entry['key']['tensorrt']}")
        print(f"  {entry['compared']}")
        times = (f"{part} {entry['latency'][f'{part}_ms']:.3f}" for part in ("p50", "p90", "p99"))
        print("  ms  " + "  ".join(times))
    print(f"written to {ENGINES_FOLDER}/{RECORD_NAME}; next: python -m splitrun selftest")
    return 0


def build_bundle(
    bundle: Bundle,
    *,
    workspace_bytes: int = WORKSPACE_BYTES,
    force: bool = False,
    say: Any = lambda text: None,
) -> dict[str, Any]:
    """Build the engines of a bundle's graphs, compare them with the record, and time them.

    Args:
        workspace_bytes: Memory that TensorRT may use to build.
        force: Build anew what is built.
        say: Function called with each step as it begins.

    Returns:
        Content of ``engines/engine.json``.

    Raises:
        DependencyError: TensorRT, or what reaches the GPU, is not installed.
        BundleError: A graph was changed, or cannot be built.
        ParityError: An engine does not compute what was recorded; none is left then.
    """
    graphs = {name: info for name, info in bundle.graphs.items() if info.engine == "tensorrt"}
    if not graphs:
        raise BundleError(
            f"{bundle.folder} holds no graph for TensorRT: there is nothing to build."
        )
    trt = import_tensorrt()
    cuda = open_cuda()
    folder = bundle.folder / ENGINES_FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / RECORD_NAME
    power = output_of("nvpmodel", "-q")  # the board's power mode
    document: dict[str, Any] = {"graphs": {}, "environment": machine(), "power": power}
    for info in graphs.values():
        file, onnx = info.file, checked_graph(bundle, info)
        key = here(trt, cuda, onnx)
        with contextlib.suppress(SplitzooError):
            if not force and find_plan(onnx, key):
                say(f"{file}: built already")
                document["graphs"][file] = json.loads(path.read_text())["graphs"][file]
                continue
        say(f"{file}: building, which takes minutes")
        cache = folder / "timing.cache"
        built = build(
            trt,
            onnx,
            _open_shapes(info),
            timing_cache=cache.read_bytes() if cache.is_file() else b"",
            workspace_bytes=workspace_bytes,
        )
        plan = folder / f"{onnx.stem}.plan"
        for target, content in ((plan, built.plan), (cache, built.timing_cache)):
            with new_file(target, force=True) as temporary:
                temporary.write_bytes(content)
        document["graphs"][file] = {
            "key": asdict(key),
            "plan_sha256": sha256_file(plan),
            "plan_bytes": len(built.plan),
            "layers": built.layers,
            "building": os.getpid(),
            "messages": list(built.messages),
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    _write(path, document)
    for name, info in graphs.items():
        say(f"{name}: comparing with the record, and timing")
        file = info.file
        try:
            document["graphs"][file] |= _measure(bundle, name, info)
            document["graphs"][file].pop("building", None)
        except BaseException as error:
            # What was not seen to compute the model is not left for anybody to run.
            if isinstance(error, SplitzooError):
                del document["graphs"][file]
            entries = document["graphs"].items()
            if compared := {name: entry for name, entry in entries if "compared" in entry}:
                _write(path, document | {"graphs": compared})
            else:
                path.unlink(missing_ok=True)
            raise
    _write(path, document)
    return document


def _measure(bundle: Bundle, name: str, info: GraphInfo) -> dict[str, Any]:
    """Run a graph on what was recorded, compare and time it."""
    graph = Graph(bundle, info)
    if name == "device":
        record = DeviceRecord.load(bundle)
        inputs = [record.image]
        counted = check_device(bundle, graph(inputs), record)
        result = {
            "symbols": counted.symbols,
            "symbols_differing": counted.differing,
            "largest_difference": counted.largest,
            "compared": f"{counted.differing} of {counted.symbols:,} symbols differ, by up to "
            f"{counted.largest}",
        }
    elif name == "hyper":
        tail = next(iter(bundle.edge.tails))
        edge, recorded = Edge(bundle, tail=tail), EdgeRecord.load(bundle, tail)
        check_edge_inputs(edge, recorded)
        if "device" in bundle.manifest.halves:
            device = Device(bundle)
            check_halves(device, edge, device.wire_tensors(DeviceRecord.load(bundle).image))
        inputs = list(recorded.hyper_inputs.values())
        result = {"compared": "the device's scale indexes, exactly"}
    else:
        tail = next(name for name, one in bundle.edge.tails.items() if info in one.graphs.values())
        recorded = EdgeRecord.load(bundle, tail)
        if info == bundle.tail(tail).graph:
            inputs, expected = list(recorded.inputs.values()), recorded.outputs
        else:
            inputs, expected = recorded.all_boxes_inputs(), recorded.boxes_outputs
        error = check_outputs(graph(inputs), expected, bundle.limits.output_tolerance)
        result = {"output_relative_error": error, "compared": f"outputs within {error:.1e}"}
    latency = measure_steps({"run": graph}, inputs, warmup=_WARMUP, iterations=_ITERATIONS)
    return result | {"latency": asdict(latency["run"])}


def _mebibytes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_MEBIBYTES:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MOST_MEBIBYTES}")
    return int(text)


def _open_shapes(info: GraphInfo) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Return least, usual and largest shape of each input whose batch is open."""
    sizes = {tensor.name: tensor.shape[1:] for tensor in info.inputs if tensor.shape[0] == -1}
    return {name: ((1, *size), (1, *size), (_LARGEST_BATCH, *size)) for name, size in sizes.items()}


def _write(path: Path, document: dict[str, Any]) -> None:
    with new_file(path, force=True) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
