"""Bundles whose manifest or files are damaged: each is refused, and the reason named."""

import json
import os
import shutil
from pathlib import Path

import pytest

from splitrun.bundle import open_bundle
from splitrun.errors import BundleError, SplitzooError
from splitrun.halves import Device, Edge
from splitzoo import export


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


def test_the_whole_check_begins_with_the_boards_reader(manifest) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json is damaged: graphs\.edge\.engine is 5,"):
        export.verify(manifest("graphs/edge/engine", 5))


def test_the_undamaged_bundle_is_verified(tiny_bundle, tiny_model) -> None:
    result = export.verify(tiny_bundle)
    assert result.files == len(result.manifest.files)
    assert result.manifest.spec == tiny_model.spec.model_dump(mode="json")
    assert result.selftest.symbols == 4 * 55 * 55


# The manifest as a file


def test_a_folder_without_manifest_is_no_bundle(linked) -> None:
    (linked / "manifest.json").unlink()
    refused(linked, "is not a bundle: it has no manifest.json")


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path) -> None:
    refused(tmp_path / "nowhere", "is not a bundle")


def test_the_error_says_how_to_make_a_bundle(tmp_path) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path)
    assert caught.value.next_step.endswith("splitzoo export split --target cpu -o DIR")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b"null",
        b'"manifest"',
        b"{}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"schema_version": ' + b"[" * 200_000,
        b'{"schema_version": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda content: repr(content[:20]),
)
def test_a_manifest_that_is_no_json_object_is_damaged(linked, content) -> None:
    (linked / "manifest.json").write_bytes(content)
    refused(linked, "manifest.json is damaged")


def test_a_huge_manifest_is_refused_unread(linked) -> None:
    with (linked / "manifest.json").open("wb") as file:
        file.truncate(1 << 34)  # sparse: no disk is used
    refused(linked, "manifest.json is larger than 4 MiB")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_manifest_is_damaged(linked, share) -> None:
    path = linked / "manifest.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(linked, "manifest.json is damaged")


# The manifest's contents


@pytest.mark.parametrize("version", [5, 10**6])
def test_a_newer_schema_says_how_to_go_on(manifest, version) -> None:
    damaged = manifest("schema_version", version)
    refused(damaged, f"has schema {version}; this reads schema 4.")
    refused(damaged, "Use the splitrun inside the bundle, or: pip install --upgrade")


def test_an_older_schema_is_refused_whatever_it_holds(linked) -> None:
    first = {
        "schema_version": 1,
        "spec": {"name": "tiny", "backbone": "test_resnet", "beta": 0.08},
        "engine": "onnxruntime",
        "device": {"file": "device/encoder.onnx"},
        "edge": {"file": "edge/decoder.onnx"},
        "coding": {"kind": "factorized", "latent_shape": [4, 55, 55]},
    }
    (linked / "manifest.json").write_text(json.dumps(first))
    refused(linked, "manifest.json has schema 1; this reads schema 4.")
    refused(linked, "Use the splitrun inside the bundle, or export it again.")


@pytest.mark.parametrize("version", [0, -1, "1", 1.5, None, [1]])
def test_a_version_that_is_none_is_damage(manifest, version) -> None:
    refused(manifest("schema_version", version), "manifest.json is damaged")


@pytest.mark.parametrize(
    "keys",
    [
        *("spec", "target", "graphs", "coding", "postprocessing", "labels", "selftest", "parity"),
        *("provenance", "files", "precision_report", "requirements", "schema_version"),
        *("graphs/device", "graphs/edge", "graphs/edge/engine", "graphs/edge/hint", "coding/kind"),
        *("spec/name", "spec/preprocessing/fit", "parity/limits/changed", "parity/pairs/0/edge"),
    ],
)
def test_a_missing_key_is_named(manifest, keys) -> None:
    refused(manifest(keys, ...), f"{keys.replace('/', '.')} is missing")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("spec", []),
        ("spec", "resnet"),
        ("spec/name", 5),
        ("spec/preprocessing", []),
        ("spec/preprocessing/crop", 224),
        ("spec/preprocessing/crop", [224]),
        ("spec/preprocessing/crop", []),
        ("spec/preprocessing/crop", ["a", "b"]),
        ("spec/preprocessing/crop", [224.0, 224.0]),
        ("spec/preprocessing/resize", 100),
        ("spec/preprocessing/resize", 256.5),
        ("spec/preprocessing/resize", 10**9),
        ("spec/preprocessing/interpolation", "magic"),
        ("spec/preprocessing/mean", ["a", "b", "c"]),
        ("spec/preprocessing/mean", [[0.5], [0.5], [0.5]]),
        ("spec/preprocessing/mean", [0.5, 0.5, float("nan")]),
        ("spec/preprocessing/std", [0.0, 0.0, 0.0]),
        ("spec/preprocessing/std", [1.0]),
        ("spec/preprocessing/std", [float("nan")] * 3),
        ("spec/preprocessing/extra", 1),
        ("files", []),
        ("files", None),
        ("files", {"device/encoder.onnx": 5}),
        ("graphs", []),
        ("graphs", {}),
        ("graphs/device", None),
        ("graphs/device/file", 5),
        ("graphs/device/file", "device/encoder.onnx\0"),
        ("labels", "labels.json\0"),
        ("graphs/device/file", None),
        ("graphs/device/engine", ["onnxruntime"]),
        ("graphs/edge/engine", None),
        ("graphs/device/threads", -1),
        ("graphs/device/threads", 1 << 20),
        ("graphs/device/threads", 1.0),
        ("graphs/device/hint", 5),
        ("graphs/device/weights", 5),
        ("graphs/device/weights", "other.bin"),
        ("graphs/device/inputs", "image"),
        ("graphs/device/inputs", []),
        ("graphs/device/inputs", None),
        ("graphs/device/outputs", []),
        ("graphs/edge/outputs", {}),
        ("graphs/device/inputs/0", "image"),
        ("graphs/device/inputs/0/name", None),
        ("graphs/device/inputs/0/name", "\x1b[2J"),
        ("graphs/device/inputs/0/shape", 5),
        ("graphs/device/inputs/0/shape", "1322"),
        ("graphs/device/inputs/0/shape", [1, 3, 64, 64]),
        ("graphs/device/outputs/0/shape", [1, 4, 55, 54]),
        ("graphs/device/outputs/0/shape", [1, 4, 55, True]),
        ("graphs/device/outputs/0/dtype", "foo"),
        ("graphs/device/outputs/0/dtype", "uint8"),
        ("graphs/edge/inputs/0/shape", []),
        ("graphs/edge/outputs/0/shape", [1, 0]),
        ("graphs/edge/outputs/0/shape", [1, -1]),
        ("graphs/edge/outputs/0/shape", [1, 10**400]),
        ("graphs/edge/outputs/0/dtype", "foo"),
        ("graphs/hyper", {}),
        ("graphs/\x1b[2J", {}),
        ("coding/kind", 5),
        ("coding/settings", []),
        ("coding/settings", None),
        ("coding/settings", {"quality": 1.5}),
        ("coding/settings", {"quality": True}),
        ("coding/settings", {"quality": [1]}),
        ("coding/settings", {"codec": "\x1b[2J"}),
        ("coding/model_id", "zz"),
        ("coding/model_id", "00"),
        ("coding/model_id", 5),
        ("coding/shape", [55]),
        ("coding/shape", [4, 55, 55]),
        ("coding/shape", [55, 54]),
        ("coding/shape", [55.0, 55]),
        ("coding/shape", [0, 55]),
        ("coding/shape", [-1, 55]),
        ("coding/shape", [55, 1 << 40]),
        ("postprocessing", 5),
        ("postprocessing", "boxes"),
        ("parity/limits/output_tolerance", "none"),
        ("parity/limits/output_tolerance", None),
        ("parity/limits/output_tolerance", 10**400),
        ("parity/limits", {"tie_margin": 0.0, "abacus": 1}),
        ("parity/limits/changed", float("nan")),
        ("parity/limits/difference", 0),
        ("precision", 5),
        ("precision", "fp7"),
        ("extra", 1),
        ("graphs/other", {}),
        ("graphs/edge/extra", 1),
        ("parity/images", "x"),
        ("parity/images", True),
        ("requirements", ["numpy", 1]),
        ("provenance/weights", "lost"),
        ("provenance/versions/torch", None),
        ("provenance", {}),
        ("provenance/weights", 0),
        ("target", 5),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_value_of_another_type_or_range_is_damage(manifest, keys, value) -> None:
    refused(manifest(keys, value), "manifest.json is damaged")


@pytest.mark.parametrize(
    ("keys", "value"),
    [("spec/beta", -1), ("spec/extra", 1), ("coding/calibration", {"kind": "factorized"})],
)
def test_verify_holds_spec_and_calibration_to_their_schemas(manifest, keys, value) -> None:
    with pytest.raises(BundleError, match=rf"is damaged: {keys.replace('/', '.')}"):
        export.verify(manifest(keys, value))


def test_an_unknown_target_is_refused(manifest) -> None:
    with pytest.raises(SplitzooError, match="No target is named 'abacus'"):
        export.verify(manifest("target", "abacus"))


@pytest.mark.parametrize(("graph", "half"), [("device", Device), ("edge", Edge)])
def test_an_unknown_engine_is_named_with_the_known_ones(manifest, graph, half) -> None:
    damaged = manifest(f"graphs/{graph}/engine", "abacus")
    with pytest.raises(BundleError, match=r"wants the engine 'abacus'.*has onnxruntime"):
        half(open_bundle(damaged))
    with pytest.raises(BundleError, match="abacus"):
        export.verify(damaged)


def test_an_unknown_coder_is_named_with_the_known_ones(manifest) -> None:
    damaged = manifest("coding/kind", "abacus")
    for half in (Device, Edge):
        with pytest.raises(BundleError, match=r"The coder 'abacus' is unknown; .*factorized, "):
            half(open_bundle(damaged))
    with pytest.raises(BundleError, match="abacus"):
        export.verify(damaged)


def test_a_coder_of_other_tables_is_refused(manifest) -> None:
    damaged = manifest("coding/kind", "hyperprior")
    with pytest.raises(BundleError, match=r"Cannot read entropy tables from .*it holds cdf\.npy"):
        open_bundle(damaged).codec()
    with pytest.raises(BundleError, match="entropy tables"):
        export.verify(damaged)


# Paths that leave the folder

ESCAPES = [
    "../secret.onnx",
    "device/../../secret.onnx",
    "/etc/hostname",
    "//etc/hostname",
    "..",
    ".",
    "",
    "device/..",
    "..\\secret.onnx",
    "device\\encoder.onnx",
    "C:/secret.onnx",
    "C:secret.onnx",
]


@pytest.mark.parametrize("name", ESCAPES, ids=repr)
@pytest.mark.parametrize(
    "keys", ["graphs/device/file", "graphs/device/weights", "coding/tables", "labels", "selftest"]
)
def test_a_part_outside_the_folder_is_refused(manifest, tmp_path, keys, name) -> None:
    (tmp_path / "secret.onnx").write_text("secret")
    refused(manifest(keys, name), f"names a path outside the bundle: {name!r}")


@pytest.mark.parametrize(
    "name", ["edge//decoder.onnx", "./edge/decoder.onnx", "edge/./decoder.onnx"]
)
def test_another_spelling_of_a_path_is_damage(linked, name) -> None:
    path = linked / "manifest.json"
    path.write_text(path.read_text().replace('"edge/decoder.onnx"', json.dumps(name)))
    refused(linked, f"the path {name!r} is not plainly written")


@pytest.mark.parametrize("name", ESCAPES, ids=repr)
def test_a_listed_file_outside_the_folder_is_refused(manifest, tmp_path, name) -> None:
    (tmp_path / "secret.onnx").write_text("secret")
    damaged = manifest("files", {name: "0" * 64})
    refused(damaged, f"names a path outside the bundle: {name!r}")


@pytest.mark.skipif(os.name == "nt", reason="Windows makes links for administrators alone")
@pytest.mark.parametrize("name", ["device/encoder.onnx", "labels.json", "README.md"])
def test_a_link_out_of_the_folder_is_refused(damaged, tmp_path, name) -> None:
    shutil.move(damaged / name, tmp_path / "outside")
    (damaged / name).symlink_to(tmp_path / "outside")
    refused(damaged, f"names a path outside the bundle: {name!r}")


@pytest.mark.skipif(os.name == "nt", reason="Windows makes links for administrators alone")
def test_a_linked_folder_is_refused(damaged, tmp_path) -> None:
    shutil.move(damaged / "device", tmp_path / "outside")
    (damaged / "device").symlink_to(tmp_path / "outside")
    refused(damaged, "names a path outside the bundle: 'device/encoder.onnx'")


def test_a_part_that_is_not_listed_is_refused(manifest) -> None:
    refused(manifest("files", {}), "tables.npz is used but not listed under files")


# Files

PARTS = ["device/encoder.onnx", "edge/decoder.onnx", "tables.npz", "labels.json", "selftest.npz"]
OTHERS = ["README.md", "requirements.txt", "splitrun/__main__.py", "splitrun/preprocessing.py"]


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_part_is_named(damaged, name) -> None:
    (damaged / name).unlink()
    refused(damaged, f"The bundle lacks {name}.")


@pytest.mark.parametrize("name", OTHERS)
def test_any_missing_file_is_named_by_the_check(damaged, name) -> None:
    (damaged / name).unlink()
    with pytest.raises(BundleError, match=f"The bundle lacks {name}"):
        export.verify(damaged)


@pytest.mark.parametrize("name", [*PARTS, *OTHERS])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_found_in_any_file(damaged, name, place) -> None:
    path = damaged / name
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was changed") as caught:
        export.verify(damaged)
    assert caught.value.next_step == "Copy or export the bundle again."


@pytest.mark.parametrize("name", ["README.md", "tables.npz", "splitrun/__init__.py"])
def test_an_added_byte_is_found(damaged, name) -> None:
    with (damaged / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(BundleError, match=f"{name} was changed"):
        export.verify(damaged)


@pytest.mark.parametrize(
    "name", ["extra.txt", "device/extra.onnx", "splitrun/extra.py", ".hidden", "sub/dir/file"]
)
def test_an_unlisted_file_is_named(damaged, name) -> None:
    (damaged / name).parent.mkdir(parents=True, exist_ok=True)
    (damaged / name).write_text("extra")
    with pytest.raises(BundleError, match=f"that its manifest does not name: {name}"):
        export.verify(damaged)


def test_what_python_leaves_beside_the_runtime_is_no_damage(damaged) -> None:
    cache = damaged / "splitrun" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "cli.cpython-311.pyc").write_bytes(b"compiled")
    export.verify(damaged)


def test_a_python_cache_where_no_python_lies_is_unlisted(damaged) -> None:
    (damaged / "device" / "__pycache__").mkdir()
    (damaged / "device" / "__pycache__" / "weights.bin").write_bytes(b"extra")
    with pytest.raises(BundleError, match="that its manifest does not name"):
        export.verify(damaged)


@pytest.mark.skipif(os.name == "nt", reason="Windows makes links for administrators alone")
def test_an_unlisted_linked_folder_is_named(damaged, tmp_path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (damaged / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="that its manifest does not name: linked"):
        export.verify(damaged)


@pytest.mark.parametrize(
    ("keys", "value", "saying"),
    [
        ("parity/limits/output_tolerance", 1e9, "allows output tolerance of 1e+09"),
        ("parity/limits/output_tolerance", float("inf"), "output_tolerance is inf, not a number"),
        ("parity/limits/tie_margin", 0.5, "allows tie margin of 0.5"),
        ("parity/limits/changed", 0.1, "allows changed of 0.1; the exporter allows 0 in fp32"),
        ("parity/limits/difference", 2, "allows difference of 2"),
        ("coding/model_id", "deadbeef", "the stream id is not of the model"),
    ],
)
def test_a_bundle_that_judges_itself_leniently_is_refused(manifest, keys, value, saying) -> None:
    with pytest.raises(BundleError) as caught:
        export.verify(manifest(keys, value))
    assert saying in str(caught.value)
