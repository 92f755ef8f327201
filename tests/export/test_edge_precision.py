"""The edge half below fp32: what is written, what is refused, and what bundle and card say."""

import itertools
import json

import numpy as np
import onnx
import pytest
from commands import refused
from onnx import TensorProto, helper, numpy_helper

from splitrun.bundle import open_bundle
from splitrun.errors import BundleError, ParityError
from splitrun.halves import Graph
from splitrun.limits import Limits, limits_of
from splitrun.precision_reports import EdgePrecisionReport
from splitzoo import export
from splitzoo.export.precision.edge_report import exceeded_edge_limits, measure_edge
from splitzoo.export.precision.lowering import Lowering
from splitzoo.export.precision.weights import lower_weights

FLOWERS = "flowers-splittable_regnetx_002-fp-beta3"


def report(**changes) -> EdgePrecisionReport:
    facts = {
        **{"calibrated": 30, "held_out": 100, "real_images": True, "answers": 100},
        **{"answers_changed": 1, "output_error": 0.01, "worst_error": 0.04},
        **{"labelled": 100, "correct_fp32": 80, "correct": 80},
    }
    return EdgePrecisionReport(**facts | changes)


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"answers_changed": 7}, ["7 of 100 answers change (5% and those of one image may)"]),
        ({"answers_changed": 6}, []),
        ({"worst_error": 0.21}, ["an output differs by 21.0% of the largest (20% is allowed)"]),
        ({"correct": 78}, ["2 of 100 images are no longer named correctly"]),
        ({"correct": 79}, []),
    ],
)
def test_what_is_beyond_the_limits_is_said_with_its_figures(changes, saying) -> None:
    found = exceeded_edge_limits(
        report(**changes), limits_of("fp32", "int8", quantised=False), "int8"
    )
    assert len(found) == len(saying)
    assert all(text.startswith(start) for text, start in zip(found, saying, strict=True))


def test_the_edges_precision_widens_the_outputs_alone() -> None:
    assert limits_of("fp32", "int8", quantised=False) == Limits(output_tolerance=0.2)


@pytest.mark.parametrize(("kind", "axis"), [("Conv", 0), ("ConvTranspose", 1), ("MatMul", 1)])
def test_weights_in_int8_have_a_scale_per_output_channel(tmp_path, kind, axis) -> None:
    """Each channel's largest weight is exact, and no weight is off by more than half a step."""
    shape = (20, 30) if kind == "MatMul" else (20, 30, 3, 3)
    weights = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image = [1, 20] if kind != "Conv" else [1, 30]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info(
                "x", TensorProto.FLOAT, image + [8, 8] * (axis != 1 or kind != "MatMul")
            )
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph), tmp_path / "fp32.onnx")
    lower_weights(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", "int8")
    stored = {
        one.name: numpy_helper.to_array(one)
        for one in onnx.load(tmp_path / "int8.onnx").graph.initializer
    }
    scale = stored["w_scale"]
    assert (stored["w_int8"].dtype, scale.size) == (np.int8, shape[axis])
    again = stored["w_int8"] * scale
    assert np.all(np.abs(again - weights) <= 0.501 * scale)
    others = tuple(place for place in range(len(shape)) if place != axis)
    assert np.allclose(np.abs(again).max(others), np.abs(weights).max(others), rtol=1e-6)


def test_a_trained_models_edge_is_a_quarter_as_large_and_its_bundle_and_card_say_so(
    splitzoo, tmp_path
) -> None:
    words = ("export", "split", FLOWERS, "--edge-precision", "int8-weights")
    code, out, err = splitzoo(*words, "-o", tmp_path / "b")
    assert code == 0, err
    assert "fp32, edge int8-weights" in out
    manifest = export.verify(tmp_path / "b").manifest
    assert (manifest.precision, manifest.edge.precision) == ("fp32", "int8-weights")
    (tail,) = manifest.edge.tails.values()
    found = tail.precision_report
    assert found is not None
    assert not found.real_images
    assert 0 < found.worst_error < 0.05
    assert manifest.provenance.command.endswith("--edge-precision int8-weights")
    size = (tmp_path / "b" / tail.graph.file).stat().st_size
    stored = [
        numpy_helper.to_array(one)
        for one in onnx.load(tmp_path / "b" / tail.graph.file).graph.initializer
    ]
    assert size < 1.1 * sum(one.nbytes for one in stored)
    assert sum(one.size for one in stored if one.dtype == np.int8) > 0.95 * sum(
        one.size for one in stored
    )
    said = "The edge graph is in int8-weights."
    assert said in (tmp_path / "b/README.md").read_text()
    assert splitzoo("cards", "build", "--bundle", tmp_path / "b", "-o", tmp_path / "card")[0] == 0
    assert said in (tmp_path / "card/README.md").read_text()


def test_beyond_the_limits_nothing_is_left_and_what_is_accepted_is_checked(
    splitzoo, tiny_folder, photos, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(
        "splitzoo.export.precision.judging.measure_edge", lambda *_: report(worst_error=0.3)
    )
    words = ("export", "split", tiny_folder, "--random-weights", "--keep-tables")
    words += ("--edge-precision", "int8", "--calibration", photos[0].parent)
    saying = "With the edge in int8, an output differs by 30.0% of the largest"
    refused(splitzoo(*words, "-o", tmp_path / "b"), saying, "--accept", code=3)
    assert list(tmp_path.iterdir()) == []
    assert splitzoo(*words, "--accept", "-o", tmp_path / "b")[0] == 0
    assert open_bundle(tmp_path / "b").limits.output_tolerance == 0.6
    export.verify(tmp_path / "b")
    path = tmp_path / "b/manifest.json"
    document = json.loads(path.read_text())
    limits, (tail,) = document["parity"]["limits"], document["edge"]["tails"].values()
    for allowed, accepted, most in ((0.7, ["…"], "0.6"), (0.6, [], "0.2")):
        limits["output_tolerance"] = allowed
        tail["precision_report"]["accepted"] = accepted
        path.write_text(json.dumps(document))
        saying = f"allows output tolerance of {allowed}; the exporter allows {most} in .* edge int8"
        with pytest.raises(BundleError, match=saying):
            export.verify(tmp_path / "b")


def test_an_output_that_is_no_number_is_refused(tiny_model, tiny_bundle, monkeypatch) -> None:
    run, calls = Graph.__call__, itertools.count()

    def broken(graph, tensors):
        found = run(graph, tensors)
        return tuple(one * np.float32("nan") for one in found) if next(calls) == 3 else found

    monkeypatch.setattr(Graph, "__call__", broken)
    with pytest.raises(ParityError, match="With the edge in fp16, an output is not a number"):
        measure_edge(tiny_model, open_bundle(tiny_bundle), None, Lowering("fp16"))
    assert next(calls) > 4


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        (("--edge-precision", "bf16"), "No precision of onnxruntime on the edge of the target cpu"),
        (("--edge-precision", "int8"), "--calibration DIR"),
        (("--target", "torch", "--edge-precision", "int8"), "--edge-precision fp32"),
    ],
)
def test_what_an_edge_cannot_have_is_refused_before_anything_is_loaded(
    splitzoo, tiny_folder, tmp_path, monkeypatch, words, saying
) -> None:
    monkeypatch.setattr(
        "splitzoo.zoo.resolve.ModelSource.load", lambda *_, **__: pytest.fail("loaded")
    )
    refused(splitzoo("export", "split", tiny_folder, *words, "-o", tmp_path / "b"), saying)
    assert list(tmp_path.iterdir()) == []
