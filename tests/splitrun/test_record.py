"""The self-tests' records: every step, in a file for each half and back."""

import dataclasses
import types

import numpy as np
import pytest

from splitrun.bundle import Bundle
from splitrun.errors import BundleError
from splitrun.manifest import DeviceInfo, EdgeInfo, GraphInfo, TailInfo, TensorInfo
from splitrun.record import DeviceRecord, EdgeRecord

DEVICE, EDGE = "device.npz", "edge.npz"
# As of a detector behind a hyperprior: name, type, shape of each graph's tensors.
IMAGE = [("image", "float32", (-1, 3, 8, 12))]
WIRE = [
    ("symbols", "int32", (-1, 4, 2, 3)),
    ("hyper_symbols", "int32", (-1, 2, 1, 1)),
    ("values", "uint8", (-1, 4, 2, 3)),
    ("scale", "float32", (-1, 1, 1, 1)),
]
EDGE_INPUTS = [("symbols", "int32", (-1, 4, 2, 3)), ("means", "float32", (-1, 4, 2, 3))]
OUTPUTS = [("level_0", "float32", (-1, 5, 4, 6)), ("objectness", "float32", (-1, 40))]
# Rows, not images: the first dimension is no batch.
BOXES = [("proposals", "float32", (7, 4)), ("levels", "int32", (7,))]
FOUND = [("class_logits", "float32", (7, 3)), ("box_deltas", "float32", (7, 12))]


def graph(inputs, outputs):
    return GraphInfo(
        "graph.onnx",
        "onnxruntime",
        tuple(TensorInfo(*tensor) for tensor in inputs),
        tuple(TensorInfo(*tensor) for tensor in outputs),
    )


HYPER = [("hyper_symbols", "int32", (-1, 2, 1, 1))]


@pytest.fixture
def bundle(tmp_path):
    """As much of a bundle as its records need."""
    device = DeviceInfo(graph(IMAGE, WIRE), DEVICE, ())
    boxes = graph([OUTPUTS[0], *BOXES], FOUND)
    tail = TailInfo(graph(EDGE_INPUTS, OUTPUTS), boxes, {}, "labels.json", EDGE)
    edge = EdgeInfo(graph(HYPER, EDGE_INPUTS), {"detection": tail}, (), "fp32")
    manifest = types.SimpleNamespace(halves=("device", "edge"), device=device, edge=edge)
    return Bundle(tmp_path, manifest)


def arrays(tensors, seed, *, batch=True):
    rng = np.random.default_rng(seed)
    return {
        name: (100 * rng.normal(size=(1, *shape[1:]) if batch else shape)).astype(dtype)
        for name, dtype, shape in tensors
    }


@pytest.fixture
def records():
    """A record of each half, by the names of their files."""
    wire = arrays(WIRE, 1)
    ties = {name: value % 2 == 0 for name, value in wire.items() if name != "scale"}
    device = DeviceRecord(arrays(IMAGE, 0)["image"], wire, ties, bytes(range(256)))
    edge = EdgeRecord(
        bytes(range(255)),
        inputs=arrays(EDGE_INPUTS, 2),
        outputs=arrays(OUTPUTS, 3),
        hyper_inputs=arrays(HYPER, 6),
        boxes_inputs=arrays(BOXES, 4, batch=False),
        boxes_outputs=arrays(FOUND, 5, batch=False),
    )
    return {DEVICE: device, EDGE: edge}


def assert_equal(found, expected):
    for field in dataclasses.fields(expected):
        here, there = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(there, dict):
            # In this order they are fed to the graphs.
            assert list(here) == list(there)
            for name, value in there.items():
                np.testing.assert_array_equal(here[name], value, strict=True)
        else:
            np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("name", [DEVICE, EDGE])
def test_a_record_of_many_tensors_comes_back(bundle, tmp_path, records, name):
    for stream in (records[name].stream, b"", bytes(1000)):
        record = dataclasses.replace(records[name], stream=stream)
        record.save(tmp_path / name)
        assert_equal(type(record).load(bundle), record)


def test_a_record_without_boxes_and_scales_comes_back(bundle, tmp_path, records):
    edge = bundle.manifest.edge
    tail = dataclasses.replace(edge.tails["detection"], boxes=None)
    edge = dataclasses.replace(edge, hyper=None, tails={"detection": tail})
    manifest = types.SimpleNamespace(halves=("edge",), edge=edge)
    record = EdgeRecord(b"stream", records[EDGE].inputs, records[EDGE].outputs)
    record.save(tmp_path / EDGE)
    assert_equal(EdgeRecord.load(Bundle(tmp_path, manifest)), record)


@pytest.mark.parametrize(
    ("file", "group", "name"),
    [
        *((DEVICE, "wire", name) for name, _, _ in WIRE),
        *((DEVICE, "ties", name) for name, dtype, _ in WIRE if dtype != "float32"),
        *((EDGE, "inputs", name) for name, _, _ in EDGE_INPUTS),
        *((EDGE, "outputs", name) for name, _, _ in OUTPUTS),
        *((EDGE, "hyper_inputs", name) for name, _, _ in HYPER),
        *((EDGE, "boxes_inputs", name) for name, _, _ in BOXES),
        *((EDGE, "boxes_outputs", name) for name, _, _ in FOUND),
    ],
)
def test_a_tensor_that_is_missing_or_another_is_refused(
    bundle, tmp_path, records, file, group, name
):
    record, path = records[file], tmp_path / file
    named = getattr(record, group)
    value = named.pop(name)
    record.save(path)
    with pytest.raises(BundleError, match=rf"Cannot read the self-test record .*{file}"):
        type(record).load(bundle)
    for other in (value.astype(np.float64), value[..., :0], np.stack([value, value])):
        named[name] = other
        record.save(path)
        with pytest.raises(BundleError, match=rf"record holds {group}\.{name} as "):
            type(record).load(bundle)


def test_ties_are_of_integers_alone(bundle, tmp_path, records):
    records[DEVICE].ties["scale"] = np.zeros((1, 1, 1, 1), bool)
    records[DEVICE].save(tmp_path / DEVICE)
    with pytest.raises(BundleError, match="it holds"):
        DeviceRecord.load(bundle)
