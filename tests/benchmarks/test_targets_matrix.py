"""Every kind of model on every target."""

import json
import subprocess
import sys

import numpy as np
import pytest
from small_models import BOTTLENECKS, TASKS, small_spec

from splitrun.bundle import open_bundle
from splitrun.errors import BundleError
from splitrun.halves import Device, Edge
from splitrun.record import DeviceRecord, EdgeRecord
from splitzoo import export, zoo
from splitzoo.export.targets import TARGETS

CLASSIFICATION, DETECTION, SEGMENTATION = TASKS
HERE = ("cpu", "raspberrypi", "jetson", "openvino", "litert", "executorch", "ncnn")
HERE += ("torchscript", "torch")
# Of ONNX Runtime, test_families has every kind.
QUICK = [(CLASSIFICATION, "mshp", target) for target in ("openvino", "torchscript", "torch")]
QUICK += [(SEGMENTATION, "fp", "torchscript")]
EVERY = [(CLASSIFICATION, kind) for kind in BOTTLENECKS]
EVERY += [(task, kind) for task in TASKS[1:] for kind in ("fp", "mshp", "bq", "jpeg")]
# onnx2tf turns the shape of its params, and the export is refused for that.
REFUSED = [(CLASSIFICATION, "mbt2018-float", "litert")]
SLOW = [(*case, target) for case in EVERY for target in HERE]
SLOW = [case for case in SLOW if case not in QUICK + REFUSED]
CASES = [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in SLOW)]
IN_FLOATS = ("shp-float", "mshp-float", "mbt2018-float")


@pytest.fixture(scope="module")
def model():
    built = {}

    def small(task: str, kind: str):
        if (task, kind) not in built:
            built[task, kind] = zoo.build(small_spec(task, kind))
        return built[task, kind]

    return small


@pytest.fixture(scope="module")
def bundles(model, tmp_path_factory):
    """A bundle for each model and target, made once."""
    folder, made = tmp_path_factory.mktemp("matrix"), {}

    def bundle(task: str, kind: str, target: str, **options):
        for one in (TARGETS.get(target).device, TARGETS.get(target).edges[0]):
            for package in one.packages:
                pytest.importorskip(package, reason=f"the target {target} needs {package}")
        if missing := TARGETS.get(target).missing():
            pytest.skip(f"the target {target} needs {', '.join(missing)}")
        key = (task, kind, target, *sorted(options.items()))
        if key not in made:
            made[key] = folder / f"{len(made)}"
            export.split(model(task, kind), made[key], target=target, **options)
        return made[key]

    return bundle


@pytest.mark.parametrize(("task", "kind", "target"), CASES)
def test_the_target_computes_what_pytorch_does(bundles, task, kind, target) -> None:
    verified = export.verify(bundles(task, kind, target), trust=True)
    manifest, device = verified.manifest, verified.selftest.device
    (edge,) = verified.selftest.edge.values()
    assert ("hyper" in manifest.graphs) == (kind in IN_FLOATS)
    assert ("boxes" in manifest.graphs) == (task == DETECTION)
    assert device.symbols_differing <= device.symbols_tied
    assert edge.output_relative_error <= 1e-4
    assert manifest.parity.symbols_differing <= manifest.parity.symbols_tied
    assert (manifest.target, manifest.precision) == (target, "fp32")


@pytest.mark.parametrize("target", ["openvino", "torchscript", "torch"])
def test_a_bundle_tests_itself_where_it_lies(bundles, target) -> None:
    folder = bundles(CLASSIFICATION, "mshp", target)
    words = [sys.executable, "-W", "error", "-m", "splitrun", "selftest", "--json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["device"]["symbols_differing"] == 0


@pytest.mark.slow
def test_the_pi_has_the_graphs_of_the_cpu(bundles) -> None:
    here, there = (
        open_bundle(bundles(CLASSIFICATION, "fp", target)) for target in ("cpu", "raspberrypi")
    )
    assert set(here.graphs) == set(there.graphs) == {"device", "edge"}
    for name, graph in here.graphs.items():
        other = there.path(there.graphs[name].file)
        assert here.path(graph.file).read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("torchscript", "fp32"),
        pytest.param("openvino", "fp32", marks=pytest.mark.slow),
        pytest.param("openvino", "bf16", marks=pytest.mark.slow),
    ],
)
def test_any_edge_reads_what_any_device_writes(bundles, model, tmp_path, target, precision) -> None:
    """The device of one bundle, the edge of another: nothing but the bytes between them."""
    accept = {"accept": True} if precision != "fp32" else {}
    made = bundles(CLASSIFICATION, "mshp", target, precision=precision, **accept)
    bundle = open_bundle(made)
    other = open_bundle(bundles(CLASSIFICATION, "mshp", "torch"))
    device, edge = Device(bundle), Edge(other)
    record = DeviceRecord.load(other)
    sent = device.wire_tensors(record.image)
    (stream,) = device.encode(record.image)
    (received,) = edge.decompress(stream)
    expected, _ = device.codec.coder.decoded(*(tensor[0] for tensor in sent))
    assert np.array_equal(received[0], expected)
    (output,) = edge.decode(stream)
    assert output.shape == (1, 7)


@pytest.mark.parametrize(
    "target",
    [
        "torchscript",
        "torch",
        *(pytest.param(one, marks=pytest.mark.slow) for one in ("cpu", "jetson", "openvino")),
    ],
)
def test_a_hyperprior_for_any_number_of_images(bundles, target) -> None:
    bundle = open_bundle(bundles(CLASSIFICATION, "mshp", target, dynamic_batch=True))
    record = DeviceRecord.load(bundle)
    device, edge = Device(bundle, stand_in=True), Edge(bundle, stand_in=True)
    first, *others = device.encode(np.concatenate([record.image, record.image[..., ::-1]]))
    assert len(others) == 1
    received = [edge.decompress(stream) for stream in (first, *others)]
    (logits,) = edge.graph([np.concatenate(one) for one in zip(*received, strict=True)])
    expected = EdgeRecord.load(bundle).outputs["logits"]
    assert np.abs(logits[:1] - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("target", [one for one in HERE if one != "raspberrypi"])
def test_a_detector_takes_one_image_on_every_target(model, tmp_path, target) -> None:
    with pytest.raises(BundleError, match="a detector, takes one image"):
        export.split(model(DETECTION, "fp"), tmp_path / "bundle", target=target, dynamic_batch=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", IN_FLOATS)
def test_scales_are_not_left_to_an_engine_that_rounds(model, tmp_path, kind) -> None:
    pytest.importorskip("openvino", reason="the target openvino needs it")
    with pytest.raises(BundleError, match="must compute the same scale indexes") as caught:
        export.split(
            model(CLASSIFICATION, kind), tmp_path / "b", target="openvino", precision="bf16"
        )
    assert caught.value.next_step.startswith("Leave --float-hyperprior out")
    assert list(tmp_path.iterdir()) == []
