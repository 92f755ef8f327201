"""Graphs that hold more than a network: they are refused wherever a bundle is used."""

import contextlib
import json
import shutil
import time

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from small_models import small_spec

from splitrun.bundle import open_bundle
from splitrun.cli import main
from splitrun.engines import check_graph
from splitrun.errors import BundleError, SplitzooError
from splitrun.files import sha256_file
from splitrun.halves import Device
from splitrun.onnx_file import OPERATORS, check_onnx_file
from splitrun.openvino_file import check_openvino_files
from splitrun.record import DeviceRecord
from splitzoo import export, zoo
from splitzoo.export.running import RunLimits

IMAGE, SYMBOLS = (1, 3, 224, 224), (1, 4, 55, 55)


def tensor(name, values):
    return numpy_helper.from_array(np.array(values), name)


def value(name, kind=TensorProto.FLOAT, shape=()):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(nodes, initializers=()):
    """Return a device graph: what ``nodes`` make of ``image`` and call ``wide``, as symbols."""
    wanted = tensor("wanted", np.int64(SYMBOLS))
    zero = tensor("zero", np.float32(0))
    last = [
        helper.make_node("ReduceMax", ["wide"], ["most"], keepdims=0),
        helper.make_node("Expand", ["most", "wanted"], ["all"]),
        helper.make_node("Cast", ["all"], ["symbols"], to=TensorProto.INT32),
    ]
    made = helper.make_graph(
        [*nodes, *last],
        "device",
        [value("image", shape=IMAGE)],
        [value("symbols", TensorProto.INT32, SYMBOLS)],
        [wanted, zero, *initializers],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def loop(times):
    """Return a node that adds 1 so often, to something of the image."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["still"]),
            helper.make_node("Add", ["sum", "one"], ["next"]),
        ],
        "body",
        [value("turn", TensorProto.INT64), value("going", TensorProto.BOOL), value("sum")],
        [value("still", TensorProto.BOOL), value("next")],
        [tensor("one", np.float32(1))],
    )
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["start"], keepdims=0),
        helper.make_node("Loop", ["times", "yes", "start"], ["wide"], body=body),
    ]
    return graph(nodes, [tensor("times", np.int64(times)), tensor("yes", np.bool_(True))])


def branch():
    part = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["taken"])], "part", [], [value("taken")]
    )
    node = helper.make_node("If", ["yes"], ["wide"], then_branch=part, else_branch=part)
    return graph([node], [tensor("yes", np.bool_(True))])


def hidden_in_an_attribute():
    """An operator that is allowed, with a graph as an attribute that it does not have."""
    model = graph([helper.make_node("Identity", ["image"], ["wide"])])
    body = loop(1).graph
    model.graph.node[0].attribute.append(helper.make_attribute("body", body))
    return model


def function():
    model = graph([helper.make_node("Identity", ["image"], ["wide"])])
    inner = [helper.make_node("Identity", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("", "Identity", ["a"], ["b"], inner, opsets))
    return model


def elsewhere(weights):
    """Weights in another file, inside an initialiser or inside the constant of a node."""

    def made():
        one = tensor("one", np.float32([1]))
        one.ClearField("raw_data")
        one.data_location = TensorProto.EXTERNAL
        one.external_data.add(key="location", value="encoder.bin")
        if weights == "initialiser":
            return graph([helper.make_node("Add", ["image", "one"], ["wide"])], [one])
        nodes = [helper.make_node("Constant", [], ["one"], value=one)]
        return graph([*nodes, helper.make_node("Add", ["image", "one"], ["wide"])])

    return made


def lying():
    one = tensor("one", np.float32([1]))
    one.dims[:] = [1 << 20, 1 << 20]
    return graph([helper.make_node("Add", ["image", "one"], ["wide"])], [one])


def lying_by_typed_data():
    one = helper.make_tensor("one", TensorProto.INT64, [2], [1, 1 << 40])
    one.dims[:] = [3]
    return graph([helper.make_node("Identity", ["image"], ["wide"])], [one])


def sparse():
    model = graph([helper.make_node("Identity", ["image"], ["wide"])])
    found = helper.make_sparse_tensor(tensor("s", np.float32([1])), tensor("", np.int64([5])), [9])
    model.graph.sparse_initializer.append(found)
    return model


def words():
    text = helper.make_tensor("text", TensorProto.STRING, [1], [b"x"])
    return graph([helper.make_node("Identity", ["image"], ["wide"])], [text])


def of_domain(domain):
    return lambda: graph([helper.make_node("Relu", ["image"], ["wide"], domain=domain)])


def plain(operator):
    return lambda: graph([helper.make_node(operator, ["image"], ["wide"])])


def training():
    model = graph([helper.make_node("Identity", ["image"], ["wide"])])
    model.training_info.add()
    return model


HOSTILE = [
    pytest.param(lambda: loop((1 << 63) - 1), "operator 'Loop'", id="endless loop"),
    pytest.param(branch, "operator 'If'", id="if"),
    pytest.param(hidden_in_an_attribute, r"field 6", id="graph in an attribute"),
    pytest.param(function, r"field 25", id="function"),
    pytest.param(elsewhere("initialiser"), "another file, which the manifest", id="weights"),
    pytest.param(elsewhere("constant"), "another file, which the manifest", id="constant"),
    pytest.param(lying, "of 1 elements that says it has 1,099,511,627,776", id="sizes"),
    pytest.param(lying_by_typed_data, "of 2 elements that says it has 3", id="typed sizes"),
    pytest.param(sparse, r"field 15", id="sparse"),
    pytest.param(words, r"field 6", id="strings"),
    pytest.param(of_domain("com.microsoft"), "'com.microsoft.Relu'", id="other domain"),
    pytest.param(of_domain("own\x1b[2J"), r"'own\\x1b\[2J.Relu'", id="own domain"),
    pytest.param(plain("RandomNormalLike"), "'RandomNormalLike'", id="random"),
    pytest.param(plain("Unique"), "'Unique'", id="output of unknown size"),
    pytest.param(training, r"field 20", id="training"),
]


@pytest.fixture
def hostile(tiny_bundle, tmp_path):
    """Put a device graph into a copy of a bundle, and let the manifest agree with it."""

    def put(model, **also):
        folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
        (folder / "device" / "encoder.onnx").write_bytes(model.SerializeToString())
        for name, content in also.items():
            (folder / "device" / f"{name}.bin").write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["device/encoder.onnx"] = sha256_file(folder / "device/encoder.onnx")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return put


@pytest.mark.parametrize(("make", "saying"), HOSTILE)
def test_a_graph_of_more_than_operators_is_run_by_nothing(
    hostile, tiny_bundle, photo, tmp_path, capsys, make, saying
):
    folder = hostile(make(), encoder=np.float32([1]).tobytes())
    stream = tmp_path / "photo.sz"
    main(["--bundle", str(tiny_bundle), "encode", str(photo), "-o", str(stream)])
    began = time.monotonic()
    (folder / "device" / "encoder.bin").unlink()  # which verify would name first
    with pytest.raises(BundleError, match=saying):
        export.verify(folder)
    with pytest.raises(BundleError, match=saying):
        export.run(folder, [photo])
    with pytest.raises(BundleError, match=saying) as caught:
        Device(open_bundle(folder))
    assert "--trust" in caught.value.next_step
    capsys.readouterr()
    for command in (["encode", str(photo), "-o", str(tmp_path / "x.sz")], ["selftest"]):
        assert main(["--bundle", str(folder), *command]) == 1
        assert "is not run: it " in capsys.readouterr().err
    # The edge opens no graph of the device's.
    assert main(["--bundle", str(folder), "decode", str(stream)]) == 0
    assert time.monotonic() - began < 60


def test_the_edge_is_held_to_the_same(tiny_bundle, photo, tmp_path):
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    path = folder / "edge" / "decoder.onnx"
    model = onnx.load(path)
    model.graph.node[0].op_type = "Loop"
    path.write_bytes(model.SerializeToString())
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["edge/decoder.onnx"] = sha256_file(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    stream = tmp_path / "photo.sz"
    assert main(["--bundle", str(folder), "encode", str(photo), "-o", str(stream)]) == 0
    assert main(["--bundle", str(folder), "decode", str(stream)]) == 1


def test_who_trusts_a_bundle_runs_what_it_holds(hostile, photo, tmp_path, capsys):
    folder = hostile(loop(3))
    words = ["encode", str(photo), "-o", str(tmp_path / "x.sz")]
    assert main(["--bundle", str(folder), *words]) == 1
    assert main(["--bundle", str(folder), *words, "--trust"]) == 0
    image = DeviceRecord.load(open_bundle(folder)).image
    (symbols,) = Device(open_bundle(folder, trust=True)).wire_tensors(image)
    assert int(symbols[0, 0, 0, 0]) == int(image.max() + 3)


def bomb():
    wide = tensor("sizes", np.int64([1 << 12, 1 << 14, 1 << 14]))
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["one"], keepdims=0),
        helper.make_node("Expand", ["one", "sizes"], ["wide"]),
    ]
    return graph(nodes, [wide])


@pytest.mark.skipif(not hasattr(time, "clock_getres"), reason="needs limits of POSIX")
def test_a_tensor_of_terabytes_is_named_by_verify_and_does_not_fit_at_run(hostile, photo, tmp_path):
    folder = hostile(bomb())
    with pytest.raises(BundleError, match="tensor wide is 4,096×16,384×16,384 large"):
        export.verify(folder)
    with pytest.raises(SplitzooError) as caught:
        export.run(folder, [photo], limits=RunLimits(memory_gib=1))
    assert "--memory-limit" in caught.value.next_step


def test_a_time_limit_ends_what_takes_longer(tiny_bundle, photo):
    for use in (
        lambda limits: export.verify(tiny_bundle, limits=limits),
        lambda limits: export.run(tiny_bundle, [photo], limits=limits),
    ):
        with pytest.raises(BundleError, match="took more than 1e-06 seconds") as caught:
            use(RunLimits(seconds=1e-6))
        assert "--time-limit" in caught.value.next_step


# The walk of a file, against onnx's own reading


def test_operators_are_onnx_s_own_and_none_has_a_graph_inside():
    for name in OPERATORS:
        schema = onnx.defs.get_schema(name, 20)
        kinds = {attribute.type for attribute in schema.attributes.values()}
        assert not kinds & {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}
        types = {word for value in (*schema.inputs, *schema.outputs) for word in value.types}
        assert any(word.startswith("tensor(") for word in types)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_passed_and_nothing_else(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        check_onnx_file(path)
    except BundleError:
        return
    with contextlib.suppress(DecodeError):  # inside parts that are not walked
        assert onnx.load(path, load_external_data=False).HasField("graph")


@given(place=st.integers(0, 1 << 20), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(tmp_path_factory, tiny_bundle, place, byte):
    content = bytearray((tiny_bundle / "device" / "encoder.onnx").read_bytes())
    content[place % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "changed.onnx"
    path.write_bytes(content)
    try:
        check_onnx_file(path)
        model = onnx.load(path, load_external_data=False)
    except (BundleError, DecodeError):
        return
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert not model.functions
    for found in model.graph.initializer:
        assert numpy_helper.to_array(found).size == np.prod(found.dims)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cpu", "openvino"])
@pytest.mark.parametrize("task", ["object-detection", "semantic-segmentation"])
def test_what_the_exporters_write_passes(tmp_path, target, task):
    export.split(zoo.build(small_spec(task, "fp")), tmp_path / "b", target=target)
    export.verify(tmp_path / "b")


# OpenVINO's pair of files

NET = """<net name="g" version="11"><layers>
<layer id="0" name="image" type="Parameter" version="opset1">
<data shape="1,3" element_type="f32"/></layer>
<layer id="1" name="c" type="Const" version="opset1">
<data element_type="f32" shape="2, 3" offset="8" size="24"/></layer>
<layer id="2" name="r" type="Result" version="opset1"/></layers><edges/></net>"""


@pytest.mark.parametrize(
    ("old", "new", "saying"),
    [
        ("", "", None),
        ('"Result" version="opset1"/>', '"Result" version="opset1"><body/></layer>', "Result"),
        ('"Parameter"', '"TensorIterator"', "a graph with an input"),
        ('type="Const" version="opset1"', 'type="Loop" version="opset5"', "opset5.Loop"),
        ('"Const" version="opset1"', '"Const" version="extension"', "extension.Const"),
        ("2, 3", "2, 3000000", "a constant is not in the file"),
        ('offset="8"', 'offset="16"', "a constant is not in the file"),
        ('offset="8"', 'offset="-8"', "a constant is not in the file"),
        ("<edges/>", "<plugins/>", "plugins"),
        ("<net", "<!DOCTYPE net><net", "not what OpenVINO writes"),
    ],
)
def test_openvino_files_hold_operators_and_constants_that_are_there(tmp_path, old, new, saying):
    path, weights = tmp_path / "g.xml", tmp_path / "g.bin"
    assert old in NET
    path.write_text(NET.replace(old, new, 1))
    weights.write_bytes(bytes(32))
    if saying is None:
        check_openvino_files(path, weights)
        return
    with pytest.raises(BundleError, match=saying):
        check_openvino_files(path, weights)


def test_openvino_reads_the_weights_that_the_manifest_names(tmp_path):
    (tmp_path / "g.xml").write_text(NET)
    for name in ("g.bin", "other.bin"):
        (tmp_path / name).write_bytes(bytes(32))
    check_graph("openvino", tmp_path / "g.xml", tmp_path / "g.bin")
    for path, weights in (("g.xml", None), ("g.xml", "other.bin"), ("g.onnx", "g.bin")):
        with pytest.raises(BundleError, match=r"whose weights are the \.bin file beside it"):
            check_graph("openvino", tmp_path / path, weights and tmp_path / weights)
    for path, weights in (("g.onnx", "g.bin"), ("g.ort", None)):
        with pytest.raises(BundleError, match=r"it is not one \.onnx file"):
            check_graph("onnxruntime", tmp_path / path, weights and tmp_path / weights)
