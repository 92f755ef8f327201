"""splitzoo export split, verify and run as a user meets them."""

import json
import re
import shutil
from pathlib import Path

import pytest
from commands import disk_of, refused

from splitrun.errors import BundleError
from splitzoo.export import running
from splitzoo.export.running import ImageRun


def test_export_split_prints_a_manifest_whose_command_can_be_run_again(
    splitzoo, copied_graphs, tiny_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = splitzoo("export", "split", tiny_folder, "--random-weights", "--json")
    assert code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-cpu"]
    first = json.loads(Path("tiny-cpu/manifest.json").read_text())
    assert json.loads(out) == first
    assert "The weights are random" in err
    assert "splitzoo export run tiny-cpu" in err
    program, *words = first["provenance"]["command"].split()
    assert program == "splitzoo"
    code, out, err = splitzoo(*words, "-o", "second")
    assert (code, Path("second/manifest.json").exists()) == (0, True), err
    assert re.search(r"weights +random", out)
    assert re.search(r"symbols differing +\d+ of 36,300", out)
    second = json.loads(Path("second/manifest.json").read_text())
    assert second["provenance"]["model_sha256"] == first["provenance"]["model_sha256"]


def test_failed_parity_exits_with_3(splitzoo, copied_graphs, tiny_folder, tmp_path) -> None:
    words = ("--random-weights", "--seed", "1", "-o", tmp_path / "b")
    refused(splitzoo("export", "split", tiny_folder, *words), "symbols differ", code=3)
    assert list(tmp_path.iterdir()) == []


def test_export_split_leaves_a_taken_place_alone(splitzoo, tiny_folder, tmp_path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    words = ("export", "split", tiny_folder, "--random-weights", "-o")
    taken = f"Cannot write {tmp_path}: the folder exists and is not empty"
    refused(splitzoo(*words, tmp_path), taken, "with -o")
    refused(splitzoo(*words, mine / "b"), f"Cannot write {mine / 'b'}: ", "with -o")
    assert mine.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [mine]


def test_export_split_by_force_replaces_a_bundle_and_nothing_else(
    splitzoo, copied_graphs, tiny_folder, tiny_bundle, tmp_path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["build_engine.py"] = "0" * 64  # of another target
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    for name in ("build_engine.py", "edge/labels.json", "device/old.onnx", "photo.jpg"):
        (bundle / name).write_text("old")
    words = ("export", "split", tiny_folder, "--random-weights", "-o", bundle)
    refused(splitzoo(*words), "exists and is not empty", "--force")
    code, _, err = splitzoo(*words, "--force")
    assert code == 0, err
    refused(splitzoo("export", "verify", bundle), "does not name: photo.jpg.")
    (bundle / "photo.jpg").unlink()
    assert splitzoo("export", "verify", bundle)[0] == 0


# In turn, what no longer fits: the self-test record, the edge graph.
@pytest.mark.parametrize("size_bytes", [100_000, 1_000_000])
def test_a_full_disk_leaves_nothing_behind(
    splitzoo, copied_graphs, tiny_folder, tmp_path, size_bytes
) -> None:
    with disk_of(size_bytes):
        result = splitzoo("export", "split", tiny_folder, "--random-weights", "-o", tmp_path / "b")
    refused(result, f"Cannot write {tmp_path / 'b'}: file too large", "Nothing was left behind")
    assert list(tmp_path.iterdir()) == []


# export verify and run


def test_export_verify_says_what_it_checked(splitzoo, tiny_bundle) -> None:
    code, out, err = splitzoo("export", "verify", tiny_bundle)
    assert (code, err.strip()) == (0, "")
    assert "as the manifest says" in out
    assert re.search(r"symbols +12,100 of 12,100 equal", out)
    code, out, _ = splitzoo("export", "verify", tiny_bundle, "--json")
    assert code == 0
    result = json.loads(out)
    assert result["files"] == len(result["manifest"]["files"])
    assert result["selftest"]["device"]["symbols"] == 12_100


def test_a_changed_bundle_or_none_is_refused(splitzoo, tiny_bundle, tmp_path, photo) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    (bundle / "edge/labels.json").write_text("[]")
    refused(splitzoo("export", "verify", bundle), "labels.json was changed", "export the bundle")
    said = (f"{tmp_path} is not a bundle: it has no manifest.json.", "splitzoo export split")
    refused(splitzoo("export", "verify", tmp_path), *said)
    refused(splitzoo("export", "run", tmp_path, photo), *said)


def test_export_run_of_two_images(splitzoo, tiny_bundle, photo, photos) -> None:
    code, out, err = splitzoo("export", "run", tiny_bundle, photo, photos[0])
    assert code == 0
    # A long path wraps the line that it stands in.
    assert len(re.findall(r"[\d,]+ bytes sent", " ".join(out.split()))) == 2
    assert len(re.findall(r"class \d +\d+\.\d%", out)) == 10
    assert "these predictions mean nothing" in err
    code, out, _ = splitzoo("export", "run", tiny_bundle, photo, "--top", "3", "--json")
    assert code == 0
    (result,) = json.loads(out)
    assert result["image"] == str(photo)
    assert result["stream_bytes"] == result["payload_bytes"] + 12
    assert [{*score} for score in result["top"]] == [{"index", "label", "probability"}] * 3


def test_export_run_names_the_bad_image_among_good_ones(
    splitzoo, tiny_bundle, photo, tmp_path
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(photo.read_bytes()[:1000])
    code, out, err = splitzoo("export", "run", tiny_bundle, bad, photo, bad)
    assert code == 1
    assert re.findall(r"(\S+): [\d,]+ bytes sent", out) == [str(photo)]
    assert "error: 2 of 3 images could not be used:\n" in err
    assert err.count(f"Cannot use the image {bad}: ") == 2
    code, out, _ = splitzoo("export", "run", tiny_bundle, bad, photo, "--json")
    first, second = json.loads(out)
    assert code == 1
    assert (first["image"], first["error"]["kind"]) == (str(bad), "ImageError")
    assert (second["image"], len(second["top"])) == (str(photo), 5)
    refused(splitzoo("export", "run", tiny_bundle, bad), f"Cannot use the image {bad}: ")
    assert list(tmp_path.iterdir()) == [bad]


def test_export_run_prints_as_results_come(splitzoo, tiny_bundle, photo, monkeypatch) -> None:
    calls = []

    def run(_bundle, images, *_):
        calls.append(len(images))
        if len(calls) == 2:
            raise BundleError("The bundle is gone.")
        return [ImageRun(str(image), "onnxruntime", 1, 13, [], [], []) for image in images]

    monkeypatch.setattr(running, "_run_some", run)
    code, out, err = splitzoo("export", "run", tiny_bundle, *[photo] * 40)
    assert (code, calls) == (1, [32, 8])
    assert out.count("13 bytes sent") == 32
    assert "The bundle is gone." in err


def test_export_run_takes_images_of_any_name(
    splitzoo, tiny_bundle, photo, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["-o.jpg", "--help", "a b.jpg", "[red]x.jpg", "ünï.jpg"]
    for name in names:
        shutil.copyfile(photo, name)
    code, out, err = splitzoo("export", "run", tiny_bundle, "--", *names)
    assert code == 0, err
    assert [name for name in names if f"{name}: " in out] == names


def test_labels_that_cannot_be_printed_are_no_traceback(
    splitzoo, tiny_bundle, photo, tmp_path
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "b")
    labels = ["\ud800" if index % 2 else "\x1b[2J" for index in range(10)]
    (bundle / "edge/labels.json").write_text(json.dumps(labels))
    code, _, err = splitzoo("export", "run", bundle, photo)
    assert code in (0, 1)
    assert "Traceback" not in err
