"""Engines for a Jetson, as far as a machine without one can tell.

TensorRT-RTX parses and builds ahead of time without a GPU; loading and running an engine, and the
CUDA below it, are executed nowhere here.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from board import ABSENT
from commands import refused
from onnx import TensorProto, helper, numpy_helper

from splitrun.bundle import open_bundle
from splitrun.errors import BundleError, DependencyError
from splitrun.files import sha256_file
from splitrun.halves import Device
from splitrun.manifest import GraphInfo, TensorInfo
from splitrun.memory_limit import can_be_limited
from splitrun.tensorrt.builder import build
from splitrun.tensorrt.key import EngineKey, jetpack_version, l4t_version
from splitrun.tensorrt.session import find_plan
from splitzoo import export
from splitzoo.export.jetson import trtexec
from splitzoo.export.tensorrt_operators import check_supported, unsupported

SOURCES = Path(__file__).parents[2] / "splitrun" / "tensorrt"
NAMES = json.loads((Path(__file__).parents[1] / "data" / "tensorrt_names.json").read_text())[
    "versions"
]
FLOAT = TensorProto.FLOAT
KEY = EngineKey("10.3.0", "8.7", "Orin, 16 SMs", "JetPack 6.2", "")


@pytest.fixture
def copied(jetson_bundle, tmp_path):
    return shutil.copytree(jetson_bundle, tmp_path / "copied")


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


# The bundle


def test_a_bundle_for_a_jetson_is_checked_with_onnx_runtime(jetson_bundle) -> None:
    bundle = open_bundle(jetson_bundle)
    assert {graph.engine for graph in bundle.graphs.values()} == {"tensorrt"}
    pairs = export.verify(jetson_bundle).manifest.parity.pairs
    assert [pair.device.partition(" ")[0] for pair in pairs] == ["torch", "onnxruntime"]
    page = (jetson_bundle / "README.md").read_text()
    assert "not executed on a Jetson" in page
    assert "trtexec --onnx=device/encoder.onnx --stronglyTyped" in page
    for graph in ("device/encoder.onnx", "edge/decoder.onnx"):
        opsets = onnx.load(jetson_bundle / graph).opset_import
        assert [opset.version <= 20 for opset in opsets if not opset.domain] == [True]
        assert unsupported(jetson_bundle / graph) == []


def test_memory_is_not_limited_where_cuda_runs(jetson_bundle, tiny_bundle) -> None:
    assert not can_be_limited(open_bundle(jetson_bundle))
    assert can_be_limited(open_bundle(tiny_bundle))


def build_script(bundle: Path, *absent: str) -> subprocess.CompletedProcess:
    block = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {(*ABSENT, "tensorrt", *absent)!r}:
            raise ModuleNotFoundError("absent: " + name, name=name)
sys.meta_path.insert(0, Absent())
sys.argv = ["build_engine.py"]
runpy.run_path({str(bundle / "build_engine.py")!r}, run_name="__main__")
"""
    return subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)


def test_the_build_script_names_what_is_missing(jetson_bundle) -> None:
    done = build_script(jetson_bundle)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: TensorRT is not installed.\nIt comes with JetPack (6.1")
    assert not (jetson_bundle / "engines").exists()
    open_bundle(jetson_bundle).check_files()  # and left nothing that the manifest does not name
    done = build_script(jetson_bundle, "PIL")
    assert done.returncode == 1
    assert done.stderr.startswith("error: PIL is not installed.\n")
    assert "requirements.txt" in done.stderr


def test_a_device_without_an_engine_says_how_to_build_one(jetson_bundle) -> None:
    with pytest.raises(DependencyError, match="TensorRT is not installed") as caught:
        Device(open_bundle(jetson_bundle))
    assert "JetPack" in caught.value.next_step
    assert Device(open_bundle(jetson_bundle), stand_in=True).graph.engine.startswith("onnx")


def test_the_runtime_stands_in_on_request_alone(jetson_bundle, splitzoo, photo) -> None:
    refused(
        splitzoo("profile", "encoder", jetson_bundle, "--iterations", 1),
        "TensorRT is not installed",
    )
    code, _, err = splitzoo("export", "run", jetson_bundle, photo)
    assert code == 0
    assert "ran the device graph: no TensorRT engine is here" in err


@pytest.mark.parametrize(("version", "typed"), [(10, True), (11, False)])
def test_lines_of_trtexec_are_those_of_the_version(version, typed) -> None:
    image = (TensorInfo("image", "float32", (-1, 3, 8, 8)),)
    graph = GraphInfo("device/encoder.onnx", "tensorrt", image, image)
    line = trtexec(graph, version)
    assert " --noTF32 " in line
    assert ("--stronglyTyped" in line.split()) is typed
    assert "--minShapes=image:1x3x8x8 --optShapes=image:1x3x8x8 --maxShapes=image:16x3x8x8" in line
    # Not the engine that build_engine.py compared.
    assert line.endswith("--saveEngine=engines/trtexec-encoder.plan --skipInference")


# Keys of engines


@pytest.fixture
def built(copied):
    """A bundle whose engine.json describes an engine; the engine itself is no engine."""
    onnx_file = copied / open_bundle(copied).device.graph.file
    (copied / "engines").mkdir()
    plan = copied / "engines" / "encoder.plan"
    plan.write_bytes(b"plan")
    key = replace(KEY, onnx_sha256=sha256_file(onnx_file))
    entry = {"key": vars(key), "plan_sha256": sha256_file(plan), "compared": "equal"}
    record = copied / "engines" / "engine.json"
    record.write_text(json.dumps({"graphs": {"device/encoder.onnx": entry}}))
    return onnx_file, key, plan, record


def test_an_engine_is_found_where_it_was_built_and_belongs_to_no_manifest(built, copied) -> None:
    onnx_file, key, plan, _ = built
    assert find_plan(onnx_file, key) == plan
    open_bundle(copied).check_files()


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"tensorrt": "10.16.2"}, r"tensorrt 10\.3\.0 \(here 10\.16\.2\)"),
        ({"capability": "11.0"}, r"capability 8\.7 \(here 11\.0\)"),
        ({"jetpack": ""}, r"jetpack JetPack 6\.2 \(here none\)"),
        ({"onnx_sha256": "0"}, "onnx sha256"),
    ],
)
def test_an_engine_of_another_place_is_refused(built, changes, saying) -> None:
    onnx_file, key, *_ = built
    with pytest.raises(BundleError, match=f"built for another place: {saying}") as caught:
        find_plan(onnx_file, replace(key, **changes))
    assert caught.value.next_step == "Build it here: python build_engine.py"


def test_a_damaged_record_of_engines_is_refused(built) -> None:
    onnx_file, key, _, record = built
    for text in (
        *("", "{", "[]", "{}", '{"graphs": []}', "[" * 10_000),
        '{"graphs": {"device/encoder.onnx": 5}}',
        '{"graphs": {"device/encoder.onnx": {"key": {}, "plan_sha256": ""}}}',
    ):
        record.write_text(text)
        with pytest.raises(BundleError, match="does not describe an engine") as caught:
            find_plan(onnx_file, key)
        assert "--force" in caught.value.next_step


def test_a_changed_or_missing_plan_is_refused(built) -> None:
    onnx_file, key, plan, record = built
    plan.write_bytes(b"other")
    with pytest.raises(BundleError, match=r"encoder\.plan is missing or was changed"):
        find_plan(onnx_file, key)
    record.unlink()
    with pytest.raises(BundleError, match=r"No engine of device/encoder\.onnx has been built"):
        find_plan(onnx_file, key)


def test_an_engine_that_nobody_compared_is_refused_but_by_who_builds_it(built) -> None:
    """The process was killed, say for want of memory, before it had compared."""
    onnx_file, key, plan, record = built
    document = json.loads(record.read_text())
    entry = document["graphs"]["device/encoder.onnx"]
    del entry["compared"]
    entry["building"] = os.getpid()
    record.write_text(json.dumps(document))
    assert find_plan(onnx_file, key) == plan
    entry["building"] += 1
    record.write_text(json.dumps(document))
    with pytest.raises(BundleError, match="it was not compared with the record") as caught:
        find_plan(onnx_file, key)
    assert caught.value.next_step == "Build it again: python build_engine.py --force"


def test_jetpack_is_read_from_the_board(tmp_path) -> None:
    text = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
    assert l4t_version(text) == "L4T 36.4.3"
    assert l4t_version("something else") == ""
    assert jetpack_version(tmp_path / "missing") == ""
    (tmp_path / "release").write_text(text)
    assert jetpack_version(tmp_path / "release") == "L4T 36.4.3"


# Operators and types that the parser documents


def value(name: str, kind: int, shape: tuple[int, ...]):
    return helper.make_tensor_value_info(name, kind, shape)


def graph_of(path: Path, *nodes, x=(FLOAT, (1, 4)), y=(FLOAT, (1, 4)), opset=20, weights=()):
    graph = helper.make_graph([*nodes], "g", [value("x", *x)], [value("y", *y)], weights)
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


@pytest.mark.parametrize(
    ("nodes", "output", "opset", "saying"),
    [
        ([("Det", "x", "y")], FLOAT, 20, "the operator Det"),
        ([("Cast", "x", "y", TensorProto.INT16)], TensorProto.INT16, 20, "INT16 of Cast"),
        ([("Cast", "x", "y", TensorProto.INT8)], TensorProto.INT8, 20, "INT8 of Cast"),
        ([("Abs", "x", "y")], FLOAT, 21, "opset 21"),
        (
            [("Cast", "x", "b", TensorProto.UINT8), ("Cast", "b", "y", FLOAT)],
            *(FLOAT, 20, "UINT8 of Cast"),
        ),
    ],
)
def test_what_the_parser_does_not_document_is_refused(
    nodes, output, opset, saying, tmp_path
) -> None:
    made = [
        helper.make_node(op, [start], [end], name=f"node_{end}", **({"to": to[0]} if to else {}))
        for op, start, end, *to in nodes
    ]
    path = graph_of(tmp_path / "g.onnx", *made, y=(output, (1, 4)), opset=opset)
    with pytest.raises(BundleError, match=rf"documents no support for .*{saying}"):
        check_supported(path)


def test_bytes_may_leave_a_graph(tmp_path) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], name="cast", to=TensorProto.UINT8)
    assert unsupported(graph_of(tmp_path / "g.onnx", node, y=(TensorProto.UINT8, (1, 4)))) == []


def test_comparisons_give_truth_values_of_what_the_table_has(tmp_path) -> None:
    same = helper.make_node("Equal", ["x", "x"], ["same"], name="same")
    y = helper.make_node("Where", ["same", "x", "x"], ["y"], name="choice")
    assert unsupported(graph_of(tmp_path / "g.onnx", same, y)) == []
    truths = helper.make_node("Equal", ["same", "same"], ["all"], name="all")
    y = helper.make_node("Where", ["all", "x", "x"], ["y"], name="choice")
    path = graph_of(tmp_path / "g.onnx", same, truths, y)
    assert unsupported(path) == ["BOOL of Equal (all)"]


def test_branches_are_looked_into(tmp_path) -> None:
    matrix = numpy_helper.from_array(np.eye(3, dtype=np.float32), "m")
    d = value("d", FLOAT, ())
    branches = {}
    for name in ("then", "else"):
        node = helper.make_node("Det", ["m"], ["d"], name=f"{name}_node")
        branches[f"{name}_branch"] = helper.make_graph([node], name, [], [d], [matrix])
    chosen = helper.make_node("If", ["x"], ["y"], name="choice", **branches)
    path = graph_of(tmp_path / "g.onnx", chosen, x=(TensorProto.BOOL, ()), y=(FLOAT, ()))
    found = {f"the operator Det ({name}_node)" for name in ("then", "else")}
    assert set(unsupported(path)) == found


# Names of TensorRT's interface, in the versions of JetPack 6.1 to the newest


SPEAKING = ("builder", "library", "session")
"""The files of ``runtime/tensorrt`` that call TensorRT; the others hand the module on."""
OBJECTS = {
    **{"trt": "module", "builder": "Builder", "network": "INetworkDefinition"},
    **{"parser": "OnnxParser", "config": "IBuilderConfig", "profile": "IOptimizationProfile"},
    **{"fault": "ParserError", "cache": "ITimingCache", "kept": "ITimingCache"},
    **{"context": "IExecutionContext"},
    **{"_engine": "ICudaEngine", "_context": "IExecutionContext", "_runtime": "Runtime"},
    "_trt": "module",
}
"""What the variables of ``runtime/tensorrt`` hold: a new one has to be named here."""
FUNCTIONS = {"nptype", "__version__", "init_libnvinfer_plugins"}
"""Of the module; the lists hold classes."""
VALUES = {"plan"}
"""Variables that hold what TensorRT gave, of which no attribute is asked."""


def used_names() -> set[tuple[str, str]]:
    found = set()
    for node in nodes_of_sources():
        if not isinstance(node, ast.Attribute):
            continue
        base, path = node.value, [node.attr]
        while isinstance(base, ast.Attribute) and base.attr not in OBJECTS:
            path.insert(0, base.attr)
            base = base.value
        holder = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        if holder in OBJECTS:
            found.update(zip([OBJECTS[holder], *path], path, strict=False))
    return found


def nodes_of_sources() -> Iterator[ast.AST]:
    for name in SPEAKING:
        yield from ast.walk(ast.parse((SOURCES / f"{name}.py").read_text()))


def made_by_tensorrt() -> set[str]:
    """Return the variables whose value a call of TensorRT's gave."""
    found = set()
    for node in nodes_of_sources():
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        called = node.value.func
        if getattr(called, "id", "") == "start":
            called = node.value.args[0]
        base = called.value if isinstance(called, ast.Attribute) else None
        holder = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
        if holder in OBJECTS:
            found.update(getattr(one, "id", getattr(one, "attr", "")) for one in node.targets)
    return found


def test_no_variable_with_something_of_tensorrts_is_passed_over() -> None:
    made = made_by_tensorrt()
    assert {"builder", "network", "parser", "config", "profile", "_engine", "_context"} <= made
    assert made - set(OBJECTS) == VALUES
    for path in SOURCES.glob("*.py"):
        assert path.stem in SPEAKING or not re.search(r"\btrt\.", path.read_text())


@pytest.mark.parametrize("version", sorted(NAMES))
def test_every_name_of_tensorrt_that_is_used_exists(version) -> None:
    known, used = NAMES[version], used_names()
    assert ("Builder", "build_serialized_network") in used
    assert ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED") in used
    known["Severity"] = known["ILogger"]
    unknown = {
        f"{owner}.{name}"
        for owner, name in used
        if name not in known.get(owner, ()) and not (owner == "module" and name in FUNCTIONS)
    }
    assert unknown == set()


# Built ahead of time, by TensorRT-RTX


@pytest.mark.tensorrt
@pytest.mark.parametrize("graph", ["device", "edge"])
def test_both_graphs_parse_and_build(rtx, jetson_bundle, graph) -> None:
    info = open_bundle(jetson_bundle).graphs[graph]
    shapes = {
        tensor.name: tuple((batch, *tensor.shape[1:]) for batch in (1, 1, 16))
        for tensor in info.inputs
    }
    built = build(rtx, jetson_bundle / info.file, shapes)
    assert len(built.plan) > 10_000
    assert built.layers > 5


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_parse_and_build(rtx, tiny_model, photos, tmp_path, precision) -> None:
    folder = tmp_path / "b"
    options = {"target": "jetson", "precision": precision, "keep_tables": True, "accept": True}
    export.split(tiny_model, folder, calibration=photos[0].parent, **options)
    path = folder / open_bundle(folder).device.graph.file
    assert unsupported(path) == []
    assert len(build(rtx, path).plan) > 10_000


@pytest.mark.tensorrt
def test_shapes_and_files_that_make_no_sense_are_refused(rtx, jetson_bundle, tmp_path) -> None:
    info = open_bundle(jetson_bundle).device.graph
    shape = info.inputs[0].shape[1:]
    wrong = {"image": ((16, *shape), (1, *shape), (1, *shape))}
    with pytest.raises(BundleError, match=r"TensorRT refuses the shapes|cannot build an engine"):
        build(rtx, jetson_bundle / info.file, wrong)
    path = tmp_path / "g.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(BundleError, match=r"TensorRT cannot parse g\.onnx: .*\w"):
        build(rtx, path)


@pytest.mark.tensorrt
def test_an_unsupported_operator_is_refused_by_its_name(rtx, tmp_path) -> None:
    matrix = numpy_helper.from_array(np.eye(4, dtype=np.float32), "m")
    node = helper.make_node("Det", ["m"], ["y"], name="the_determinant")
    path = graph_of(tmp_path / "g.onnx", node, x=(FLOAT, (1,)), y=(FLOAT, ()), weights=[matrix])
    with pytest.raises(BundleError, match="Det"):
        build(rtx, path)
