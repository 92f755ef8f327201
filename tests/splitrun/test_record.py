"""The self-test record: an input with every step, in one file and back."""

import dataclasses
import types

import numpy as np
import pytest

from splitrun.bundle import Bundle
from splitrun.errors import BundleError
from splitrun.manifest import GraphInfo, TensorInfo
from splitrun.record import Record

GROUPS = ("wire", "ties", "edge_inputs", "outputs", "boxes_inputs", "boxes_outputs")
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


@pytest.fixture
def bundle(tmp_path):
    """As much of a bundle as its record needs."""
    graphs = {
        "device": graph(IMAGE, WIRE),
        "edge": graph(EDGE_INPUTS, OUTPUTS),
        "boxes": graph([OUTPUTS[0], *BOXES], FOUND),
    }
    return Bundle(tmp_path, types.SimpleNamespace(graphs=graphs, selftest="record.npz"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "record.npz"


def arrays(tensors, seed, *, batch=True):
    rng = np.random.default_rng(seed)
    return {
        name: (100 * rng.normal(size=(1, *shape[1:]) if batch else shape)).astype(dtype)
        for name, dtype, shape in tensors
    }


@pytest.fixture
def record():
    wire = arrays(WIRE, 1)
    return Record(
        image=arrays(IMAGE, 0)["image"],
        wire=wire,
        ties={name: value % 2 == 0 for name, value in wire.items() if name != "scale"},
        edge_inputs=arrays(EDGE_INPUTS, 2),
        outputs=arrays(OUTPUTS, 3),
        stream=bytes(range(256)),
        boxes_inputs=arrays(BOXES, 4, batch=False),
        boxes_outputs=arrays(FOUND, 5, batch=False),
    )


def assert_equal(found, expected):
    assert found.stream == expected.stream
    np.testing.assert_array_equal(found.image, expected.image, strict=True)
    for group in GROUPS:
        named = getattr(found, group)
        # In this order they are fed to the graphs.
        assert list(named) == list(getattr(expected, group))
        for name, value in getattr(expected, group).items():
            np.testing.assert_array_equal(named[name], value, strict=True)


def test_a_record_of_many_tensors_comes_back(bundle, path, record):
    record.save(path)
    assert_equal(Record.load(bundle), record)


def test_a_record_without_boxes_comes_back(bundle, path, record):
    bundle.graphs.pop("boxes")
    for stream in (b"", bytes(1000)):
        plain = dataclasses.replace(record, boxes_inputs={}, boxes_outputs={}, stream=stream)
        plain.save(path)
        assert_equal(Record.load(bundle), plain)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        *(("wire", name) for name, _, _ in WIRE),
        *(("ties", name) for name, dtype, _ in WIRE if dtype != "float32"),
        *(("edge_inputs", name) for name, _, _ in EDGE_INPUTS),
        *(("outputs", name) for name, _, _ in OUTPUTS),
        *(("boxes_inputs", name) for name, _, _ in BOXES),
        *(("boxes_outputs", name) for name, _, _ in FOUND),
    ],
)
def test_a_tensor_that_is_missing_or_another_is_refused(bundle, path, record, group, name):
    named = getattr(record, group)
    value = named.pop(name)
    record.save(path)
    with pytest.raises(BundleError, match=r"Cannot read the self-test record .*record\.npz"):
        Record.load(bundle)
    for other in (value.astype(np.float64), value[..., :0], np.stack([value, value])):
        named[name] = other
        record.save(path)
        with pytest.raises(BundleError, match=rf"record holds {group}\.{name} as "):
            Record.load(bundle)


def test_ties_are_of_integers_alone(bundle, path, record):
    record.ties["scale"] = np.zeros((1, 1, 1, 1), bool)
    record.save(path)
    with pytest.raises(BundleError, match="it holds"):
        Record.load(bundle)
