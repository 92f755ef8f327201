"""Graphs that were exported for ONNX Runtime, given to TensorRT's parser and builder.

TensorRT-RTX does both without a GPU; it is another backend than a Jetson's. No engine is run.
"""

import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_files import save_graph
from small_models import small_spec

from splitrun.bundle import open_bundle
from splitrun.errors import BundleError
from splitrun.files import sha256_file
from splitrun.tensorrt import builder, session
from splitrun.tensorrt.builder import build
from splitrun.tensorrt.library import logger_of, start
from splitzoo import export, zoo
from splitzoo.export.tensorrt_operators import unsupported

pytestmark = pytest.mark.tensorrt
SHAPE = (3, 64, 64)


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")


@pytest.fixture(scope="module")
def bundle(rtx, tmp_path_factory):
    """A hyperprior's bundle for the CPU, for any number of images."""
    folder = tmp_path_factory.mktemp("cpu") / "bundle"
    model = zoo.build(small_spec("image-classification", "mshp-float"))
    export.split(model, folder, target="cpu", dynamic_batch=True)
    return open_bundle(folder)


@pytest.mark.parametrize("name", ["device", "edge", "hyper"])
def test_graphs_of_any_batch_build_with_shapes(rtx, bundle, name) -> None:
    info = bundle.graphs[name]
    shapes = {
        one.name: tuple((batch, *one.shape[1:]) for batch in (1, 1, 16)) for one in info.inputs
    }
    built = build(rtx, bundle.path(info.file), shapes)
    assert len(built.plan) > 10_000
    assert built.messages == ()


def test_tf32_is_on_by_default_and_off_in_what_is_built(rtx, tmp_path, monkeypatch) -> None:
    """It rounds the factors of convolutions to ten bits. The flags are those of the real module."""
    configs = []

    class Recording:
        def __init__(self, made) -> None:
            self.made = made

        def __getattr__(self, name):
            return getattr(self.made, name)

        def create_builder_config(self):
            configs.append(self.made.create_builder_config())
            assert configs[-1].get_flag(rtx.BuilderFlag.TF32)
            return configs[-1]

        def build_serialized_network(self, network, config):
            assert config is configs[-1]
            assert not config.get_flag(rtx.BuilderFlag.TF32)
            return self.made.build_serialized_network(network, config)

        def create_network(self, flags):
            assert flags == 1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            return self.made.create_network(flags)

    monkeypatch.setattr(builder, "start", lambda *words: Recording(start(*words)))
    build(rtx, save_graph(tmp_path / "g.onnx", helper.make_node("Abs", ["x"], ["y"])))
    assert len(configs) == 1


@pytest.mark.parametrize(
    ("shapes", "saying"),
    [
        (None, "no optimization profile has been defined"),
        ({"photo": ((1, *SHAPE),) * 3}, "image is missing dimensions in profile 0"),
        ({"image": ((1, 3),) * 3}, "image has 4 dimensions but profile 0 has 2"),
        ({"image": ((1, 3, 9, 64),) * 3}, "At dimension axis 2"),
        ({"image": ((-1, *SHAPE),) * 3}, "refuses the shapes of image"),
    ],
)
def test_shapes_that_are_not_the_graphs_are_told_in_tensorrts_words(
    rtx, bundle, shapes, saying
) -> None:
    with pytest.raises(BundleError, match=rf"encoder\.onnx: .*{saying}|{saying} in encoder\.onnx"):
        build(rtx, bundle.path(bundle.device.graph.file), shapes)


def test_a_timing_cache_of_something_else_is_no_obstacle(rtx, tmp_path) -> None:
    path = save_graph(tmp_path / "g.onnx", helper.make_node("Abs", ["x"], ["y"]))
    assert build(rtx, path, timing_cache=b"nothing of the kind" * 10).layers > 0


def test_one_logger_hears_all_of_a_module_and_starts_anew_with_each_build(rtx, tmp_path) -> None:
    logger = logger_of(rtx)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(BundleError):
        build(rtx, broken)
    assert logger.messages
    build(rtx, save_graph(tmp_path / "g.onnx", helper.make_node("Abs", ["x"], ["y"])))
    assert logger_of(rtx) is logger
    assert logger.messages == []


def test_a_zero_point_is_refused_here_as_it_is_there(rtx, tmp_path) -> None:
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    point = numpy_helper.from_array(np.int8(3), "point")
    nodes = (
        helper.make_node("QuantizeLinear", ["x", "scale", "point"], ["q"], name="to"),
        helper.make_node("DequantizeLinear", ["q", "scale", "point"], ["y"], name="back"),
    )
    path = save_graph(tmp_path / "g.onnx", *nodes, constants=(scale, point))
    said = "a zero point other than 0 of"
    assert unsupported(path) == [f"{said} QuantizeLinear (to)", f"{said} DequantizeLinear (back)"]
    with pytest.raises(BundleError, match="Non-zero zero point is not supported"):
        build(rtx, path)


def test_constants_of_a_shape_are_taken_here_as_they_are_there(rtx, tmp_path) -> None:
    nodes = (
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("Add", ["x", "zeros"], ["y"]),
    )
    path = save_graph(tmp_path / "g.onnx", *nodes)
    assert unsupported(path) == []
    assert build(rtx, path).layers > 0


def test_a_plan_that_is_none_is_refused_with_tensorrts_words(rtx, tmp_path, monkeypatch) -> None:
    cuda = SimpleNamespace(capability=lambda: "8.7", gpu=lambda: "Orin, 16 SMs")
    monkeypatch.setattr(session, "import_tensorrt", lambda: rtx)
    monkeypatch.setattr(session, "open_cuda", lambda: cuda)
    for name in ("device", "engines"):
        (tmp_path / name).mkdir()
    path = save_graph(tmp_path / "device" / "g.onnx", helper.make_node("Abs", ["x"], ["y"]))
    plan = tmp_path / "engines" / "g.plan"
    plan.write_bytes(b"nothing" * 100)
    key = asdict(session.here(rtx, cuda, path))
    entry = {"key": key, "plan_sha256": sha256_file(plan), "compared": "equal"}
    record = tmp_path / "engines" / "engine.json"
    record.write_text(json.dumps({"graphs": {"device/g.onnx": entry}}))
    with pytest.raises(BundleError, match=r"TensorRT cannot load g\.plan: .*\w") as caught:
        session.TensorRTSession(path)
    assert caught.value.next_step == "Build it again: python build_engine.py --force"
