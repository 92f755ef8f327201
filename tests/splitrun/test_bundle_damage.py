"""Bundles whose manifest or files are damaged: each is refused, and the reason named."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest

from splitrun.bundle import open_bundle
from splitrun.errors import BundleError, SplitzooError
from splitrun.halves import Device, Edge
from splitrun.precision_reports import PrecisionReport
from splitzoo import export

TAIL = "edge/tails/classification"
TAIL_PATH = TAIL.replace("/", ".")


@pytest.fixture
def linked(tiny_bundle, tmp_path):
    """The tiny bundle with a manifest to damage; its other files are links."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "damaged", copy_function=os.link)
    content = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes(content)
    return folder


@pytest.fixture
def manifest(linked):
    """Change the manifest: a path of keys, and the value to put there; ``...`` deletes the key."""
    path = linked / "manifest.json"
    content = json.loads(path.read_text())

    def change(keys: str, value: object) -> Path:
        *parents, last = (int(key) if key.isdecimal() else key for key in keys.split("/"))
        entry = content
        for key in parents:
            entry = entry[key]
        if value is ...:
            del entry[last]
        else:
            entry[last] = value
        path.write_text(json.dumps(content))
        return linked

    return change


def refused(folder: Path, saying: str) -> None:
    """The board's reader refuses; the whole check begins with it."""
    with pytest.raises(BundleError) as caught:
        open_bundle(folder)
    assert saying in str(caught.value)


def test_the_undamaged_bundle_is_verified(tiny_bundle, tiny_model) -> None:
    result = export.verify(tiny_bundle)
    assert result.files == len(result.manifest.files)
    assert result.manifest.spec == tiny_model.spec.model_dump(mode="json")
    assert result.selftest.device.symbols == 4 * 55 * 55


# The manifest as a file


def test_a_folder_without_manifest_is_no_bundle(linked, tmp_path) -> None:
    (linked / "manifest.json").unlink()
    refused(linked, "is not a bundle: it has no manifest.json")
    refused(tmp_path / "nowhere", "splitzoo export split --target cpu -o DIR")


def test_a_manifest_that_is_no_json_object_is_damaged(linked) -> None:
    path = linked / "manifest.json"
    whole = path.read_bytes()
    for content in (
        *(b"", b"{", b"not json", b"[]", b"null", b'"manifest"', b"{}", b"\xff\xfe\x00"),
        *(b"[" * 100_000, b'{"schema_version": ' + b"[" * 200_000),
        b'{"schema_version": ' + b"9" * 5000 + b"}",
        *(whole[: len(whole) // 2], whole[:-3]),
    ):
        path.write_bytes(content)
        refused(linked, "manifest.json is damaged")


def test_a_huge_manifest_is_refused_unread(linked) -> None:
    with (linked / "manifest.json").open("wb") as file:
        file.truncate(1 << 34)  # sparse: no disk is used
    refused(linked, "manifest.json is larger than 4 MiB")


# The manifest's contents


def test_another_schema_says_how_to_go_on(manifest) -> None:
    damaged = manifest("schema_version", 7)
    refused(damaged, "manifest.json has schema 7; this reads schema 6.")
    refused(damaged, "Use the splitrun inside the bundle, or: pip install --upgrade")
    # An older one, whatever it holds.
    (damaged / "manifest.json").write_text('{"schema_version": 1, "engine": "onnxruntime"}')
    refused(damaged, "manifest.json has schema 1; this reads schema 6.")
    refused(damaged, "Use the splitrun inside the bundle, or export it again.")


@pytest.mark.parametrize(
    "keys",
    [
        *("spec", "target", "halves", "coding", "device", "edge", "parity"),
        *("provenance", "files", "precision_report", "schema_version"),
        *("device/graph", "device/selftest", "device/requirements", "edge/tails", "edge/hyper"),
        *(f"{TAIL}/graph/engine", f"{TAIL}/graph/hint", f"{TAIL}/labels", f"{TAIL}/selftest"),
        *(f"{TAIL}/postprocessing", f"{TAIL}/spec", f"{TAIL}/provenance", "coding/kind"),
        *("spec/name", "spec/preprocessing/fit", "parity/limits/changed", "parity/pairs/0/edge"),
    ],
)
def test_a_missing_key_is_named(manifest, keys) -> None:
    refused(manifest(keys, ...), f"{keys.replace('/', '.')} is missing")


NAN = float("nan")
BAD_VALUES = {
    "spec": [[], "resnet"],
    "spec/name": [5],
    "spec/preprocessing": [[]],
    "spec/preprocessing/crop": [224, [224], ["a", "b"], [224.0, 224.0]],
    "spec/preprocessing/resize": [100, 256.5, 10**9],
    "spec/preprocessing/interpolation": ["magic"],
    "spec/preprocessing/mean": [["a", "b", "c"], [[0.5], [0.5], [0.5]], [0.5, 0.5, NAN]],
    "spec/preprocessing/std": [[0.0, 0.0, 0.0], [1.0], [NAN] * 3],
    "spec/preprocessing/extra": [1],
    "files": [[], None, {"device/encoder.onnx": 5}],
    "halves": [[], None, "device", ["device", "device"], ["board"], [["device"]], [1]],
    "device": [[], None, {}],
    "device/requirements": [["numpy", 1]],
    "device/selftest": ["device/selftest.npz\x00"],
    "edge": [None],
    "edge/requirements": [[["numpy"]]],
    "edge/tails": [[], {}, {"a": None}],
    "device/graph": [None],
    "device/graph/file": [5, "device/encoder.onnx\x00", None],
    f"{TAIL}/labels": ["labels.json\x00"],
    "device/graph/engine": [["onnxruntime"]],
    f"{TAIL}/graph/engine": [None],
    "device/graph/threads": [-1, 1 << 20, 1.0],
    "device/graph/hint": [5],
    "device/graph/weights": [5, "other.bin"],
    "device/graph/inputs": ["image", [], None],
    "device/graph/outputs": [[]],
    f"{TAIL}/graph/outputs": [{}],
    "device/graph/inputs/0": ["image"],
    "device/graph/inputs/0/name": [None, "\x1b[2J"],
    "device/graph/inputs/0/shape": [5, "1322", [1, 3, 64, 64]],
    "device/graph/outputs/0/shape": [[1, 4, 55, 54], [1, 4, 55, True]],
    "device/graph/outputs/0/dtype": ["foo", "uint8"],
    f"{TAIL}/graph/inputs/0/shape": [[]],
    f"{TAIL}/graph/outputs/0/shape": [[1, 0], [1, -1], [1, 10**400]],
    f"{TAIL}/graph/outputs/0/dtype": ["foo"],
    "edge/hyper": [{}],
    "edge/tails/\x1b[2J": [{}],
    "edge/tails/two words": [{}],
    "coding/kind": [5],
    "coding/settings": [
        [],
        None,
        {"quality": 1.5},
        {"quality": True},
        {"quality": [1]},
        {"codec": "\x1b[2J"},
    ],
    "coding/stream_id": ["zz", "00", 5],
    "coding/shape": [[55], [4, 55, 55], [55, 54], [55.0, 55], [0, 55], [-1, 55], [55, 1 << 40]],
    f"{TAIL}/postprocessing": [5, "boxes"],
    "parity/limits/output_tolerance": ["none", None, 10**400],
    "parity/limits": [{"tie_margin": 0.0, "abacus": 1}],
    "parity/limits/changed": [NAN],
    "parity/limits/difference": [0],
    "precision": [5, "fp7"],
    "extra": [1],
    "graphs": [{}],
    f"{TAIL}/graph/extra": [1],
    "parity/images": ["x", True],
    f"{TAIL}/spec": [{}, {"name": 5, "task": "x"}, {"name": "x", "task": "object-detection"}],
    f"{TAIL}/provenance": [{}, "trained"],
    f"{TAIL}/boxes": [{}],
    "provenance/weights": ["lost", 0],
    "provenance/versions/torch": [None],
    "provenance": [{}],
    "target": [5],
    "schema_version": [0, -1, "1", 1.5, None, [1]],
    f"{TAIL}/graph/inputs/0/dtype": ["uint8", "float32"],
}


@pytest.mark.parametrize("keys", BAD_VALUES)
def test_a_value_of_another_type_or_range_is_damage(manifest, keys) -> None:
    for value in BAD_VALUES[keys]:
        refused(manifest(keys, value), "manifest.json is damaged")


@pytest.mark.parametrize(
    ("keys", "value", "saying"),
    [
        ("spec/beta", -1, "is damaged: spec.beta"),
        ("spec/extra", 1, "is damaged: spec.extra"),
        ("coding/calibration", {"kind": "factorized"}, "is damaged: coding.calibration"),
        (f"{TAIL}/graph/engine", 5, f"manifest.json is damaged: {TAIL_PATH}.graph.engine is 5,"),
        ("target", "abacus", "No target is named 'abacus'"),
        ("device/graph/engine", "abacus", "The device graph is for abacus; a bundle for cpu has"),
        ("parity/limits/output_tolerance", 1e9, "allows output tolerance of 1e+09"),
        ("parity/limits/output_tolerance", float("inf"), "output_tolerance is inf, not a number"),
        ("parity/limits/tie_margin", 0.5, "allows tie margin of 0.5"),
        ("parity/limits/changed", 0.1, "allows changed of 0.1; the exporter allows 0 in fp32"),
        ("parity/limits/difference", 2, "allows difference of 2"),
        ("coding/stream_id", "deadbeef", "the stream id is not of the model"),
    ],
)
def test_verify_holds_a_bundle_to_the_exporters_rules(manifest, keys, value, saying) -> None:
    with pytest.raises(SplitzooError) as caught:
        export.verify(manifest(keys, value))
    assert saying in str(caught.value)


def test_what_was_accepted_widens_no_other_limit(manifest) -> None:
    report = PrecisionReport(
        *(8, 8, True, 9, 0.5, 0.5, 0.5, 1, 0.5, 9.0, 9.0), accepted=("of the symbols, 50%",)
    )
    manifest("precision_report", dataclasses.asdict(report))
    damaged = manifest("parity/limits/changed", 0.5)
    assert export.verify(damaged).manifest.parity.limits.changed == 0.5
    for name in ("output_tolerance", "tie_margin"):
        damaged = manifest(f"parity/limits/{name}", 0.5)
        with pytest.raises(BundleError, match=f"allows {name.replace('_', ' ')} of 0.5"):
            export.verify(damaged)
        manifest(f"parity/limits/{name}", 1e-4)


def test_an_unknown_engine_or_coder_is_named_with_the_known_ones(manifest) -> None:
    for graph, half in (("device/graph", Device), (f"{TAIL}/graph", Edge)):
        damaged = manifest(f"{graph}/engine", "abacus")
        with pytest.raises(BundleError, match=r"wants the engine 'abacus'.*has onnxruntime"):
            half(open_bundle(damaged))
        manifest(f"{graph}/engine", "onnxruntime")
    damaged = manifest("coding/kind", "abacus")
    for use in (open_bundle(damaged).codec, lambda: export.verify(damaged)):
        with pytest.raises(BundleError, match=r"The coder 'abacus' is unknown; .*factorized, "):
            use()


def test_a_coder_of_other_tables_is_refused(manifest) -> None:
    damaged = manifest("coding/kind", "hyperprior")
    with pytest.raises(BundleError, match=r"Cannot read entropy tables from .*it holds cdf\.npy"):
        open_bundle(damaged).codec()


# Paths that leave the folder

ESCAPES = [
    *("../secret.onnx", "device/../../secret.onnx", "/etc/hostname", "//etc/hostname", "..", "."),
    *("", "device/..", "..\\secret.onnx", "device\\encoder.onnx", "C:/secret.onnx"),
]


def test_a_part_outside_the_folder_is_refused(manifest, tmp_path) -> None:
    (tmp_path / "secret.onnx").write_text("secret")
    for name in ESCAPES:
        refused(manifest("device/graph/file", name), f"names a path outside the bundle: {name!r}")


@pytest.mark.parametrize(
    "keys",
    [
        *("device/graph/weights", "device/selftest", "coding/tables"),
        *(f"{TAIL}/labels", f"{TAIL}/selftest", "files"),
    ],
)
def test_no_part_may_lie_outside_the_folder(manifest, tmp_path, keys) -> None:
    (tmp_path / "secret.onnx").write_text("secret")
    name = "../secret.onnx"
    damaged = manifest(keys, {name: "0" * 64} if keys == "files" else name)
    refused(damaged, f"names a path outside the bundle: {name!r}")


def test_another_spelling_of_a_path_is_damage(linked) -> None:
    path = linked / "manifest.json"
    text = path.read_text()
    for name in ("edge//decoder.onnx", "./edge/decoder.onnx", "edge/./decoder.onnx"):
        path.write_text(text.replace('"edge/decoder.onnx"', json.dumps(name)))
        refused(linked, f"the path {name!r} is not plainly written")


@pytest.mark.skipif(os.name == "nt", reason="Windows makes links for administrators alone")
@pytest.mark.parametrize(
    ("linked_name", "named"),
    [
        ("edge/labels.json", "edge/labels.json"),
        ("README.md", "README.md"),
        ("device", "device/encoder.onnx"),
    ],
)
def test_a_link_out_of_the_folder_is_refused(damaged, tmp_path, linked_name, named) -> None:
    shutil.move(damaged / linked_name, tmp_path / "outside")
    (damaged / linked_name).symlink_to(tmp_path / "outside")
    refused(damaged, f"names a path outside the bundle: {named!r}")


def test_a_part_that_is_not_listed_is_refused(manifest) -> None:
    refused(manifest("files", {}), "tables.npz is used but not listed under files")


# Files

PARTS = [
    *("device/encoder.onnx", "edge/decoder.onnx", "tables.npz"),
    *("edge/labels.json", "device/selftest.npz", "edge/selftest.npz"),
]
OTHERS = ["README.md", "requirements.txt", "splitrun/__main__.py", "splitrun/preprocessing.py"]


@pytest.mark.parametrize("name", [*PARTS, *OTHERS])
def test_a_missing_or_changed_file_is_named(damaged, name) -> None:
    path = damaged / name
    content = path.read_bytes()
    first, last = bytes([content[0] ^ 1]), bytes([content[-1] ^ 1])
    for changed in (first + content[1:], content[:-1] + last, content + b"\n"):
        path.write_bytes(changed)
        with pytest.raises(BundleError, match=f"{name} was changed") as caught:
            export.verify(damaged)
        assert caught.value.next_step == "Copy or export the bundle again."
    path.unlink()
    with pytest.raises(BundleError, match=rf"The bundle lacks {name}\."):
        (open_bundle if name in PARTS else export.verify)(damaged)


def test_an_unlisted_file_is_named(damaged, tmp_path) -> None:
    # What Python leaves beside the runtime is no damage; elsewhere it is.
    cache = damaged / "splitrun" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "cli.cpython-311.pyc").write_bytes(b"compiled")
    export.verify(damaged)
    for name in (
        *("extra.txt", "splitrun/extra.py", ".hidden", "sub/dir/file"),
        "device/__pycache__/weights.pyc",
    ):
        (damaged / name).parent.mkdir(parents=True, exist_ok=True)
        (damaged / name).write_text("extra")
        with pytest.raises(BundleError, match=f"that its manifest does not name: {name}"):
            open_bundle(damaged).check_files()
        (damaged / name).unlink()
    if os.name != "nt":
        (damaged / "linked").symlink_to(tmp_path)
        with pytest.raises(BundleError, match="that its manifest does not name: linked"):
            export.verify(damaged)
