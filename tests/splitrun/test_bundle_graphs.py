"""Bundles whose manifest names other graphs, tensors or a coder than their model has."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import small_spec

from splitrun.bundle import open_bundle
from splitrun.cli import main
from splitrun.comparison import Comparison
from splitrun.errors import BundleError, DesyncError, ParityError
from splitrun.files import sha256_file
from splitrun.halves import Device, Edge
from splitrun.limits import LIMITS
from splitrun.manifest import Parity
from splitrun.predictions import Prediction
from splitrun.predictions.segmentation import class_map
from splitrun.record import DeviceRecord, EdgeRecord
from splitrun.selftest import run_selftest
from splitzoo import export, zoo
from splitzoo.export import splitting
from splitzoo.export.formats.onnx_file import OnnxFormat
from splitzoo.export.options import ExportOptions
from splitzoo.export.parity import check_parity
from splitzoo.export.recording import record_run
from splitzoo.export.splitting import bundle_page

CLASSIFIER, DETECTOR, SEGMENTER = (
    "image-classification",
    "object-detection",
    "semantic-segmentation",
)
EXTRA = {"name": "extra", "dtype": "float32", "shape": [1, 4, 55, 55]}
Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[..., Path]:
    """Bundles of small models, each exported once; their graphs may be empty files."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def bundle(task: str, kind: str, *, empty: bool = False) -> Path:
        if (task, kind, empty) not in made:
            made[task, kind, empty] = path = folder / f"{task}-{kind}-{empty}"
            model = zoo.build(small_spec(task, kind))
            with pytest.MonkeyPatch.context() as patch:
                if empty:
                    patch.setattr(OnnxFormat, "write", lambda _format, _source, path: path.touch())
                    parity = Parity(LIMITS["fp32"])
                    patch.setattr(splitting, "check_parity", lambda *_, **__: parity)
                export.split(model, path)
        return made[task, kind, empty]

    return bundle


@pytest.fixture
def changed(whole, tmp_path):
    """Copy a bundle, change its manifest or files, and let the hashes agree."""

    def change(
        task: str, kind: str, edit: Callable[[Manifest, Path], object], *, empty: bool = False
    ) -> Path:
        folder = shutil.copytree(whole(task, kind, empty=empty), tmp_path / "changed")
        manifest = json.loads((folder / "manifest.json").read_text())
        edit(manifest, folder)
        manifest["files"] = {name: sha256_file(folder / name) for name in manifest["files"]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return change


def refused(folder: Path, whole: Path, saying: str) -> None:
    """The device, the edge and the self-test refuse, whatever is run first."""
    good = DeviceRecord.load(open_bundle(whole))
    for use in (
        lambda: Device(open_bundle(folder)).encode(good.image),
        lambda: Edge(open_bundle(folder)).decode(good.stream),
        lambda: run_selftest(open_bundle(folder)),
    ):
        with pytest.raises(BundleError, match=saying) as caught:
            use()
        assert caught.value.next_step


def tail_of(manifest: Manifest) -> Manifest:
    """Return the only tail."""
    (tail,) = manifest["edge"]["tails"].values()
    return tail


def found(manifest: Manifest, graph: str) -> Manifest:
    """Return what holds a graph, under its name."""
    tail = tail_of(manifest)
    device = {"device": manifest["device"]["graph"]}
    return {"boxes": tail, "hyper": manifest["edge"]}.get(graph, device | {"edge": tail["graph"]})


def of(graph: str, side: str, edit: Callable[[list], object]):
    """Return an edit of a graph's list of tensors."""
    return lambda manifest, _: edit(found(manifest, graph)[graph][side])


def as_quantised(manifest: Manifest, folder: Path) -> None:
    np.savez(folder / "tables.npz")
    manifest["coding"].update(kind="quantised", settings={"channels": 4, "bits": 8})


def without(graph: str):
    return lambda manifest, _: found(manifest, graph).update({graph: None})


def task_of(task: str):
    return lambda manifest, _: manifest["spec"].update(task=task)


def twice(tensors: list) -> None:
    tensors.append(dict(tensors[0]))


def first(shape: list[int]):
    return lambda tensors: tensors.insert(0, EXTRA | {"shape": shape})


def of_integers(tensors: list) -> None:
    tensors[-1]["dtype"] = "int32"


def add(tensors: list) -> None:
    tensors.append(dict(EXTRA))


COUNTS = r"The coder \w+ takes \d tensors, gives \d and (needs a|has no) hyper graph"
CASES = [
    (CLASSIFIER, "shp-float", without("hyper"), COUNTS),
    (CLASSIFIER, "mshp-float", of("hyper", "outputs", list.pop), COUNTS),
    (CLASSIFIER, "mbt2018-float", of("hyper", "outputs", add), COUNTS),
    (CLASSIFIER, "fp", of("device", "outputs", add), COUNTS),
    (CLASSIFIER, "fp", of("edge", "inputs", add), COUNTS),
    (CLASSIFIER, "fp", as_quantised, COUNTS),
    (CLASSIFIER, "fp", of("device", "outputs", twice), "a graph has a tensor twice"),
    (CLASSIFIER, "fp", of("device", "outputs", first([])), "extra is a tensor without dimensions"),
    (CLASSIFIER, "fp", of("device", "outputs", first([1])), "extra has 1 dimensions, not 4"),
    (CLASSIFIER, "mshp-float", of("edge", "inputs", of_integers), "halves do not meet: means"),
    (CLASSIFIER, "mbt2018", of("edge", "inputs", of_integers), "halves do not meet: latent_hat"),
    (CLASSIFIER, "fp", of("edge", "outputs", add), "outputs are not those of image-classif"),
    (CLASSIFIER, "fp", task_of(DETECTOR), "a detector without a boxes graph"),
    (DETECTOR, "fp", without("boxes"), "a detector without a boxes graph"),
    (DETECTOR, "fp", task_of(CLASSIFIER), "outputs are not those of image-classif"),
    (DETECTOR, "fp", task_of(SEGMENTER), "outputs are not those of semantic-segm"),
    (DETECTOR, "fp", of("boxes", "inputs", list.pop), "boxes graph does not take"),
    (DETECTOR, "fp", of("boxes", "outputs", add), "boxes graph does not take"),
    (DETECTOR, "fp", of("edge", "outputs", list.reverse), "does not give levels, objectness"),
]


@pytest.mark.parametrize(("task", "kind", "edit", "saying"), CASES)
def test_graphs_of_other_tensors_are_refused(whole, changed, task, kind, edit, saying) -> None:
    # None of them is found by running a graph.
    refused(changed(task, kind, edit, empty=True), whole(task, kind, empty=True), saying)


def test_a_graph_that_gives_another_batch_than_it_says_is_refused(changed) -> None:
    def both(manifest: Manifest, _: Path) -> None:
        device, edge = manifest["device"]["graph"], tail_of(manifest)["graph"]
        for tensor in (device["outputs"][0], edge["inputs"][0]):
            tensor["shape"][0] = 2

    with pytest.raises(BundleError, match=r"The graph gave symbols as int32 \(1, "):
        run_selftest(open_bundle(changed(CLASSIFIER, "fp", both)))


# A prediction is made of the outputs before a bundle passes


def slow(*values: object):
    return pytest.param(*values, marks=pytest.mark.slow)


def no_labels(_: Manifest, folder: Path) -> None:
    (folder / "edge/labels.json").write_text("[]")


def no_settings(manifest: Manifest, _: Path) -> None:
    tail_of(manifest)["postprocessing"] = {}


@pytest.mark.parametrize(
    ("task", "edit", "saying"),
    [
        (CLASSIFIER, no_labels, "The bundle has 0 labels for 7 classes"),
        slow(DETECTOR, no_labels, "The bundle has 0 labels for 7 classes"),
        slow(SEGMENTER, no_labels, "The bundle has 0 labels for 7 classes"),
        slow(DETECTOR, no_settings, "detection settings are damaged"),
    ],
)
def test_a_bundle_that_cannot_predict_passes_no_check(changed, task, edit, saying) -> None:
    folder = changed(task, "fp", edit)
    model = zoo.build(small_spec(task, "fp"))
    records = (record_run(model, seed) for seed in range(2))
    for check in (
        lambda: run_selftest(open_bundle(folder)),
        lambda: export.verify(folder),
        lambda: check_parity(open_bundle(folder), records, dynamic_batch=False),
    ):
        with pytest.raises(BundleError, match=saying):
            check()


@pytest.mark.parametrize(("classes", "dtype"), [(256, np.uint8), (300, np.uint16)])
def test_a_map_of_many_classes_names_the_last(classes, dtype) -> None:
    logits = np.zeros((1, classes, 2, 3), np.float32)
    logits[0, -1] = 1
    found = class_map(logits)
    assert found.dtype == dtype
    assert found.tolist() == [[classes - 1] * 3] * 2


# The halves here, one after the other


def test_halves_that_disagree_here_fail_both_checks(whole, monkeypatch) -> None:
    bundle = open_bundle(whole(CLASSIFIER, "fp"))
    model = zoo.build(small_spec(CLASSIFIER, "fp"))
    recorded = [record_run(model, seed) for seed in range(2)]
    streams = {record.edge.stream for record in recorded} | {EdgeRecord.load(bundle).stream}
    read = Edge.decompress

    def read_recorded(edge: Edge, stream: bytes):
        # As where device and edge both differ from PyTorch at a tie: each by itself passes.
        if stream not in streams:
            raise DesyncError("Other scale indexes.", next_step="Export again.")
        return read(edge, stream)

    shifted = Device.wire_tensors

    def at_a_tie(device: Device, image):
        symbols, *rest = shifted(device, image)
        symbols = symbols.copy()
        symbols.reshape(-1)[0] += 1
        return symbols, *rest

    monkeypatch.setattr(Edge, "decompress", read_recorded)
    monkeypatch.setattr(Device, "wire_tensors", at_a_tie)
    monkeypatch.setattr("splitrun.selftest.check_device", lambda *_: Comparison())
    for check in (
        lambda: run_selftest(bundle),
        lambda: check_parity(bundle, recorded, dynamic_batch=False),
    ):
        with pytest.raises(ParityError, match=r"cannot read .* writes: Other scale") as caught:
            check()
        assert caught.value.next_step == "Export again."


def test_an_edge_that_reads_other_symbols_than_written_fails(whole, monkeypatch) -> None:
    bundle = open_bundle(whole(CLASSIFIER, "fp"))
    monkeypatch.setattr("splitrun.selftest.check_edge_inputs", lambda *_: None)
    read = Edge.decompress
    monkeypatch.setattr(
        Edge, "decompress", lambda *words: tuple(tensor + 1 for tensor in read(*words))
    )
    with pytest.raises(ParityError, match="reads other symbols than were written"):
        run_selftest(bundle)


# What is said


def test_a_prediction_of_nothing_is_said() -> None:
    assert Prediction().rows() == [("", "nothing found")]


@pytest.mark.parametrize(
    ("kind", "symbols", "said", "unsaid"),
    [
        ("factorized", 9, "back the symbols that went in.", "gave back to PyTorch"),
        ("pixels", 9, "gave back what the codec gave back to PyTorch.", "symbols that went in"),
        ("features", 0, "the features that the device sends agree within 0.0001", "gave\nback the"),
        ("features", 0, "gave back what the codec gave back to PyTorch.", "0 symbols"),
    ],
)
def test_readme_says_what_was_checked(tiny_bundle, kind, symbols, said, unsaid) -> None:
    manifest = open_bundle(tiny_bundle).manifest
    manifest = replace(
        manifest,
        coding=replace(manifest.coding, kind=kind),
        parity=replace(manifest.parity, symbols=symbols),
    )
    text = bundle_page(manifest)
    assert said in text
    assert unsaid not in text
    assert f"Both halves carry the id `{manifest.coding.stream_id}`" in text
    assert "\n\n\n" not in text


@pytest.mark.slow
def test_a_detector_that_finds_nothing_says_so(changed, tmp_path, capsys) -> None:
    folder = changed(
        DETECTOR, "fp", lambda manifest, _: tail_of(manifest)["postprocessing"].update(score=1)
    )
    bundle = open_bundle(folder)
    record = EdgeRecord.load(bundle)
    assert Edge(bundle).predict(record.stream) == Prediction()
    (tmp_path / "a.sz").write_bytes(record.stream)
    assert main(["--bundle", str(folder), "decode", str(tmp_path / "a.sz")]) == 0
    assert capsys.readouterr().out.split("\n", 1)[1].strip() == "nothing found"


def test_an_image_of_no_size_is_refused(tiny_bundle, capsys) -> None:
    for size in ("640", "0x480", "axb", "1x2x3"):
        with pytest.raises(SystemExit) as caught:
            main(["--bundle", str(tiny_bundle), "decode", "a.sz", "--image-size", size])
        assert caught.value.code == 2
        assert f"{size!r} is not of the form 640x480" in capsys.readouterr().err


def test_a_detector_of_any_batch_is_refused_before_its_weights(
    splitzoo, tmp_path, monkeypatch
) -> None:
    folder = zoo.save(zoo.build(small_spec(DETECTOR, "fp")), tmp_path / "saved")
    monkeypatch.setattr(
        "splitzoo.zoo.resolve.ModelSource.load", lambda *_, **__: pytest.fail("loaded")
    )
    code, _, err = splitzoo("export", "split", folder, "--dynamic-batch", "-o", tmp_path / "bundle")
    assert code == 1
    assert "takes one image" in err
    assert "Leave --dynamic-batch out." in err
    wanted = ExportOptions(target="cpu", precision="fp32", dynamic_batch=True)
    wanted.check_possible(small_spec(CLASSIFIER, "fp"))
